// Receives an inbox's messages and the account's changes by a stream of server-sent events. See
// docs/protocol.md.

import { NetworkError, errorOf } from "./api.js";
import { Backoff } from "./backoff.js";
import { EventStreamParser } from "./event_stream.js";

export class InboxStream {
  #api;
  #connection;
  #ends = new Backoff();

  constructor({ api, connection }) {
    this.#api = api;
    this.#connection = connection;
  }

  /**
   * Follow a stream from `cursor` until it ends, then pause until it should be opened again.
   *
   * `onProgress(cursor, messages, changes)` is called as soon as the stream begins, and then with
   * what arrives and the position after it. Throws `Interrupted`, also when the page is
   * hidden, what `APIClient.stream` throws before the stream begins, and the error with which the
   * service ends it.
   */
  async receive(cursor, { onProgress }) {
    const call = (signal) => this.#follow(cursor, onProgress, signal);
    const seconds = await this.#connection.attempt(call, { onlyVisible: true });
    await this.#connection.pause(this.#ends.nextDelay(seconds));
  }

  /** Returns after how many seconds at least the stream should be opened again. */
  async #follow(cursor, onProgress, signal) {
    const parser = new EventStreamParser();
    let hasBegun = false;
    try {
      const query = { since: cursor, changes: true };
      for await (const bytes of this.#api.stream("/chats/", { query, signal })) {
        const { messages, changes, problem, isEnd } = sort(parser.push(bytes));
        // A stream that is cut again and again right after its begin is not opened each time at once.
        if (hasBegun || messages.length || changes.length) this.#ends.reset();
        hasBegun = true;
        onProgress(parser.lastEventId || cursor, messages, changes);
        if (problem) throw errorOf(problem.status, problem);
        if (isEnd) return parser.retry / 1000;
      }
    } catch (error) {
      // Proxies cut long responses. If the service cannot be reached, the next attempt shows it.
      if (!(hasBegun && error instanceof NetworkError)) throw error;
    }
    return 0;
  }
}

/** The messages and changes of some events, and how the service ends the stream, if it does. */
function sort(events) {
  const messages = [];
  const changes = [];
  let problem = null;
  let isEnd = false;
  for (const { type, data } of events) {
    if (type === "message") messages.push(JSON.parse(data));
    else if (type === "change") changes.push(JSON.parse(data));
    else if (type === "error") problem = JSON.parse(data);
    else if (type === "drain" || type === "superseded") isEnd = true;
  }
  return { messages, changes, problem, isEnd };
}
