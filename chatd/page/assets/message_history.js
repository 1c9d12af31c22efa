// The ordered messages of one conversation, merged from pages of the service and live messages.

import { latestVersion, messageKey } from "./messages.js";

/**
 * Each message once, in the order of the service.
 *
 * The service orders a conversation by commit time in microseconds, then by recipient and `seq`;
 * messages carry the time in seconds only. So the order within a page is taken as it is; a message
 * that arrived by itself is placed by time and `seq`, after those of the same second, until a page
 * contains it. Messages known from pages are a contiguous part of the conversation.
 */
export class MessageHistory {
  #messages = [];
  #contiguous = new Set();
  #older = null;

  /** Oldest first. */
  get messages() {
    return this.#messages;
  }

  /** The value of `before` for the next older page; null at the beginning. */
  get older() {
    return this.#older;
  }

  has({ received_by, seq }) {
    return this.#messages.some((each) => each.seq === seq && each.received_by === received_by);
  }

  /** Replace a message that is known with a later version of it; false if nothing changes. */
  revise(message) {
    const index = this.#messages.findIndex((each) => messageKey(each) === messageKey(message));
    if (index < 0) return false;
    const known = this.#messages[index];
    this.#messages[index] = latestVersion(message, known);
    return this.#messages[index] !== known;
  }

  /** Add a message that was received or sent; false if that does not change anything. */
  add(message) {
    if (this.has(message) || this.#isBeforeStart(message)) return false;
    let index = this.#messages.length;
    while (index > 0 && precedes(message, this.#messages[index - 1])) index -= 1;
    this.#messages.splice(index, 0, message);
    return true;
  }

  /** Whether only a page can tell if a message comes before or after another one. */
  isAmbiguous({ sent_at, received_by }) {
    const isTied = (each) => each.sent_at === sent_at && each.received_by !== received_by;
    return this.#messages.some(isTied);
  }

  /** Merge the newest page, oldest message first. */
  mergeNewest(page, older) {
    page = this.#withLatestVersions(page);
    const rest = this.#without(page);
    const live = rest.filter((message) => !this.#isContiguous(message));
    if (page.some((message) => this.#isContiguous(message))) {
      this.#messages = [...rest.filter((message) => this.#isContiguous(message)), ...page];
    } else {
      // More messages than a page are missing in between: what came before is loaded on demand.
      this.#messages = [...page];
      this.#contiguous.clear();
      this.#older = older;
    }
    for (const message of page) this.#contiguous.add(messageKey(message));
    for (const message of live) this.add(message);
  }

  /** Merge the page before the oldest contiguous message, oldest message first. */
  mergeOlder(page, older) {
    page = this.#withLatestVersions(page);
    this.#messages = [...page, ...this.#without(page)];
    for (const message of page) this.#contiguous.add(messageKey(message));
    this.#older = older;
    this.#messages = this.#messages.filter((message) => !this.#isBeforeStart(message));
  }

  #isContiguous(message) {
    return this.#contiguous.has(messageKey(message));
  }

  /** Whether a message is in none of the pages so far because it is in an older one. */
  #isBeforeStart(message) {
    if (this.#older === null || this.#isContiguous(message)) return false;
    const contiguous = this.#messages.filter((each) => this.#isContiguous(each));
    const sameInbox = contiguous.find((each) => each.received_by === message.received_by);
    if (sameInbox) return message.seq < sameInbox.seq;
    return message.sent_at < contiguous[0].sent_at;
  }

  /** A page may have been read before a change that has arrived already. */
  #withLatestVersions(page) {
    const known = new Map(this.#messages.map((message) => [messageKey(message), message]));
    return page.map((message) => latestVersion(message, known.get(messageKey(message)) ?? message));
  }

  #without(page) {
    const keys = new Set(page.map(messageKey));
    return this.#messages.filter((message) => !keys.has(messageKey(message)));
  }
}

function precedes(one, other) {
  if (one.sent_at !== other.sent_at) return one.sent_at < other.sent_at;
  return one.received_by === other.received_by && one.seq < other.seq;
}
