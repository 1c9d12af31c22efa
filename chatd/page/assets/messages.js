// What can be said of a message by itself.

/** Identifies a message: the inbox it is in, and its sequence number there. */
export const messageKey = (message) => `${message.received_by}.${message.seq}`;

/** The text of a message; a deleted one has none. */
export const messageText = (message) =>
  message.deleted_at ? "This message was deleted." : message.message;

/** Of two versions of one message, the one that was changed later; else `one`. */
export function latestVersion(one, other) {
  if (one.deleted_at || other.deleted_at) return one.deleted_at ? one : other;
  return (other.edited_at ?? "") > (one.edited_at ?? "") ? other : one;
}

/** Whether `one` was sent after `other`, as far as their times, in seconds, and places tell. */
export function isLater(one, other) {
  if (one.sent_at !== other.sent_at) return one.sent_at > other.sent_at;
  return one.received_by !== other.received_by || one.seq > other.seq;
}
