// Entry point of the page: resumes the stored session or shows the login form.

import { LoginForm } from "./login.js";
import { Session } from "./session.js";
import { load } from "./storage.js";

const loginForm = new LoginForm({ onLogin: startSession });

function startSession(account) {
  new Session(account, { onEnd: (message) => loginForm.show(message) }).start();
}

// Logging in or out in one window applies to the others, too.
addEventListener("storage", (event) => event.key === "chatd.session" && location.reload());

const account = load("session", null);
if (account) startSession(account);
else loginForm.show();
