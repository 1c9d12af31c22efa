// The side of the page that shows a conversation, and what the user does in it.

import { Composer } from "./composer.js";
import { confirmAction } from "./confirmation.js";
import { Conversation } from "./conversation.js";
import { byId } from "./dom.js";
import { describeError } from "./errors.js";
import { closeMenu } from "./menu.js";
import { MessageActions } from "./message_actions.js";
import { PeerBar } from "./peer_bar.js";
import { Revisions } from "./revisions.js";

const MAX_QUOTE = 200;

// On touch screens, focusing a field would cover the page with a keyboard.
const hasTouchScreen = () => matchMedia("(pointer: coarse)").matches;

export class ConversationView {
  #users;
  #conversations;
  #outbox;
  #signal;
  #conversation;
  #revisions;
  #composer;
  #actions;
  #peerBar;

  /**
   * `onLoad(meta, message)` and `onEnd()` are those of `Conversation`, and `onRevised(message)` is
   * called with an own message after it was edited or deleted here.
   */
  constructor({ onLoad, onEnd, onRevised, ...parts }) {
    const { api, connection, me, users, conversations, drafts, outbox, blocks, signal } = parts;
    this.#users = users;
    this.#conversations = conversations;
    this.#outbox = outbox;
    this.#signal = signal;
    const revisions = (this.#revisions = new Revisions({
      api,
      connection,
      signal,
      onRevised,
      onFailed: (message, error) => this.#showError(error),
      onChange: () => this.render(),
    }));
    this.#conversation = new Conversation({
      api,
      connection,
      me,
      conversations,
      outbox,
      revisions,
      signal,
      onLoad,
      onEnd,
      onRewrite: (text) => this.#composer.prepend(text),
    });
    this.#composer = new Composer({
      drafts,
      signal,
      onSend: (peer, text) => this.#send(peer, text),
      onEdit: (message, text) => (text ? revisions.edit(message, text) : this.#delete(message)),
      onEditLast: () => this.#edit(this.#conversation.lastOwn),
    });
    this.#actions = new MessageActions({
      signal,
      onEdit: (key) => this.#edit(this.#conversation.message(key)),
      onDelete: (key) => this.#delete(this.#conversation.message(key)),
    });
    this.#peerBar = new PeerBar({
      blocks,
      signal,
      canBlock: (id) => conversations.hasPositions && id !== me.id && !users.isDeleted(id),
      onError: (error) => this.#showError(error),
    });
  }

  /** The user id of the other user; null while no conversation is open. */
  get peer() {
    return this.#conversation.peer;
  }

  /** The place in the account's inbox up to which the user sees the peer's messages; 0 for none. */
  get seen() {
    return this.#conversation.seen;
  }

  /** Show the conversation with a user; none if `id` is null. */
  open(id) {
    closeMenu();
    this.#clearError();
    byId("chat").classList.toggle("in-conversation", id !== null);
    byId("conversation-open").hidden = id === null;
    byId("conversation-empty").hidden = id !== null;
    this.#composer.open(id);
    if (id === null) {
      this.#conversation.close();
      return;
    }
    this.#conversation.open(id);
    this.#showPeer(id);
    this.#focus();
  }

  /** Add messages of this conversation, oldest first. */
  add(messages) {
    this.#conversation.add(messages);
  }

  revise(message) {
    this.#conversation.revise(message);
  }

  /** Load the newest messages again, if a conversation is open. */
  refresh() {
    if (this.peer !== null) this.#conversation.refresh();
  }

  reset() {
    this.#conversation.reset();
    this.refresh();
  }

  render() {
    this.#conversation.render();
    this.#actions.update();
  }

  /** Other people are blocked, or can be. */
  updatePeer() {
    this.#peerBar.update();
  }

  #focus() {
    if (hasTouchScreen()) byId("scroller").focus();
    else this.#composer.focus();
  }

  async #showPeer(id) {
    const show = () => {
      const name = this.#users.name(id);
      this.#peerBar.show(id, name);
      this.#conversation.setPeerName(name);
      this.#composer.setDisabled(this.#users.isDeleted(id));
    };
    show();
    // Most names come with the list.
    await this.#conversations.loaded;
    await this.#users.load(id);
    if (this.peer === id) show();
  }

  #send(peer, text) {
    this.#clearError();
    this.#conversation.clearNew();
    this.#outbox.add(peer, text);
    this.render();
    this.#conversation.scrollToEnd();
  }

  #edit(message) {
    if (!message) return;
    this.#clearError();
    this.#composer.edit(message);
  }

  async #delete(message) {
    this.#clearError();
    const name = this.#users.name(message.received_by);
    const confirmed = await confirmAction({
      title: "Delete this message?",
      text: `“${message.message.slice(0, MAX_QUOTE)}”\n${name} will not see it any more, either.`,
      action: "Delete",
    });
    if (!confirmed) return;
    this.#revisions.remove(message);
    this.#focus(); // what had it goes with the message
  }

  #clearError() {
    byId("conversation-error").textContent = "";
  }

  #showError(error) {
    if (!this.#signal.aborted) byId("conversation-error").textContent = describeError(error);
  }
}
