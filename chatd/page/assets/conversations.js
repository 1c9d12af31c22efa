// The conversations of an account: last messages, unread counts, and how far each side has read.

import { isLater, latestVersion, messageKey } from "./messages.js";

/**
 * A conversation is `{ peer, last, unread, read, peerRead, peerDelivered }`, with the members of
 * the API's conversations: `read` is a place in the account's own inbox, the others in the peer's.
 */
export class Conversations {
  #me;
  #byPeer = new Map();
  // Positions may arrive before the message that begins a conversation.
  #peerPositions = new Map();
  #newestRank = 0;
  #oldestRank = 0;
  #version = 0;

  /** Whether the service keeps positions; version 1 does not. */
  hasPositions = true;
  #setLoaded;

  /** Resolves when the list was loaded for the first time. */
  loaded = new Promise((resolve) => (this.#setLoaded = resolve));

  constructor({ me }) {
    this.#me = me;
  }

  setLoaded() {
    this.#setLoaded();
  }

  /** Changes with each message and position that is recorded. */
  get version() {
    return this.#version;
  }

  /** The one with the newest message first. */
  list() {
    return [...this.#byPeer.values()].sort(
      (one, other) => other.last.sent_at.localeCompare(one.last.sent_at) || other.rank - one.rank,
    );
  }

  get(peer) {
    return this.#byPeer.get(peer);
  }

  get unread() {
    return this.list().reduce((sum, { unread }) => sum + unread, 0);
  }

  /** The id of the other user of a message. */
  peerOf(message) {
    return message.sent_by === this.#me.id ? message.received_by : message.sent_by;
  }

  reset() {
    this.#byPeer.clear();
    this.#peerPositions.clear();
  }

  /** Merge the newest conversations, as the service lists them: the newest first. */
  mergeNewest(entries) {
    this.#newestRank += entries.length;
    entries.forEach((entry, index) => this.#merge(entry, this.#newestRank - index));
  }

  /** Merge the conversations before the oldest that are known. */
  mergeOlder(entries) {
    for (const entry of entries) this.#merge(entry, (this.#oldestRank -= 1));
  }

  #merge(entry, rank) {
    const { user_id: peer, last_message: listed } = entry;
    const known = this.#byPeer.get(peer);
    const conversation = known ?? this.#create(peer, listed);
    const isCurrent = !known || !isLater(known.last, listed);
    if (isCurrent) Object.assign(conversation, { last: listed, rank });
    // What was read here since is not known to the service yet.
    if (entry.read >= conversation.read) {
      conversation.read = entry.read;
      conversation.unread = peer === this.#me.id ? 0 : entry.unread;
    }
    // What the service has counted is not counted again when it arrives.
    conversation.countedTo = listed.sent_by === peer ? listed.seq : 0;
    conversation.countedBefore = listed.sent_at;
    this.setPeer(peer, { delivered: entry.peer_delivered, read: entry.peer_read });
  }

  #create(peer, last) {
    const conversation = {
      peer, last, unread: 0, read: 0, peerRead: 0, peerDelivered: 0, countedTo: 0,
      countedBefore: "", rank: (this.#newestRank += 1),
    };
    this.#byPeer.set(peer, conversation);
    const positions = this.#peerPositions.get(peer);
    if (positions) this.setPeer(peer, positions);
    return conversation;
  }

  /** Record a message that was sent or has arrived; `isRead` if it needs no attention. */
  record(message, { isRead = false } = {}) {
    this.#version += 1;
    const peer = this.peerOf(message);
    const conversation = this.#byPeer.get(peer) ?? this.#create(peer, message);
    if (messageKey(conversation.last) === messageKey(message)) this.revise(message);
    else if (isLater(message, conversation.last)) {
      Object.assign(conversation, { last: message, rank: (this.#newestRank += 1) });
    }
    if (message.sent_by === this.#me.id) return;
    const { read, countedTo, countedBefore } = conversation;
    const isCounted = message.seq <= countedTo || message.sent_at < countedBefore;
    conversation.countedTo = Math.max(countedTo, message.seq);
    if (isRead) conversation.read = Math.max(read, message.seq);
    else if (!isCounted && message.seq > read) conversation.unread += 1;
  }

  /** A message was edited or deleted. */
  revise(message) {
    const conversation = this.#byPeer.get(this.peerOf(message));
    if (!conversation || messageKey(conversation.last) !== messageKey(message)) return;
    conversation.last = latestVersion(message, conversation.last);
  }

  /**
   * What `peer` sent up to `seq` of the account's inbox is read. False if that leaves messages
   * unread of which only the service knows the number.
   */
  setRead(peer, seq) {
    const conversation = this.#byPeer.get(peer);
    if (!conversation || seq <= conversation.read) return true;
    this.#version += 1;
    conversation.read = seq;
    if (conversation.unread === 0) return true;
    if (conversation.countedTo === 0 || seq < conversation.countedTo) return false;
    conversation.unread = 0;
    return true;
  }

  /** All that `peer` sent is read; the last of it is at `seq`. */
  setAllRead(peer, seq) {
    this.#version += 1;
    Object.assign(this.#byPeer.get(peer), { read: seq, unread: 0 });
  }

  /** How far, in their inbox, `peer` has received and read what the account sent. */
  setPeer(peer, { delivered, read }) {
    const conversation = this.#byPeer.get(peer);
    if (!conversation) {
      this.#peerPositions.set(peer, { delivered, read });
      return;
    }
    conversation.peerRead = Math.max(conversation.peerRead, read);
    conversation.peerDelivered = Math.max(conversation.peerDelivered, delivered, read);
  }

  /** What became of the account's own message: "sent", "delivered" or "read"; null if unknown. */
  mark(message) {
    const conversation = this.#byPeer.get(message.received_by);
    if (!this.hasPositions || !conversation || message.received_by === this.#me.id) return null;
    if (message.seq <= conversation.peerRead) return "read";
    return message.seq <= conversation.peerDelivered ? "delivered" : "sent";
  }
}
