// The sheet of settings: notifications, email, password, sessions and blocked people.

import { checkEmail, checkPassword } from "./account_rules.js";
import { NetworkError } from "./api.js";
import { byId, createButton, createElement } from "./dom.js";
import { describeError } from "./errors.js";
import { SessionList } from "./session_list.js";

const UNKNOWN_OUTCOME =
  "The server did not respond: the password may have been changed or not. Log in again to find out.";

export class Settings {
  #api;
  #blocks;
  #users;
  #notifications;
  #signal;
  #sessions;
  #dialog = byId("settings");

  constructor({ api, blocks, users, notifications, signal }) {
    this.#api = api;
    this.#blocks = blocks;
    this.#users = users;
    this.#notifications = notifications;
    this.#signal = signal;
    this.#sessions = new SessionList({ api, signal });
    const listen = (target, type, listener) => target.addEventListener(type, listener, { signal });
    listen(byId("open-settings"), "click", () => this.#open());
    listen(byId("close-settings"), "click", () => this.#dialog.close());
    // A click beside the sheet, on the dialog's backdrop.
    listen(this.#dialog, "click", ({ target }) => target === this.#dialog && this.#dialog.close());
    listen(byId("notify"), "change", () => this.#setNotifications());
    listen(byId("email-form"), "submit", (event) => this.#changeEmail(event));
    listen(byId("password-form"), "submit", (event) => this.#changePassword(event));
    signal.addEventListener("abort", () => this.#dialog.close());
  }

  /** Other people are blocked. */
  renderBlocked() {
    const ids = this.#blocks.ids;
    byId("blocked").hidden = ids.length === 0;
    byId("blocked").replaceChildren(...ids.map((id) => this.#blockedRow(id)));
    byId("no-blocked").hidden = ids.length > 0;
  }

  async #open() {
    for (const field of this.#dialog.querySelectorAll("input")) field.value = "";
    for (const result of this.#dialog.querySelectorAll(".result")) show(result.id, "");
    this.#renderNotifications();
    this.renderBlocked();
    this.#dialog.showModal();
    this.#attempt("email-result", async () => {
      const { email, username } = (await this.#request("GET", "/users/", {})).body;
      byId("new-email").value = email;
      // For password managers.
      for (const id of ["email-username", "password-username"]) byId(id).value = username;
    });
    this.#attempt("blocked-result", () => this.#blocks.load());
    await this.#sessions.load();
  }

  #blockedRow(id) {
    const row = createElement("li");
    const button = createButton("secondary", "Unblock");
    button.setAttribute("aria-label", `Unblock ${this.#users.name(id)}`);
    const unblock = () => this.#attempt("blocked-result", () => this.#blocks.unblock(id));
    button.addEventListener("click", unblock);
    row.append(createElement("bdi", "entry", this.#users.name(id)), button);
    return row;
  }

  async #setNotifications() {
    await this.#notifications.setEnabled(byId("notify").checked);
    this.#renderNotifications();
  }

  #renderNotifications() {
    byId("notify").checked = this.#notifications.isEnabled;
    byId("notify").disabled = Boolean(this.#notifications.obstacle);
    show("notify-note", this.#notifications.obstacle);
  }

  async #changeEmail(event) {
    event.preventDefault();
    const [email, password] = ["new-email", "email-password"].map((id) => byId(id).value);
    await this.#change("email-result", checkEmail(email), { current_password: password, email }, {
      success: "Your email address was changed.",
      clear: ["email-password"],
    });
  }

  async #changePassword(event) {
    event.preventDefault();
    const ids = ["current-password", "new-password", "new-repeat"];
    const [current_password, password, repeated] = ids.map((id) => byId(id).value);
    const body = { current_password, password };
    await this.#change("password-result", checkPassword(password, repeated), body, {
      success: "Your password was changed, and all other sessions were logged out.",
      clear: ids,
      describe: (error) =>
        error instanceof NetworkError ? UNKNOWN_OUTCOME : describeError(error),
    });
    await this.#sessions.load();
  }

  async #change(resultId, problem, body, { success, clear, describe }) {
    if (problem) return show(resultId, problem, true);
    const changed = await this.#attempt(
      resultId,
      () => this.#request("PATCH", "/users/", { body }),
      describe,
    );
    if (!changed) return;
    show(resultId, success);
    for (const id of clear) byId(id).value = "";
  }

  /** Whether `action` succeeds; otherwise its error is shown. */
  async #attempt(resultId, action, describe = describeError) {
    show(resultId, "");
    try {
      await action();
      return true;
    } catch (error) {
      if (!this.#signal.aborted) show(resultId, describe(error), true);
      return false;
    }
  }

  #request(method, path, options) {
    return this.#api.request(method, path, { ...options, signal: this.#signal });
  }
}

function show(id, text, isError = false) {
  byId(id).textContent = text;
  byId(id).classList.toggle("error", isError);
}
