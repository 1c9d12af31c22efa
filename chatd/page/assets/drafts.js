// Unsent text of the message field, one draft per conversation, stored until it is sent or the user
// logs out.

import { load, remove, save } from "./storage.js";

export class Drafts {
  #name;

  constructor(userId) {
    this.#name = `drafts.${userId}`;
  }

  get(peer) {
    return load(this.#name, {})[peer] ?? "";
  }

  set(peer, text) {
    // Read each time: another window may have stored drafts to other people.
    const drafts = load(this.#name, {});
    if (text) drafts[peer] = text;
    else delete drafts[peer];
    save(this.#name, drafts);
  }

  clear() {
    remove(this.#name);
  }
}
