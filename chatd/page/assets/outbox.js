// Messages on their way: each is repeated under one Idempotency-Key until the service has it or
// refuses it, also after the page was closed and opened again.

import { Refused } from "./api.js";
import { Backoff, pause } from "./backoff.js";
import { keep, kept } from "./storage.js";

export class Outbox {
  #api;
  #signal;
  #name;
  #entries;
  #running = false;

  /** `onSent(entry, message)` and `onFailed(entry)` tell what became of an entry. */
  constructor({ api, signal, userId, onSent, onFailed }) {
    this.#api = api;
    this.#signal = signal;
    this.#name = `outbox.${userId}`;
    this.#entries = kept(this.#name, []);
    this.onSent = onSent;
    this.onFailed = onFailed;
  }

  /** What is on its way to a user, in order. */
  to(userId) {
    return this.#entries.filter((entry) => entry.to === userId);
  }

  add(userId, text) {
    const entry = { key: newKey(), to: userId, text, at: new Date().toISOString(), failed: null };
    this.#entries.push(entry);
    this.#save();
    this.run();
    return entry;
  }

  retry(key) {
    const entry = this.#entries.find((each) => each.key === key);
    if (entry) {
      entry.failed = null;
      this.#save();
      this.run();
    }
    return entry;
  }

  drop(key) {
    this.#entries = this.#entries.filter((entry) => entry.key !== key);
    this.#save();
  }

  /** Send what waits, one after the other: that keeps their order. */
  async run() {
    if (this.#running) return;
    this.#running = true;
    try {
      let entry;
      while ((entry = this.#entries.find((each) => !each.failed))) await this.#send(entry);
    } catch (problem) {
      if (!this.#signal.aborted) throw problem;
    } finally {
      this.#running = false;
    }
  }

  async #send(entry) {
    const backoff = new Backoff();
    for (;;) {
      try {
        const { body } = await this.#api.ask("POST", "/chats/", {
          body: { user_id: entry.to, message: entry.text },
          key: entry.key,
          signal: this.#signal,
        });
        this.drop(entry.key);
        this.onSent(entry, body);
        return;
      } catch (problem) {
        this.#signal.throwIfAborted();
        const refused = problem instanceof Refused;
        if (refused && !problem.passing) {
          entry.failed = problem.message;
          this.#save();
          this.onFailed(entry);
          return;
        }
        await pause(backoff.delay(refused ? problem.retryAfter : 0), this.#signal);
      }
    }
  }

  #save() {
    keep(this.#name, this.#entries);
  }
}

// crypto.randomUUID exists on secure origins only; a chat in a home network may be plain http.
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
