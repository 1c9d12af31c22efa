// The session of one account, from log-in to log-out: connects the parts of the page.

import { APIClient } from "./api.js";
import { showUnread } from "./badge.js";
import { Blocks } from "./blocks.js";
import { confirmAction } from "./confirmation.js";
import { Connection } from "./connection.js";
import { showConnectionState } from "./connection_status.js";
import { ConversationLoader } from "./conversation_loader.js";
import { ConversationView } from "./conversation_view.js";
import { Conversations } from "./conversations.js";
import { byId, setAvatar, setName } from "./dom.js";
import { Drafts } from "./drafts.js";
import { Inbox } from "./inbox.js";
import { Notifications } from "./notifications.js";
import { Outbox } from "./outbox.js";
import { Receipts } from "./receipts.js";
import { Settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { remove } from "./storage.js";
import { Users } from "./users.js";

const hasTouchScreen = () => matchMedia("(pointer: coarse)").matches;

export class Session {
  #ended = new AbortController();
  #onEnd;
  #me;
  #api;
  #connection;
  #users;
  #conversations;
  #loader;
  #drafts;
  #outbox;
  #blocks;
  #notifications;
  #receipts;
  #settings;
  #sidebar;
  #view;
  #inbox;
  // Messages that were sent elsewhere, or here: the response to the request will tell.
  #maybeSentHere = [];

  /** `onEnd(message)` is called after the log-out, with a message for the user. */
  constructor({ token, user_id, username }, { onEnd }) {
    this.#onEnd = onEnd;
    const me = (this.#me = { id: user_id, username });
    const signal = this.#ended.signal;
    const api = (this.#api = new APIClient(token));
    const connection = (this.#connection = new Connection({
      signal,
      onState: (state, previous) => this.#handleState(state, previous),
    }));
    const users = (this.#users = new Users({ api, me, signal }));
    const conversations = (this.#conversations = new Conversations({ me }));
    const drafts = (this.#drafts = new Drafts(me.id));
    const loader = new ConversationLoader({ api, connection, conversations, users });
    this.#loader = loader;
    this.#receipts = new Receipts({ api, connection, signal });
    const outbox = (this.#outbox = new Outbox({
      api,
      connection,
      userId: me.id,
      onSent: (message) => this.#handleSent([message]),
      onFailed: () => this.#handleSent([]),
    }));
    const blocks = (this.#blocks = new Blocks({
      api,
      users,
      signal,
      onChange: () => this.#handleBlocks(),
    }));
    const onOpen = (id) => this.#navigate(id);
    const notifications = (this.#notifications = new Notifications({
      me,
      users,
      signal,
      onOpen,
    }));
    this.#settings = new Settings({ api, blocks, users, notifications, signal });
    this.#sidebar = new Sidebar({ me, users, conversations, loader, drafts, signal, onOpen });
    this.#view = new ConversationView({
      api,
      connection,
      me,
      users,
      conversations,
      drafts,
      outbox,
      blocks,
      signal,
      onLoad: (meta, message) => this.#handleLoad(meta, message),
      onEnd: () => this.#update(),
      onRevised: (message) => {
        this.#revise(message);
        this.#update();
      },
    });
    this.#inbox = new Inbox({
      api,
      connection,
      load: () => this.#load(),
      onReceived: (messages, changes) => this.#handleReceived(messages, changes),
      onReset: () => this.#handleReset(),
    });
    this.#listen(signal);
  }

  /** Show the account's conversations until it logs out. */
  async start() {
    // Of earlier versions of the page.
    remove(...["contacts", "people", "read"].map((name) => `${name}.${this.#me.id}`));
    for (const place of ["my", "settings"]) {
      setAvatar(byId(`${place}-avatar`), this.#me.id, this.#me.username);
      setName(byId(`${place}-name`), this.#me.username);
    }
    byId("chat").hidden = false;
    showConnectionState(this.#connection.state);
    this.#outbox.run();
    this.#openFromHash();
    if (this.#view.peer === null && !hasTouchScreen()) this.#sidebar.focus();
    try {
      await this.#inbox.run();
    } catch (error) {
      if (this.#ended.signal.aborted) return;
      if (error.status !== 401) throw error;
      this.#end("You were logged out.");
    }
  }

  #listen(signal) {
    const listen = (target, type, listener) => target.addEventListener(type, listener, { signal });
    listen(byId("back"), "click", () => this.#navigate(null));
    listen(document, "keydown", ({ key, target }) => {
      const isConversation = target === document.body || byId("conversation").contains(target);
      if (key === "Escape" && isConversation) this.#navigate(null);
    });
    listen(byId("logout"), "click", () => this.#logOut());
    listen(document, "visibilitychange", () => this.#update());
    listen(window, "hashchange", () => this.#openFromHash());
  }

  async #load() {
    await this.#loader.load();
    this.#blocks.load().catch(() => {}); // loaded again with the settings
    this.#update();
  }

  #handleReceived(messages, changes) {
    const of = (kind) => changes.filter(({ type }) => type === kind);
    const sent = of("sent").map(({ message }) => message);
    const isMaybeHere = (message) => this.#outbox.mayBeSending(message);
    this.#maybeSentHere.push(...sent.filter(isMaybeHere));
    this.#add([...messages, ...sent.filter((message) => !isMaybeHere(message))]);
    for (const { message } of of("changed")) this.#revise(message);
    for (const { user_id, seq } of of("read")) {
      if (!this.#conversations.setRead(user_id, seq)) this.#reload();
      this.#notifications.close(user_id);
    }
    for (const { user_id, ...positions } of of("peer")) {
      this.#conversations.setPeer(user_id, positions);
    }
    this.#update();
    this.#announce(messages);
  }

  /** Messages were sent, or refused. */
  #handleSent(messages) {
    this.#add([...messages, ...this.#maybeSentHere.splice(0)]);
    this.#update();
  }

  #handleLoad({ peer_delivered: delivered, peer_read: read }, message) {
    if (message) this.#conversations.record(message);
    if (read !== undefined) this.#conversations.setPeer(this.#view.peer, { delivered, read });
    this.#update();
  }

  #handleReset() {
    this.#conversations.reset();
    this.#view.reset();
  }

  #handleState(state, previous) {
    showConnectionState(state);
    // For the order of what was sent meanwhile, from here and there within a second.
    if (state === "online" && previous === "offline") this.#view.refresh();
  }

  #handleBlocks() {
    this.#settings.renderBlocked();
    this.#view.updatePeer();
  }

  #add(messages) {
    const { peer } = this.#view;
    const shown = messages.filter((message) => this.#conversations.peerOf(message) === peer);
    if (shown.length) this.#view.add(shown);
    for (const message of messages) this.#conversations.record(message);
  }

  #revise(message) {
    this.#conversations.revise(message);
    this.#view.revise(message);
  }

  async #reload() {
    await this.#loader.reload();
    this.#update();
  }

  /** Messages that have arrived and are not read may need attention, and a receipt. */
  #announce(messages) {
    const unread = messages.filter(({ sent_by, seq }) => seq > this.#readPosition(sent_by));
    if (unread.length === 0) return;
    if (this.#conversations.hasPositions && !document.hidden) {
      const cursor = () => (this.#conversations.unread ? this.#inbox.cursor : null);
      this.#receipts.confirmDelivery(cursor);
    }
    this.#notifications.announce(unread);
  }

  #readPosition(peer) {
    return peer === this.#me.id ? Infinity : (this.#conversations.get(peer)?.read ?? 0);
  }

  /** Show what has changed. Messages that are seen now count as read. */
  #update() {
    const { peer, seen } = this.#view;
    if (seen > this.#readPosition(peer)) {
      this.#conversations.setAllRead(peer, seen);
      this.#notifications.close(peer);
      if (this.#conversations.hasPositions) this.#receipts.markRead(peer, seen);
    }
    this.#sidebar.render();
    this.#view.render();
    showUnread(this.#conversations.unread);
  }

  /** Open a conversation, or none, by an address that the browser's back button knows. */
  #navigate(id) {
    const hash = id === null ? "" : `#${id}`;
    if (location.hash === hash) this.#openFromHash();
    else location.hash = hash;
  }

  /** Show the conversation that the address names, if it names one. */
  #openFromHash() {
    const id = Number(location.hash.slice(1));
    const openId = Number.isSafeInteger(id) && id > 0 ? id : null;
    const previous = this.#view.peer;
    this.#view.open(openId);
    this.#sidebar.setOpen(openId);
    if (openId === null && previous !== null) this.#sidebar.focus(previous);
    this.#update();
  }

  /** Revoke the token and remove what the browser has stored of the account. */
  async #logOut() {
    if (!(await this.#confirmLogOut())) return;
    byId("logout").disabled = true;
    let message = "";
    try {
      await this.#api.request("DELETE", "/tokens/");
    } catch (error) {
      if (error.status !== 401) {
        message = "Logged out here, but the server was not reached: the session still exists there.";
      }
    }
    byId("logout").disabled = false;
    this.#outbox.clear();
    this.#drafts.clear();
    this.#end(message);
  }

  async #confirmLogOut() {
    const unsent = this.#outbox.size;
    if (unsent === 0) return true;
    const messages = unsent === 1 ? "1 unsent message is" : `${unsent} unsent messages are`;
    const text = `${messages} discarded.`;
    return confirmAction({ title: "Log out?", text, action: "Log out" });
  }

  #end(message) {
    this.#ended.abort();
    this.#view.open(null);
    showUnread(0);
    remove("session");
    this.#onEnd(message);
  }
}
