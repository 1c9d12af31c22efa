// Receives an inbox's messages and the account's changes by long polling. See docs/protocol.md.

import { APIError, NetworkError } from "./api.js";
import { Backoff } from "./backoff.js";

const MAX_WAIT_SECONDS = 30;
const MIN_WAIT_SECONDS = 5;
const GRACE_SECONDS = 15;
const MAX_LIMIT = 100;

export class InboxPoll {
  #api;
  #connection;
  #emptyAnswers = new Backoff();
  #wait = MAX_WAIT_SECONDS;
  #limit = MAX_LIMIT;

  constructor({ api, connection }) {
    this.#api = api;
    this.#connection = connection;
  }

  /**
   * Poll once, without a wait if `probe`, then pause if the service asks for it.
   *
   * `onProgress(cursor, messages, changes)` is called with what comes after `cursor`, maybe nothing,
   * and the position after it. Throws `Interrupted` and what `APIClient.request` throws.
   */
  async receive(cursor, { onProgress, probe }) {
    const wait = probe ? 0 : Math.round(this.#wait);
    const { body, retryAfter } = await this.#get(cursor, wait);
    // A server of version 1 has no changes.
    const { meta, messages, changes = [] } = body;
    this.#limit = Math.min(this.#limit * 2, MAX_LIMIT);
    onProgress(meta.cursor, messages, changes);
    if (messages.length || changes.length || meta.timed_out || wait === 0) {
      this.#emptyAnswers.reset();
      if (meta.timed_out && wait) this.#wait = Math.min(MAX_WAIT_SECONDS, this.#wait * 1.05);
      if (retryAfter) await this.#connection.pause(retryAfter);
    } else {
      // Empty and early: the server is stopping or overloaded, or the account has too many polls.
      await this.#connection.pause(this.#emptyAnswers.nextDelay(retryAfter));
    }
  }

  async #get(cursor, wait) {
    const query = { since: cursor, wait, limit: this.#limit, changes: true };
    const started = performance.now();
    try {
      return await this.#connection.attempt((signal) =>
        this.#api.request("GET", "/chats/", { query, signal, timeout: wait + GRACE_SECONDS }),
      );
    } catch (error) {
      const seconds = (performance.now() - started) / 1000;
      if (error instanceof NetworkError || error instanceof APIError) this.#adapt(seconds);
      throw error;
    }
  }

  #adapt(failedAfterSeconds) {
    // A proxy may cut long requests: shorter ones get through.
    if (failedAfterSeconds >= MIN_WAIT_SECONDS) {
      this.#wait = Math.max(MIN_WAIT_SECONDS, Math.min(this.#wait, failedAfterSeconds * 0.8));
    }
    // On a bad connection a long response may never arrive completely.
    this.#limit = Math.max(1, this.#limit >> 1);
  }
}
