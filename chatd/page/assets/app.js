// The page: logging in, making accounts, and where a stay begins.

import { Api } from "./api.js";
import { Stay } from "./session.js";
import { keep, kept } from "./storage.js";
import { byId, say } from "./dom.js";

/** Show the card for logging in. */
function enter(word = "") {
  history.replaceState(null, "", location.pathname);
  document.title = "chatd";
  byId("chat").hidden = true;
  byId("chat").classList.remove("in-talk");
  byId("entry").hidden = false;
  byId("entry-error").textContent = word;
  byId("password").value = "";
  byId("username").focus();
}

let registering = false;

function choose(register) {
  registering = register;
  byId("choose-login").setAttribute("aria-pressed", String(!register));
  byId("choose-register").setAttribute("aria-pressed", String(register));
  byId("email-row").hidden = !register;
  byId("password").autocomplete = register ? "new-password" : "current-password";
  byId("entry-submit").textContent = register ? "Make an account" : "Log in";
  byId("entry-error").textContent = "";
}

async function submit(event) {
  event.preventDefault();
  const [username, email, password] = ["username", "email", "password"].map((id) => byId(id).value);
  byId("entry-submit").disabled = true;
  byId("entry-error").textContent = "";
  try {
    const api = new Api();
    if (registering) {
      await api.ask("POST", "/users/", { body: { username, email, password } });
      choose(false);
    }
    const { body } = await api.ask("POST", "/tokens/", { body: { username, password } });
    // The name as its owner spelled it when registering.
    const me = (await new Api(body.token).ask("GET", "/users/")).body;
    const session = { token: body.token, user_id: me.id, username: me.username };
    keep("session", session);
    byId("password").value = "";
    new Stay(session, enter).begin();
  } catch (problem) {
    byId("entry-error").textContent = say(problem);
    byId(problem.code === "unauthorized" ? "password" : "username").focus();
  } finally {
    byId("entry-submit").disabled = false;
  }
}

byId("choose-login").addEventListener("click", () => choose(false));
byId("choose-register").addEventListener("click", () => choose(true));
byId("entry-form").addEventListener("submit", submit);
// Logging in or out in one window is for all of them.
addEventListener("storage", (event) => event.key === "chatd.session" && location.reload());

const session = kept("session", null);
if (session) new Stay(session, enter).begin();
else enter();
