// The field in which a message is written, and the drafts of each conversation.

import { byId } from "./dom.js";

const MAX_ROWS = 6;

export class Composer {
  #text = byId("text");
  #drafts;
  #onSend;
  #peer = null;

  constructor({ drafts, signal, onSend }) {
    this.#drafts = drafts;
    this.#onSend = onSend;
    byId("compose").addEventListener("submit", (event) => this.#submit(event), { signal });
    this.#text.addEventListener("keydown", (event) => this.#handleKey(event), { signal });
    this.#text.addEventListener("input", () => this.#handleInput(), { signal });
  }

  /** Show the draft to `peer`; null closes the field. */
  open(peer) {
    if (peer === this.#peer) return;
    this.#peer = peer;
    this.#setText(peer === null ? "" : this.#drafts.get(peer));
  }

  focus() {
    this.#text.focus();
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
    if (this.#peer !== null) this.#drafts.set(this.#peer, this.#text.value);
  }

  #handleKey(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("compose").requestSubmit();
  }

  #submit(event) {
    event.preventDefault();
    const text = this.#text.value;
    if (!text.trim() || this.#peer === null) return;
    this.#setText("");
    this.#drafts.set(this.#peer, "");
    this.#onSend(this.#peer, text);
    this.focus();
  }
}
