// The bar above a conversation: with whom it is, and what can be done about them.

import { confirmAction } from "./confirmation.js";
import { byId, setAvatar, setName } from "./dom.js";
import { openMenu } from "./menu.js";

export class PeerBar {
  #blocks;
  #onError;
  #canBlock;
  #peer = null;
  #name = "";

  /** `canBlock(peer)` tells whether that is possible; `onError(error)` is called if it fails. */
  constructor({ blocks, signal, canBlock, onError }) {
    this.#blocks = blocks;
    this.#canBlock = canBlock;
    this.#onError = onError;
    byId("peer-menu").addEventListener("click", () => this.#openMenu(), { signal });
    byId("unblock").addEventListener("click", () => this.#unblock(), { signal });
  }

  show(peer, name) {
    this.#peer = peer;
    this.#name = name;
    setName(byId("peer-name"), name);
    setAvatar(byId("peer-avatar"), peer, name);
    byId("conversation").setAttribute("aria-label", `Conversation with ${name}`);
    this.update();
  }

  /** Other people are blocked, or can be. */
  update() {
    byId("peer-menu").hidden = !this.#canBlock(this.#peer);
    byId("blocked-notice").hidden = !this.#blocks.has(this.#peer);
  }

  #openMenu() {
    const action = this.#blocks.has(this.#peer)
      ? ["Unblock", () => this.#unblock()]
      : ["Block …", () => this.#block(), "danger"];
    openMenu(byId("peer-menu"), [action]);
  }

  async #block() {
    const peer = this.#peer;
    const confirmed = await confirmAction({
      title: `Block ${this.#name}?`,
      text: "They cannot write to you until you unblock them. What they have written stays.",
      action: "Block",
    });
    if (confirmed) await this.#blocks.block(peer).catch(this.#onError);
  }

  async #unblock() {
    await this.#blocks.unblock(this.#peer).catch(this.#onError);
  }
}
