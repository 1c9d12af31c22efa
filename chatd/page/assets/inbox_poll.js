// Follows the inbox by long polling: every message once and in order. See docs/protocol.md.

import { APIError, NetworkError, isTemporary } from "./api.js";
import { Backoff } from "./backoff.js";
import { Interrupted } from "./connection.js";

const MAX_WAIT_SECONDS = 30;
const MIN_WAIT_SECONDS = 5;
const GRACE_SECONDS = 15;
const MAX_LIMIT = 100;
const CATCH_UP_PAGES = 2;

/**
 * Fetches the inbox's newest messages, then polls for those after them, until the session ends or
 * the service responds with a permanent error, which is thrown.
 *
 * `onCatchUp(messages)` receives the newest messages and `onMessages(messages)` those that arrive,
 * oldest first. `onReset()` is called when the service's data was replaced (410 `cursor_epoch`):
 * sequence numbers start anew, and a catch-up follows.
 */
export class InboxPoll {
  #api;
  #connection;
  #callbacks;
  #cursor = null;
  #failures = new Backoff();
  #emptyAnswers = new Backoff();
  #wait = MAX_WAIT_SECONDS;
  #limit = MAX_LIMIT;

  constructor({ api, connection, onCatchUp, onMessages, onReset }) {
    this.#api = api;
    this.#connection = connection;
    this.#callbacks = { onCatchUp, onMessages, onReset };
  }

  async run() {
    // A first poll without a wait shows at once that the service is reachable.
    let probe = true;
    for (;;) {
      try {
        if (this.#cursor === null) await this.#catchUp();
        else await this.#poll(probe ? 0 : Math.round(this.#wait));
        probe = false;
      } catch (error) {
        probe = true;
        await this.#recover(error);
      }
    }
  }

  async #catchUp() {
    let cursor = null;
    const messages = [];
    for (let page = 1; page <= CATCH_UP_PAGES; page += 1) {
      const query = { page, limit: 100, ...(cursor && { at: cursor }) };
      const { body } = await this.#get(query);
      cursor = body.meta.cursor;
      messages.push(...body.messages);
      if (body.meta.next === null) break;
    }
    this.#callbacks.onCatchUp(messages.reverse());
    this.#cursor = cursor;
    this.#succeeded();
  }

  async #poll(wait) {
    const { body, retryAfter } = await this.#get(
      { since: this.#cursor, wait, limit: this.#limit },
      wait + GRACE_SECONDS,
    );
    const { meta, messages } = body;
    this.#cursor = meta.cursor;
    this.#limit = Math.min(this.#limit * 2, MAX_LIMIT);
    this.#succeeded();
    if (messages.length) this.#callbacks.onMessages(messages);
    if (messages.length || meta.timed_out || wait === 0) {
      this.#emptyAnswers.reset();
      if (meta.timed_out && wait) this.#wait = Math.min(MAX_WAIT_SECONDS, this.#wait * 1.05);
      if (retryAfter) await this.#connection.pause(retryAfter);
    } else {
      // Empty and early: the server is stopping or overloaded, or the account has too many polls.
      await this.#connection.pause(this.#emptyAnswers.nextDelay(retryAfter));
    }
  }

  async #get(query, timeout) {
    const started = performance.now();
    try {
      return await this.#connection.attempt((signal) =>
        this.#api.request("GET", "/chats/", { query, signal, timeout }),
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

  #succeeded() {
    this.#failures.reset();
    this.#connection.setState("online");
  }

  /** Pause before the next attempt; rethrows errors that another attempt would not change. */
  async #recover(error) {
    if (error instanceof Interrupted) {
      this.#failures.reset();
    } else if (error.code === "cursor_epoch") {
      this.#cursor = null;
      this.#callbacks.onReset();
    } else if (isTemporary(error) || error.status >= 500) {
      this.#connection.setState("offline");
      await this.#connection.pause(this.#failures.nextDelay(error.retryAfter));
    } else throw error;
  }
}
