// The open conversation: loads its messages and keeps the list on the screen up to date.

import { isTemporary } from "./api.js";
import { byId } from "./dom.js";
import { MessageHistory } from "./message_history.js";
import { MessageList } from "./message_list.js";
import { messageKey } from "./messages.js";

const PAGE_SIZE = 50;
const MAX_PAGE_SIZE = 100;
const REORDER_MS = 1500;

export class Conversation {
  #api;
  #connection;
  #me;
  #conversations;
  #outbox;
  #revisions;
  #callbacks;
  #list;
  #peer = null;
  #peerName = "";
  #history = new MessageHistory();
  #isLoaded = false;
  #newAfter = null;
  #refreshes = 0;
  #reorder;
  #loadingOlder = false;

  /**
   * `onLoad(meta, message)` is called with the newest message of each page that was loaded, if it
   * has one, and the positions of the peer; `onEnd()` when the user has scrolled to the end;
   * `onRewrite(text)` when a message that was refused should be written anew.
   */
  constructor({ api, connection, me, conversations, outbox, revisions, signal, ...callbacks }) {
    this.#api = api;
    this.#connection = connection;
    this.#me = me;
    this.#conversations = conversations;
    this.#outbox = outbox;
    this.#revisions = revisions;
    this.#callbacks = callbacks;
    this.#list = new MessageList({ signal, onEnd: callbacks.onEnd });
    byId("messages").addEventListener("click", (event) => this.#handleAction(event), { signal });
    byId("load-older").addEventListener("click", () => this.loadOlder(), { signal });
  }

  /** The user id of the other user; null while no conversation is open. */
  get peer() {
    return this.#peer;
  }

  /** The place in the account's inbox up to which the user sees the peer's messages; 0 for none. */
  get seen() {
    return this.#isLoaded && this.#isWatched ? this.#newestReceived : 0;
  }

  /** A message that is shown, by its key. */
  message(key) {
    return this.#history.messages.find((message) => messageKey(message) === key);
  }

  /** The account's newest message that can be changed. */
  get lastOwn() {
    return this.#history.messages.findLast((message) => this.#canChange(message));
  }

  /** Show the conversation with `peer`, and load its newest messages. */
  async open(peer) {
    if (this.#peer !== peer) this.#clear(peer);
    this.render();
    await this.#conversations.loaded;
    if (this.#peer !== peer) return;
    const { unread = 0, read = 0 } = this.#conversations.get(peer) ?? {};
    this.#newAfter = unread ? read : null;
    await this.refresh({ scroll: true, limit: unread < PAGE_SIZE ? PAGE_SIZE : MAX_PAGE_SIZE });
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
    const wasAtEnd = this.#list.isAtEnd;
    const previous = this.#newAfter;
    const added = messages.filter((message) => this.#addOne(message));
    this.render({ added: added.map(messageKey), follow: !document.hidden });
    // While nobody looks, the first new message stays in view.
    if (wasAtEnd && this.#newAfter !== previous) this.#list.scrollToNew();
    if (added.at(-1)?.sent_by === this.#me.id) this.#list.scrollToEnd();
    if (!added.some((message) => this.#history.isAmbiguous(message))) return;
    // Both have written within a second: a page has the order that everybody sees.
    clearTimeout(this.#reorder);
    this.#reorder = setTimeout(() => this.refresh(), REORDER_MS);
  }

  #addOne(message) {
    const known = this.#newestReceived;
    if (!this.#history.add(message)) return false;
    const { read = 0 } = this.#conversations.get(this.#peer) ?? {};
    const isFirstNew = message.sent_by !== this.#me.id && !this.#isWatched && known <= read;
    if (isFirstNew) this.#newAfter = message.seq - 1;
    return true;
  }

  /** A message was edited or deleted. */
  revise(message) {
    if (this.#history.revise(message)) this.render();
  }

  /** Load the newest messages, in the order that the service gives them. */
  async refresh({ scroll = false, limit = PAGE_SIZE } = {}) {
    const refresh = ++this.#refreshes;
    const page = await this.#fetch({ limit }, () => refresh === this.#refreshes);
    // The response to an earlier request may be older than what is on the screen.
    if (!page || refresh !== this.#refreshes) return;
    this.#history.mergeNewest(page.messages, page.meta.older);
    this.#isLoaded = true;
    this.render();
    if (scroll) this.#list.scrollToNew();
    this.#callbacks.onLoad(page.meta, page.messages.at(-1));
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
      history.mergeOlder(page.messages, page.meta.older);
      this.render();
    } finally {
      this.#loadingOlder = false;
    }
  }

  /** The user has read what was marked as new. */
  clearNew() {
    this.#newAfter = null;
  }

  render({ added = [], follow = true } = {}) {
    const { unread = 0 } = this.#conversations.get(this.#peer) ?? {};
    this.#list.render({
      messages: this.#history.messages.map((message) => this.#describe(message)),
      unsent: this.#peer === null ? [] : this.#outbox.entriesFor(this.#peer),
      peerName: this.#peerName,
      isLoaded: this.#isLoaded,
      hasOlder: this.#history.older !== null,
      unread,
      added,
      follow,
    });
  }

  scrollToEnd() {
    this.#list.scrollToEnd();
  }

  get #isWatched() {
    return !document.hidden && this.#list.isAtEnd;
  }

  get #newestReceived() {
    const isReceived = (message) => message.sent_by === this.#peer;
    return this.#history.messages.findLast(isReceived)?.seq ?? 0;
  }

  /** What the list shows of a message. */
  #describe(message) {
    const own = message.sent_by === this.#me.id;
    const pending = own ? this.#revisions.pending(message) : undefined;
    return {
      message,
      own,
      pending,
      author: own ? "You" : this.#peerName,
      mark: own && !message.deleted_at ? this.#conversations.mark(message) : null,
      canChange: this.#canChange(message),
      isNew: !own && this.#newAfter !== null && message.seq > this.#newAfter,
    };
  }

  /** A server that has no positions cannot change messages, either. */
  #canChange(message) {
    const isOwn = message.sent_by === this.#me.id;
    return isOwn && !message.deleted_at && this.#conversations.hasPositions;
  }

  /** A page, oldest message first; null once it is not wanted any more. */
  async #fetch(parameters, isWanted) {
    const query = { with: this.#peer, limit: PAGE_SIZE, ...parameters };
    const call = (signal) =>
      isWanted() ? this.#api.request("GET", "/chats/", { query, signal }) : null;
    const retryable = (error) => isTemporary(error) || error.status >= 500;
    try {
      const response = await this.#connection.untilSuccess(call, retryable);
      return response && { messages: response.body.messages.reverse(), meta: response.body.meta };
    } catch (error) {
      if (error.code === "user_not_found") return { messages: [], meta: { older: null } };
      // The session has ended, or does so at its next poll.
      if (error.status === 401 || error.name === "AbortError") return null;
      throw error;
    }
  }

  #clear(peer) {
    clearTimeout(this.#reorder);
    this.#refreshes += 1;
    this.#peer = peer;
    this.#peerName = "";
    this.#history = new MessageHistory();
    this.#isLoaded = false;
    this.#newAfter = null;
    this.#loadingOlder = false;
  }

  /** Retry, rewrite or discard a message that was refused. */
  #handleAction(event) {
    const { action, key } = event.target.dataset;
    if (action === "retry") this.#outbox.retry(key);
    else if (action === "rewrite") this.#callbacks.onRewrite(this.#outbox.discard(key));
    else if (action === "discard") this.#outbox.discard(key);
    else return;
    this.render();
    byId("text").focus();
  }
}
