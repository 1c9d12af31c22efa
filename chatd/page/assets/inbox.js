// Follows the inbox: every message once and in order.

import { NotStreaming, isTemporary } from "./api.js";
import { Backoff } from "./backoff.js";
import { Interrupted } from "./connection.js";
import { InboxPoll } from "./inbox_poll.js";
import { InboxStream } from "./inbox_stream.js";

const CATCH_UP_PAGES = 2;

/**
 * Fetches the inbox's newest messages, then receives those after them, until the session ends or
 * the service responds with a permanent error, which is thrown.
 *
 * Messages come by a stream, or by polls where streams do not get through and while the page is
 * hidden. Both continue at the same cursor.
 *
 * `onCatchUp(messages)` receives the newest messages and `onMessages(messages)` those that arrive,
 * oldest first. `onReset()` is called when the service's data was replaced (410 `cursor_epoch`):
 * sequence numbers start anew, and a catch-up follows.
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

  constructor({ api, connection, onCatchUp, onMessages, onReset }) {
    this.#api = api;
    this.#connection = connection;
    this.#callbacks = { onCatchUp, onMessages, onReset };
    this.#stream = new InboxStream({ api, connection });
    this.#poll = new InboxPoll({ api, connection });
  }

  async run() {
    for (;;) {
      try {
        if (this.#cursor === null) await this.#catchUp();
        else await this.#receive();
        this.#probe = false;
      } catch (error) {
        this.#probe = true;
        await this.#recover(error);
      }
    }
  }

  async #catchUp() {
    let cursor = null;
    const messages = [];
    for (let page = 1; page <= CATCH_UP_PAGES; page += 1) {
      const query = { page, limit: 100, ...(cursor && { at: cursor }) };
      const { body } = await this.#connection.attempt((signal) =>
        this.#api.request("GET", "/chats/", { query, signal }),
      );
      cursor = body.meta.cursor;
      messages.push(...body.messages);
      if (body.meta.next === null) break;
    }
    this.#callbacks.onCatchUp(messages.reverse());
    this.#advance(cursor, []);
  }

  async #receive() {
    const onProgress = (cursor, messages) => this.#advance(cursor, messages);
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

  #advance(cursor, messages) {
    this.#cursor = cursor;
    this.#failures.reset();
    this.#connection.setState("online");
    if (messages.length) this.#callbacks.onMessages(messages);
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
