// Follows the inbox: every message once and in order, and what else changes for the account.

import { NotStreaming, isTemporary } from "./api.js";
import { Backoff } from "./backoff.js";
import { Interrupted } from "./connection.js";
import { InboxPoll } from "./inbox_poll.js";
import { InboxStream } from "./inbox_stream.js";

/**
 * Notes where the inbox ends, loads what is there, then receives what comes after it, until the
 * session ends or the service responds with a permanent error, which is thrown.
 *
 * Messages and changes come by a stream, or by polls where streams do not get through and while the
 * page is hidden. Both continue at the same cursor.
 *
 * `load()` is awaited after the end was noted, so that nothing is missing in between. `onReceived`
 * is called with the messages that arrive, oldest first, and the changes. `onReset()` is called
 * when the service's data was replaced (410 `cursor_epoch`): sequence numbers start anew, and
 * another `load()` follows.
 */
export class Inbox {
  #api;
  #connection;
  #callbacks;
  #stream;
  #poll;
  #cursor = null;
  #failures = new Backoff();
  #streams = true;
  #probe = true;

  constructor({ api, connection, load, onReceived, onReset }) {
    this.#api = api;
    this.#connection = connection;
    this.#callbacks = { load, onReceived, onReset };
    this.#stream = new InboxStream({ api, connection });
    this.#poll = new InboxPoll({ api, connection });
  }

  /** The position after what was received; null before the first. */
  get cursor() {
    return this.#cursor;
  }

  async run() {
    for (;;) {
      try {
        if (this.#cursor === null) await this.#begin();
        else await this.#receive();
        this.#probe = false;
      } catch (error) {
        this.#probe = true;
        await this.#recover(error);
      }
    }
  }

  async #begin() {
    const query = { since: "now", wait: 0, limit: 1, changes: true };
    const { body } = await this.#connection.attempt((signal) =>
      this.#api.request("GET", "/chats/", { query, signal }),
    );
    await this.#callbacks.load();
    this.#advance(body.meta.cursor, [], []);
  }

  async #receive() {
    const onProgress = (...progress) => this.#advance(...progress);
    // Browsers have six HTTP/1.1 connections to a server for all pages. Streams of hidden pages would
    // occupy them for good; polls let them go now and then.
    const streams = this.#streams && !document.hidden;
    try {
      if (streams) return await this.#stream.receive(this.#cursor, { onProgress });
    } catch (error) {
      if (!(error instanceof NotStreaming)) throw error;
      // A service that cannot be reached looks the same; a poll without a wait shows which it is.
      await this.#poll.receive(this.#cursor, { onProgress, probe: true });
      this.#streams = false;
    }
    await this.#poll.receive(this.#cursor, { onProgress, probe: this.#probe });
  }

  #advance(cursor, messages, changes) {
    this.#cursor = cursor;
    this.#failures.reset();
    this.#connection.setState("online");
    if (messages.length || changes.length) this.#callbacks.onReceived(messages, changes);
  }

  /** Pause before the next attempt; rethrows errors that another attempt would not change. */
  async #recover(error) {
    if (error instanceof Interrupted) {
      this.#failures.reset();
    } else if (error.code === "cursor_epoch" || error.code === "cursor_expired") {
      this.#cursor = null;
      this.#callbacks.onReset();
    } else if (isTemporary(error) || error.status >= 500) {
      this.#connection.setState("offline");
      await this.#connection.pause(this.#failures.nextDelay(error.retryAfter));
    } else throw error;
  }
}
