// The form that logs in and creates accounts.

import { checkEmail, checkPassword, checkUsername } from "./account_rules.js";
import { APIClient } from "./api.js";
import { deviceName } from "./device_name.js";
import { byId } from "./dom.js";
import { describeError } from "./errors.js";
import { save } from "./storage.js";

const FIELDS = ["username", "email", "password", "repeat"];

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
    byId("chat").hidden = true;
    byId("login").hidden = false;
    byId("login-error").textContent = message;
    this.#clearPasswords();
    byId("username").focus();
  }

  #setRegistering(registering) {
    this.#registering = registering;
    byId("choose-login").setAttribute("aria-pressed", String(!registering));
    byId("choose-register").setAttribute("aria-pressed", String(registering));
    byId("email-row").hidden = !registering;
    byId("repeat-row").hidden = !registering;
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
      if (!account) return;
      save("session", account);
      this.#clearPasswords();
      byId("login").hidden = true;
      this.#onLogin(account);
    } catch (error) {
      const field = error.code === "unauthorized" ? "password" : "username";
      this.#reject(field, describeError(error));
    } finally {
      byId("login-submit").disabled = false;
    }
  }

  /** The account with its token; null if what was entered cannot be right. */
  async #logIn() {
    const [username, email, password, repeated] = FIELDS.map((id) => byId(id).value);
    const anonymous = new APIClient();
    if (this.#registering) {
      const problems = {
        username: checkUsername(username),
        email: checkEmail(email),
        [password ? "repeat" : "password"]: checkPassword(password, repeated),
      };
      const wrong = Object.keys(problems).find((field) => problems[field]);
      if (wrong) return this.#reject(wrong, problems[wrong]);
      await anonymous.request("POST", "/users/", { body: { username, email, password } });
      this.#setRegistering(false);
    }
    const { token } = await issueToken(anonymous, { username, password });
    // Usernames ignore case; show this one as it was registered.
    const user = (await new APIClient(token).request("GET", "/users/")).body;
    return { token, user_id: user.id, username: user.username };
  }

  #reject(field, problem) {
    byId("login-error").textContent = problem;
    byId(field).focus();
    return null;
  }

  #clearPasswords() {
    for (const id of ["password", "repeat"]) byId(id).value = "";
  }
}

/** A token that is called after this browser, where the service knows labels. */
async function issueToken(api, credentials) {
  try {
    const body = { ...credentials, label: deviceName() };
    return (await api.request("POST", "/tokens/", { body })).body;
  } catch (error) {
    if (error.code !== "invalid_body") throw error; // version 1 refuses labels
    return (await api.request("POST", "/tokens/", { body: credentials })).body;
  }
}
