// Messages waiting to be sent: each is repeated under one Idempotency-Key until the service
// accepts or refuses it, also after the page was closed and opened again.

import { APIError } from "./api.js";
import { describeError } from "./errors.js";
import { list, load, remove, save } from "./storage.js";

export class Outbox {
  #api;
  #connection;
  #prefix;
  #entries;
  #running = false;
  #sending = null;
  #callbacks;

  /** Results are passed to `onSent(message)` and `onFailed(entry)`. */
  constructor({ api, connection, userId, onSent, onFailed }) {
    this.#api = api;
    this.#connection = connection;
    this.#callbacks = { onSent, onFailed };
    this.#prefix = `outbox.${userId}.`;
    splitLegacyOutbox(userId, this.#prefix);
    // A stored value per entry, so that windows do not overwrite each other's entries.
    this.#entries = list(this.#prefix)
      .map((name) => load(name, null))
      .filter((entry) => entry !== null)
      .sort((one, other) => one.at.localeCompare(other.at));
  }

  get size() {
    return this.#entries.length;
  }

  /** Unsent messages to a user, in order. */
  entriesFor(userId) {
    return this.#entries.filter((entry) => entry.to === userId);
  }

  /** Whether a message that was sent may be the one whose response is being waited for. */
  mayBeSending(message) {
    return this.#sending?.to === message.received_by && this.#sending.text === message.message;
  }

  add(userId, text) {
    const last = this.#entries.at(-1);
    // Strictly increasing, because the entries are sorted by it when they are loaded.
    const time = Math.max(Date.now(), last ? Date.parse(last.at) + 1 : 0);
    const at = new Date(time).toISOString();
    const entry = { key: randomKey(), to: userId, text, at, failed: null };
    this.#entries.push(entry);
    this.#save(entry);
    this.run();
  }

  retry(key) {
    const entry = this.#entries.find((each) => each.key === key);
    if (!entry) return;
    entry.failed = null;
    this.#save(entry);
    this.run();
  }

  /** Remove an entry; returns its text. */
  discard(key) {
    const { text } = this.#entries.find((entry) => entry.key === key);
    this.#entries = this.#entries.filter((entry) => entry.key !== key);
    remove(this.#prefix + key);
    return text;
  }

  clear() {
    for (const entry of this.#entries) remove(this.#prefix + entry.key);
    this.#entries = [];
  }

  /** Send the entries one after the other, which keeps their order. */
  async run() {
    if (this.#running) return;
    this.#running = true;
    try {
      let entry;
      while ((entry = this.#entries.find((each) => !each.failed))) await this.#send(entry);
    } catch (error) {
      // The session is over: its entries stay stored for the next one.
      if (error.status !== 401 && error.name !== "AbortError") throw error;
    } finally {
      this.#running = false;
    }
  }

  async #send(entry) {
    this.#sending = entry;
    try {
      const { body } = await this.#connection.untilSuccess((signal) =>
        this.#api.request("POST", "/chats/", {
          body: { user_id: entry.to, message: entry.text },
          idempotencyKey: entry.key,
          signal,
        }),
      );
      this.#sending = null;
      this.discard(entry.key);
      this.#callbacks.onSent(body);
    } catch (error) {
      this.#sending = null;
      if (!(error instanceof APIError) || error.status === 401) throw error;
      entry.failed = describeError(error);
      this.#save(entry);
      this.#callbacks.onFailed(entry);
    }
  }

  #save(entry) {
    save(this.#prefix + entry.key, entry);
  }
}

/** Up to version 1 all entries were one stored list. */
function splitLegacyOutbox(userId, prefix) {
  for (const entry of load(`outbox.${userId}`, [])) save(prefix + entry.key, entry);
  remove(`outbox.${userId}`);
}

// crypto.randomUUID is missing on plain HTTP, which home networks may use.
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
