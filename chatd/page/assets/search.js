// The field that searches the conversations, and finds people to write to.

import { byId } from "./dom.js";
import { describeError } from "./errors.js";

const PAUSE_MS = 250;

export class Search {
  #users;
  #field = byId("search");
  #error = byId("search-error");
  #callbacks;
  #people = [];
  #timer;

  /**
   * `onChange()` is called when there is another text or other people, `onFound(id)` when a user
   * was chosen, and `firstMatch()` returns the first conversation that matches, or null.
   */
  constructor({ users, signal, onChange, onFound, firstMatch }) {
    this.#users = users;
    this.#callbacks = { onChange, onFound, firstMatch };
    const listen = (id, type, listener) => byId(id).addEventListener(type, listener, { signal });
    listen("search", "input", () => this.#handleInput());
    listen("search", "keydown", (event) => this.#handleKey(event));
    listen("search-form", "submit", (event) => this.#submit(event));
    listen("find-person", "click", (event) => this.#submit(event));
    signal.addEventListener("abort", () => this.clear());
  }

  get text() {
    return this.#field.value.trim();
  }

  /** Ids of users that the directory has for the text. */
  get people() {
    return this.#people;
  }

  /** Whether a name contains the text. */
  matches(name) {
    return name.toLowerCase().includes(this.text.toLowerCase());
  }

  focus() {
    this.#field.focus();
  }

  clear() {
    clearTimeout(this.#timer);
    this.#field.value = "";
    this.#error.textContent = "";
    this.#people = [];
  }

  #handleInput() {
    clearTimeout(this.#timer);
    this.#error.textContent = "";
    this.#people = [];
    this.#callbacks.onChange();
    if (this.text) this.#timer = setTimeout(() => this.#findPeople(this.text), PAUSE_MS);
  }

  async #findPeople(text) {
    const people = await this.#users.search(text);
    if (text !== this.text || people.length === 0) return;
    this.#people = people;
    this.#callbacks.onChange();
  }

  #handleKey(event) {
    if (event.key !== "Escape" || !this.#field.value) return;
    event.preventDefault();
    this.clear();
    this.#callbacks.onChange();
  }

  /** Open the conversation with the user of exactly this name, else the first that matches. */
  async #submit(event) {
    event.preventDefault();
    const username = this.text;
    this.#error.textContent = "";
    if (!username) return;
    try {
      const id = await this.#users.find(username);
      if (username !== this.text) return;
      const found = id ?? (event.type === "submit" ? this.#callbacks.firstMatch() : null);
      if (found === null) this.#error.textContent = `There is no user named “${username}”.`;
      else {
        this.clear();
        this.#callbacks.onFound(found);
      }
    } catch (error) {
      if (error.name !== "AbortError") this.#error.textContent = describeError(error);
    }
  }
}
