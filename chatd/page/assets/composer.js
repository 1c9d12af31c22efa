// The field in which messages are written and edited, and the drafts of each conversation.

import { byId } from "./dom.js";

const MAX_ROWS = 6;

export class Composer {
  #text = byId("text");
  #drafts;
  #callbacks;
  #peer = null;
  #edited = null;

  /**
   * `onSend(peer, text)` is called with a message, `onEdit(message, text)` with the new text of one
   * that was edited, maybe empty, and `onEditLast()` when the last one should be edited.
   */
  constructor({ drafts, signal, onSend, onEdit, onEditLast }) {
    this.#drafts = drafts;
    this.#callbacks = { onSend, onEdit, onEditLast };
    byId("compose").addEventListener("submit", (event) => this.#submit(event), { signal });
    byId("cancel-edit").addEventListener("click", () => this.cancelEdit(), { signal });
    this.#text.addEventListener("keydown", (event) => this.#handleKey(event), { signal });
    this.#text.addEventListener("input", () => this.#handleInput(), { signal });
  }

  /** Show the draft to `peer`; null closes the field. */
  open(peer) {
    if (peer === this.#peer) return;
    this.#peer = peer;
    this.#setEdited(null);
    this.#setText(this.#draft);
  }

  focus() {
    this.#text.focus();
  }

  /** Refuse messages to an account that was deleted. */
  setDisabled(disabled) {
    this.#text.disabled = disabled;
    byId("send").disabled = disabled;
    this.#text.placeholder = disabled ? "This account was deleted." : "Message";
  }

  /** Put a text before what is written. */
  prepend(text) {
    this.cancelEdit();
    this.#setText([text, this.#text.value].filter(Boolean).join("\n"));
    this.#handleInput();
  }

  /** Put the text of a message into the field until it is saved or left as it was. */
  edit(message) {
    this.#setEdited(message);
    this.#setText(message.message);
    this.focus();
  }

  cancelEdit() {
    if (this.#edited === null) return;
    this.#setEdited(null);
    this.#setText(this.#draft);
    this.focus();
  }

  get #draft() {
    return this.#peer === null ? "" : this.#drafts.get(this.#peer);
  }

  #setEdited(message) {
    this.#edited = message;
    byId("editing-notice").hidden = message === null;
    byId("send").setAttribute("aria-label", message === null ? "Send" : "Save");
    byId("send").title = message === null ? "Send" : "Save";
  }

  #setText(text) {
    this.#text.value = text;
    this.#resize();
  }

  #resize() {
    this.#text.rows = Math.min(MAX_ROWS, this.#text.value.split("\n").length);
  }

  #handleInput() {
    this.#resize();
    if (this.#peer !== null && this.#edited === null) this.#drafts.set(this.#peer, this.#text.value);
  }

  #handleKey(event) {
    if (event.isComposing) return;
    if (event.key === "Escape" && this.#edited !== null) {
      event.stopPropagation();
      this.cancelEdit();
    } else if (event.key === "ArrowUp" && this.#text.value === "" && this.#edited === null) {
      event.preventDefault();
      this.#callbacks.onEditLast();
    } else if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      byId("compose").requestSubmit();
    }
  }

  #submit(event) {
    event.preventDefault();
    const text = this.#text.value;
    if (this.#peer === null) return;
    if (this.#edited !== null) this.#save(text);
    else if (text.trim()) {
      this.#setText("");
      this.#drafts.set(this.#peer, "");
      this.#callbacks.onSend(this.#peer, text);
    }
    this.focus();
  }

  #save(text) {
    const message = this.#edited;
    this.cancelEdit();
    if (text !== message.message) this.#callbacks.onEdit(message, text.trim() ? text : "");
  }
}
