// What a user can do with a message of their own, by a menu beside it.

import { byId } from "./dom.js";
import { openMenu } from "./menu.js";

export class MessageActions {
  #list = byId("messages");
  #callbacks;

  /** `onEdit(key)` and `onDelete(key)` are called with the key of the message. */
  constructor({ signal, onEdit, onDelete }) {
    this.#callbacks = { onEdit, onDelete };
    this.#list.addEventListener("click", (event) => this.#open(event), { signal });
    this.#list.addEventListener("keydown", (event) => this.#handleKey(event), { signal });
    this.#list.addEventListener("focusin", ({ target }) => this.#setReachable(target), { signal });
  }

  /** One of the buttons, at first the newest, is reached with Tab; the others with arrow keys. */
  update() {
    const buttons = this.#buttons;
    if (!buttons.some((button) => button.tabIndex === 0 && button !== buttons.at(-1))) {
      this.#setReachable(buttons.at(-1));
    }
  }

  get #buttons() {
    return [...this.#list.querySelectorAll(".actions")];
  }

  #setReachable(target) {
    if (!target?.classList.contains("actions")) return;
    for (const button of this.#buttons) button.tabIndex = button === target ? 0 : -1;
  }

  #open(event) {
    const button = event.target.closest(".actions");
    if (!button) return;
    const { key } = button.dataset;
    openMenu(button, [
      ["Edit", () => this.#callbacks.onEdit(key)],
      ["Delete …", () => this.#callbacks.onDelete(key), "danger"],
    ]);
  }

  #handleKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.classList.contains("actions")) return;
    event.preventDefault();
    const buttons = this.#buttons;
    buttons[buttons.indexOf(event.target) + step]?.focus();
  }
}
