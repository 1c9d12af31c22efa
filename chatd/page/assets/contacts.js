// Who one talks with: names, the last message of each, and what has not been read yet.

import { Refused } from "./api.js";
import { keep, kept } from "./storage.js";

export class People {
  #api;
  #me;
  #names = new Map();
  #people = new Map();

  constructor(api, me) {
    this.#api = api;
    this.#me = me;
    this.#names.set(me.id, me.username);
    // People one has only written to are in nobody's inbox but theirs: this browser knows them.
    for (const person of kept(`people.${me.id}`, [])) {
      this.#people.set(person.id, { ...person, unread: new Set() });
    }
  }

  get #read() {
    return kept(`read.${this.#me.id}`, {});
  }

  /** Everybody, the latest conversation first. */
  list() {
    return [...this.#people.values()].sort(
      (one, other) => (other.at ?? "").localeCompare(one.at ?? "") || other.order - one.order,
    );
  }

  get unread() {
    return this.list().reduce((sum, person) => sum + person.unread.size, 0);
  }

  get(id) {
    if (!this.#people.has(id)) {
      this.#people.set(id, { id, name: null, last: "", at: null, order: 0, unread: new Set() });
    }
    return this.#people.get(id);
  }

  /** Note a message, own or received. */
  note(message) {
    const mine = message.sent_by === this.#me.id;
    const person = this.get(mine ? message.received_by : message.sent_by);
    if (!mine && message.seq > (this.#read[person.id] ?? 0)) person.unread.add(message.seq);
    // The same second is common: the later one that is told counts as the later one.
    if (person.at === null || message.sent_at >= person.at) {
      person.at = message.sent_at;
      person.last = (mine ? "You: " : "") + message.message;
      person.order = (this.order = (this.order ?? 0) + 1);
    }
    this.#save();
    return person;
  }

  /** Everything of this person has been seen. */
  markRead(id) {
    const person = this.get(id);
    if (person.unread.size === 0) return;
    keep(`read.${this.#me.id}`, { ...this.#read, [id]: Math.max(...person.unread) });
    person.unread.clear();
  }

  /** Forget what was read: after a restored backup the numbers begin elsewhere. */
  startOver() {
    keep(`read.${this.#me.id}`, {});
    for (const person of this.#people.values()) {
      Object.assign(person, { at: null, last: "" });
      person.unread.clear();
    }
  }

  /** The name of a user, asked for once. */
  async name(id) {
    if (this.#names.has(id)) return this.#names.get(id);
    let name;
    try {
      name = (await this.#api.ask("GET", "/users/", { query: { user_id: id } })).body.username;
    } catch (problem) {
      const gone = problem instanceof Refused && problem.code === "user_not_found";
      // Not remembered when it may be there the next time.
      if (!gone) return this.#people.get(id)?.name ?? `user ${id}`;
      name = `deleted user ${id}`;
    }
    this.named(id, name);
    return name;
  }

  named(id, name) {
    this.#names.set(id, name);
    if (id !== this.#me.id || this.#people.has(id)) this.get(id).name = name;
    this.#save();
  }

  #save() {
    const rows = this.list().map(({ id, name, last, at, order }) => ({
      id, name, last: last.slice(0, 120), at, order,
    }));
    keep(`people.${this.#me.id}`, rows.slice(0, 500));
  }
}
