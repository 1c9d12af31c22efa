// The form that starts a conversation with a username.

import { describeError } from "./api.js";
import { byId } from "./dom.js";

export class NewConversationForm {
  #api;
  #onFound;
  #name = byId("new-name");
  #error = byId("new-error");

  /** `onFound(user)` is called with the user of that name. */
  constructor({ api, signal, onFound }) {
    this.#api = api;
    this.#onFound = onFound;
    byId("new-form").addEventListener("submit", (event) => this.#submit(event), { signal });
  }

  focus() {
    this.#name.focus();
  }

  async #submit(event) {
    event.preventDefault();
    const username = this.#name.value.trim();
    this.#error.textContent = "";
    if (!username) return;
    try {
      const { body } = await this.#api.request("GET", "/users/", { query: { username } });
      this.#name.value = "";
      this.#onFound(body);
    } catch (error) {
      const unknown = error.code === "user_not_found";
      this.#error.textContent = unknown ? `There is no user named “${username}”.` : describeError(error);
    }
  }
}
