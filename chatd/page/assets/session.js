// The session of one account, from log-in to log-out: connects the parts of the page.

import { APIClient } from "./api.js";
import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { ContactList } from "./contact_list.js";
import { Contacts } from "./contacts.js";
import { Conversation } from "./conversation.js";
import { byId, setAvatar, setName } from "./dom.js";
import { Drafts } from "./drafts.js";
import { Inbox } from "./inbox.js";
import { NewConversationForm } from "./new_conversation.js";
import { Outbox } from "./outbox.js";
import { remove } from "./storage.js";

const STATE_TEXTS = {
  connecting: "Connecting …",
  online: "Connected",
  offline: "Offline, trying again",
};

// On touch screens, focusing a field would cover the page with a keyboard.
const hasTouchScreen = () => matchMedia("(pointer: coarse)").matches;

export class Session {
  #ended = new AbortController();
  #onEnd;
  #me;
  #api;
  #connection;
  #contacts;
  #contactList;
  #newConversation;
  #drafts;
  #outbox;
  #conversation;
  #composer;
  #inbox;
  #namesRequested = new Set();

  /** `onEnd(message)` is called after the log-out, with a message for the user. */
  constructor({ token, user_id, username }, { onEnd }) {
    this.#onEnd = onEnd;
    const me = (this.#me = { id: user_id, username });
    const api = (this.#api = new APIClient(token));
    const signal = this.#ended.signal;
    const connection = (this.#connection = new Connection({
      signal,
      onState: (state, previous) => this.#handleState(state, previous),
    }));
    this.#contacts = new Contacts({ api, me, signal });
    this.#contactList = new ContactList({ signal, onOpen: (id) => this.#navigate(id) });
    this.#newConversation = new NewConversationForm({
      api,
      signal,
      onFound: (user) => {
        this.#contacts.setName(user.id, user.username);
        this.#navigate(user.id);
      },
    });
    this.#drafts = new Drafts(me.id);
    this.#composer = new Composer({
      drafts: this.#drafts,
      signal,
      onSend: (peer, text) => this.#send(peer, text),
    });
    const outbox = (this.#outbox = new Outbox({
      api,
      connection,
      userId: me.id,
      onSent: (message) => this.#handleMessages([message]),
      onFailed: () => this.#conversation.render(),
    }));
    this.#conversation = new Conversation({
      api,
      connection,
      me,
      outbox,
      signal,
      onLoad: (message) => this.#record([message]),
    });
    this.#inbox = new Inbox({
      api,
      connection,
      onCatchUp: (messages) => this.#record(messages),
      onMessages: (messages) => this.#handleMessages(messages),
      onReset: () => this.#handleReset(),
    });
    this.#listen(signal);
  }

  /** Show the account's conversations until it logs out. */
  async start() {
    setAvatar(byId("my-avatar"), this.#me.id, this.#me.username);
    setName(byId("my-name"), this.#me.username);
    byId("chat").hidden = false;
    this.#showState();
    this.#renderContacts();
    this.#outbox.run();
    if (!this.#openFromHash() && !hasTouchScreen()) this.#newConversation.focus();
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
    listen(byId("conversation"), "keydown", (event) => {
      if (event.key === "Escape") this.#navigate(null);
    });
    listen(byId("logout"), "click", () => this.#logOut());
    listen(document, "visibilitychange", () => this.#markRead());
    listen(window, "hashchange", () => this.#openFromHash());
  }

  #handleMessages(messages) {
    const { peer } = this.#conversation;
    const shown = messages.filter((message) => this.#contacts.peerOf(message) === peer);
    if (shown.length) this.#conversation.add(shown);
    this.#record(messages);
  }

  #record(messages) {
    this.#contacts.record(messages);
    this.#markRead();
  }

  /** Messages on the screen count as read. */
  #markRead() {
    const { peer } = this.#conversation;
    if (peer !== null && !document.hidden) this.#contacts.markRead(peer);
    this.#renderContacts();
  }

  #handleReset() {
    this.#contacts.reset();
    this.#conversation.reset();
    if (this.#conversation.peer !== null) this.#conversation.refresh();
  }

  #handleState(state, previous) {
    this.#showState();
    // The inbox does not have what was meanwhile sent from other devices.
    if (state !== "online" || previous !== "offline") return;
    if (this.#conversation.peer !== null) this.#conversation.refresh();
    this.#namesRequested.clear();
    this.#renderContacts();
  }

  #showState() {
    const { state } = this.#connection;
    for (const id of ["status", "conversation-status"]) {
      byId(id).dataset.state = state;
      byId(id).textContent = STATE_TEXTS[state];
    }
  }

  #renderContacts() {
    const contacts = this.#contacts.list();
    this.#contactList.render(contacts, this.#conversation.peer);
    const { unread } = this.#contacts;
    document.title = unread ? `(${unread}) chatd` : "chatd";
    for (const { id, name } of contacts) {
      if (name !== null || this.#namesRequested.has(id)) continue;
      this.#namesRequested.add(id);
      this.#contacts.loadName(id).then(() => this.#renderContacts());
    }
  }

  #send(peer, text) {
    this.#outbox.add(peer, text);
    this.#conversation.render();
    this.#conversation.scrollToEnd();
  }

  /** Open a conversation, or none, by an address that the browser's back button knows. */
  #navigate(id) {
    const hash = id === null ? "" : `#${id}`;
    if (location.hash === hash) this.#openFromHash();
    else location.hash = hash;
  }

  /** Show the conversation that the address names; false if it names none. */
  #openFromHash() {
    const id = Number(location.hash.slice(1));
    const isOpen = Number.isSafeInteger(id) && id > 0;
    byId("chat").classList.toggle("in-conversation", isOpen);
    byId("conversation-open").hidden = !isOpen;
    byId("conversation-empty").hidden = isOpen;
    if (isOpen) this.#open(id);
    else this.#close();
    return isOpen;
  }

  #open(id) {
    this.#conversation.open(id);
    this.#composer.open(id);
    this.#showPeer(id);
    if (hasTouchScreen()) byId("scroller").focus();
    else this.#composer.focus();
    this.#markRead();
  }

  #close() {
    const previous = this.#conversation.peer;
    this.#conversation.close();
    this.#composer.open(null);
    this.#renderContacts();
    if (previous !== null) this.#contactList.focus(previous);
  }

  async #showPeer(id) {
    const show = (name) => {
      setName(byId("peer-name"), name);
      setAvatar(byId("peer-avatar"), id, name);
      this.#conversation.setPeerName(name);
    };
    show(this.#contacts.name(id));
    const name = await this.#contacts.loadName(id);
    if (this.#conversation.peer === id) show(name);
  }

  /** Revoke the token and remove what the browser has stored of the account. */
  async #logOut() {
    const unsent = this.#outbox.size;
    const messages = unsent === 1 ? "1 unsent message" : `${unsent} unsent messages`;
    if (unsent && !confirm(`Log out and discard ${messages}?`)) return;
    byId("logout").disabled = true;
    let message = "";
    try {
      await this.#api.request("DELETE", "/tokens/");
    } catch (error) {
      if (error.status !== 401) {
        message = "Logged out here, but the server was not reached: the token is still valid.";
      }
    }
    byId("logout").disabled = false;
    this.#outbox.clear();
    this.#drafts.clear();
    this.#contacts.clear();
    this.#end(message);
  }

  #end(message) {
    this.#ended.abort();
    this.#conversation.close();
    this.#composer.open(null);
    byId("chat").classList.remove("in-conversation");
    remove("session");
    this.#onEnd(message);
  }
}
