// The form that logs in and creates accounts.

import { APIClient, describeError } from "./api.js";
import { byId } from "./dom.js";
import { save } from "./storage.js";

export class LoginForm {
  #registering = false;
  #onLogin;

  /** `onLogin({ token, user_id, username })` is called after each login. */
  constructor({ onLogin }) {
    this.#onLogin = onLogin;
    byId("choose-login").addEventListener("click", () => this.#setRegistering(false));
    byId("choose-register").addEventListener("click", () => this.#setRegistering(true));
    byId("login-form").addEventListener("submit", (event) => this.#submit(event));
  }

  /** Replace the chat with the form, with a message if there is something to say. */
  show(message = "") {
    history.replaceState(null, "", location.pathname);
    document.title = "chatd";
    byId("chat").hidden = true;
    byId("login").hidden = false;
    byId("login-error").textContent = message;
    byId("password").value = "";
    byId("username").focus();
  }

  #setRegistering(registering) {
    this.#registering = registering;
    byId("choose-login").setAttribute("aria-pressed", String(!registering));
    byId("choose-register").setAttribute("aria-pressed", String(registering));
    byId("email-row").hidden = !registering;
    byId("password").autocomplete = registering ? "new-password" : "current-password";
    byId("login-submit").textContent = registering ? "Create account" : "Log in";
    byId("login-error").textContent = "";
  }

  async #submit(event) {
    event.preventDefault();
    byId("login-submit").disabled = true;
    byId("login-error").textContent = "";
    try {
      const account = await this.#logIn();
      save("session", account);
      byId("password").value = "";
      byId("login").hidden = true;
      this.#onLogin(account);
    } catch (error) {
      byId("login-error").textContent = describeError(error);
      byId(error.code === "unauthorized" ? "password" : "username").focus();
    } finally {
      byId("login-submit").disabled = false;
    }
  }

  async #logIn() {
    const [username, email, password] = ["username", "email", "password"].map(
      (id) => byId(id).value,
    );
    const anonymous = new APIClient();
    if (this.#registering) {
      await anonymous.request("POST", "/users/", { body: { username, email, password } });
      this.#setRegistering(false);
    }
    const { token } = (await anonymous.request("POST", "/tokens/", { body: { username, password } }))
      .body;
    // Usernames ignore case; show this one as it was registered.
    const user = (await new APIClient(token).request("GET", "/users/")).body;
    return { token, user_id: user.id, username: user.username };
  }
}
