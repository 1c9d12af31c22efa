// The people an account has conversations with: names, last messages and unread counts.

import { messageText } from "./format.js";
import { messageKey } from "./message_history.js";
import { load, remove, rename, save } from "./storage.js";

const MAX_STORED = 500;
const MAX_PREVIEW = 120;

export class Contacts {
  #api;
  #me;
  #signal;
  #names = new Map();
  #contacts = new Map();
  #positions = 0;
  #stored;
  #readStored;

  constructor({ api, me, signal }) {
    this.#api = api;
    this.#me = me;
    this.#signal = signal;
    this.#stored = `contacts.${me.id}`;
    this.#readStored = `read.${me.id}`;
    this.#names.set(me.id, me.username);
    rename(`people.${me.id}`, this.#stored); // up to version 1
    // The inbox does not contain users who have never replied.
    for (const contact of load(this.#stored, [])) {
      this.#contacts.set(contact.id, { ...contact, unread: new Set() });
      this.#positions = Math.max(this.#positions, contact.order ?? 0);
    }
  }

  /** The one with the latest message first. */
  list() {
    return [...this.#contacts.values()].sort(
      (one, other) => (other.at ?? "").localeCompare(one.at ?? "") || other.order - one.order,
    );
  }

  get unread() {
    return this.list().reduce((sum, contact) => sum + contact.unread.size, 0);
  }

  /** Record messages, sent or received, oldest first. */
  record(messages) {
    for (const message of messages) this.#record(message);
    this.#save();
  }

  /** The id of the other user of a message. */
  peerOf(message) {
    return message.sent_by === this.#me.id ? message.received_by : message.sent_by;
  }

  markRead(id) {
    const contact = this.#get(id);
    if (contact.unread.size === 0) return;
    save(this.#readStored, { ...this.#readUpTo, [id]: Math.max(...contact.unread) });
    contact.unread.clear();
  }

  /** Drop messages and read positions: the service's data was replaced. */
  reset() {
    remove(this.#readStored);
    for (const contact of this.#contacts.values()) {
      Object.assign(contact, { at: null, last: "", lastKey: null });
      contact.unread.clear();
    }
  }

  /** Remove what is stored, except for read positions: these keep the next log-in's counts right. */
  clear() {
    remove(this.#stored);
    this.#contacts.clear();
  }

  /** The name of a user as far as it is known. */
  name(id) {
    return this.#names.get(id) ?? this.#contacts.get(id)?.name ?? `user ${id}`;
  }

  /** The name of a user, requested once. */
  async loadName(id) {
    if (this.#names.has(id)) return this.#names.get(id);
    let name;
    try {
      const request = { query: { user_id: id }, signal: this.#signal };
      name = (await this.#api.request("GET", "/users/", request)).body.username;
    } catch (error) {
      // Not remembered after other errors: the next request may succeed.
      if (error.code !== "user_not_found") return this.name(id);
      name = `deleted user ${id}`;
    }
    this.setName(id, name);
    return name;
  }

  setName(id, name) {
    this.#names.set(id, name);
    if (id !== this.#me.id || this.#contacts.has(id)) this.#get(id).name = name;
    this.#save();
  }

  get #readUpTo() {
    return load(this.#readStored, {});
  }

  #get(id) {
    if (!this.#contacts.has(id)) {
      const contact = { id, name: null, last: "", at: null, order: 0, unread: new Set() };
      this.#contacts.set(id, contact);
    }
    return this.#contacts.get(id);
  }

  #record(message) {
    const own = message.sent_by === this.#me.id;
    const contact = this.#get(this.peerOf(message));
    if (!own && message.seq > (this.#readUpTo[contact.id] ?? 0)) contact.unread.add(message.seq);
    // Times are in seconds: of several messages in one, the last recorded counts as the latest.
    const key = messageKey(message);
    if (contact.lastKey === key || (contact.at !== null && message.sent_at < contact.at)) return;
    contact.lastKey = key;
    contact.at = message.sent_at;
    contact.last = (own ? "You: " : "") + messageText(message);
    contact.order = this.#positions += 1;
  }

  #save() {
    const contacts = this.list().slice(0, MAX_STORED);
    save(
      this.#stored,
      contacts.map(({ id, name, last, at, order }) => ({
        id, name, last: last.slice(0, MAX_PREVIEW), at, order,
      })),
    );
  }
}
