// The open conversation: loads its messages and keeps the list on the screen up to date.

import { isTemporary } from "./api.js";
import { byId } from "./dom.js";
import { MessageHistory, messageKey } from "./message_history.js";
import { MessageList } from "./message_list.js";

const PAGE_SIZE = 50;

export class Conversation {
  #api;
  #connection;
  #me;
  #outbox;
  #onLoad;
  #list;
  #peer = null;
  #peerName = "";
  #history = new MessageHistory();
  #refreshes = 0;
  #loadingOlder = false;

  /** `onLoad(message)` is called with the newest message of each page that was loaded. */
  constructor({ api, connection, me, outbox, signal, onLoad }) {
    this.#api = api;
    this.#connection = connection;
    this.#me = me;
    this.#outbox = outbox;
    this.#onLoad = onLoad;
    this.#list = new MessageList({ signal });
    byId("messages").addEventListener("click", (event) => this.#handleAction(event), { signal });
    byId("load-older").addEventListener("click", () => this.loadOlder(), { signal });
  }

  /** The user id of the other user; null while no conversation is open. */
  get peer() {
    return this.#peer;
  }

  /** Show the conversation with `peer`, and load its newest messages. */
  async open(peer) {
    if (this.#peer !== peer) this.#clear(peer);
    this.render();
    await this.refresh({ scrollToEnd: true });
  }

  close() {
    this.#clear(null);
    this.render();
  }

  /** Drop the messages: the service's data was replaced. */
  reset() {
    const name = this.#peerName;
    this.#clear(this.#peer);
    this.#peerName = name;
  }

  setPeerName(name) {
    this.#peerName = name;
    this.render();
  }

  /** Add messages that were received or sent, oldest first. */
  add(messages) {
    const added = messages.filter((message) => this.#history.add(message));
    this.render({ added: added.map(messageKey) });
    if (added.length) this.#handleNewest(added.at(-1));
  }

  /** Load the newest messages, including those that were sent from other devices. */
  async refresh({ scrollToEnd = false } = {}) {
    const refresh = ++this.#refreshes;
    const page = await this.#fetch({}, () => refresh === this.#refreshes);
    // The response to an earlier request may be older than what is on the screen.
    if (!page || refresh !== this.#refreshes) return;
    const newest = page.messages.at(-1);
    const isNew = newest && !this.#history.has(newest);
    this.#history.mergeNewest(page.messages, page.older);
    this.render();
    if (scrollToEnd) this.#list.scrollToEnd();
    else if (isNew) this.#handleNewest(newest);
    if (newest) this.#onLoad(newest);
  }

  async loadOlder() {
    const history = this.#history;
    const before = history.older;
    if (before === null || this.#loadingOlder) return;
    this.#loadingOlder = true;
    const isCurrent = () => history === this.#history && before === history.older;
    try {
      const page = await this.#fetch({ before }, isCurrent);
      if (!page || !isCurrent()) return;
      history.mergeOlder(page.messages, page.older);
      this.render();
    } finally {
      this.#loadingOlder = false;
    }
  }

  render({ added = [] } = {}) {
    this.#list.render({
      messages: this.#history.messages,
      unsent: this.#peer === null ? [] : this.#outbox.entriesFor(this.#peer),
      me: this.#me,
      peerName: this.#peerName,
      hasOlder: this.#history.older !== null,
      added,
    });
  }

  scrollToEnd() {
    this.#list.scrollToEnd();
  }

  #handleNewest(message) {
    if (message.sent_by === this.#me.id) this.#list.scrollToEnd();
    else if (!this.#list.isAtEnd) this.#list.offerNewest();
  }

  /** A page, oldest message first; null once it is not wanted any more. */
  async #fetch(parameters, isWanted) {
    const query = { with: this.#peer, limit: PAGE_SIZE, ...parameters };
    const call = (signal) =>
      isWanted() ? this.#api.request("GET", "/chats/", { query, signal }) : null;
    const retryable = (error) => isTemporary(error) || error.status >= 500;
    try {
      const response = await this.#connection.untilSuccess(call, retryable);
      return (
        response && { messages: response.body.messages.reverse(), older: response.body.meta.older }
      );
    } catch (error) {
      if (error.code === "user_not_found") return { messages: [], older: null };
      // The session has ended, or does so at its next poll.
      if (error.status === 401 || error.name === "AbortError") return null;
      throw error;
    }
  }

  #clear(peer) {
    this.#refreshes += 1;
    this.#peer = peer;
    this.#peerName = "";
    this.#history = new MessageHistory();
    this.#loadingOlder = false;
    this.#list.hideNewest();
  }

  /** Retry or discard a message that was refused. */
  #handleAction(event) {
    const { action, key } = event.target.dataset;
    if (action === "retry") this.#outbox.retry(key);
    else if (action === "discard") this.#outbox.discard(key);
    else return;
    this.render();
    byId("text").focus();
  }
}
