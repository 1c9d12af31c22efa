// The ordered messages of one conversation, merged from pages of the service and live messages.

/** Identifies a message: the inbox it is in, and its sequence number there. */
export const messageKey = (message) => `${message.received_by}.${message.seq}`;

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

  /** Add a message that was received or sent; false if it was there already. */
  add(message) {
    if (this.has(message)) return false;
    let index = this.#messages.length;
    while (index > 0 && precedes(message, this.#messages[index - 1])) index -= 1;
    this.#messages.splice(index, 0, message);
    return true;
  }

  /** Merge the newest page, oldest message first. */
  mergeNewest(page, older) {
    const keys = new Set(page.map(messageKey));
    const rest = this.#messages.filter((message) => !keys.has(messageKey(message)));
    const isContiguous = (message) => this.#contiguous.has(messageKey(message));
    if (page.some(isContiguous)) {
      this.#messages = [...rest.filter(isContiguous), ...page];
    } else {
      // More messages than a page are missing in between: what came before is fetched on demand.
      this.#messages = [...page];
      this.#contiguous.clear();
      this.#older = older;
    }
    const isLater = (message) => !page.length || isAfter(message, page);
    const live = rest.filter((message) => !isContiguous(message) && isLater(message));
    for (const key of keys) this.#contiguous.add(key);
    for (const message of live) this.add(message);
  }

  /** Merge the page before the oldest contiguous message, oldest message first. */
  mergeOlder(page, older) {
    const keys = new Set(page.map(messageKey));
    const rest = this.#messages.filter((message) => !keys.has(messageKey(message)));
    this.#messages = [...page, ...rest];
    for (const key of keys) this.#contiguous.add(key);
    this.#older = older;
  }
}

function precedes(one, other) {
  if (one.sent_at !== other.sent_at) return one.sent_at < other.sent_at;
  return one.received_by === other.received_by && one.seq < other.seq;
}

/** Whether a message that is not in the newest page came after it, rather than before. */
function isAfter(message, page) {
  const sameInbox = page.filter((each) => each.received_by === message.received_by);
  if (sameInbox.length) return message.seq > sameInbox.at(-1).seq;
  return message.sent_at >= page.at(-1).sent_at;
}
