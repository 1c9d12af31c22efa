// Edits and deletions of the account's own messages on their way to the service.

import { messageKey } from "./messages.js";

export class Revisions {
  #api;
  #connection;
  #signal;
  #callbacks;
  #pending = new Map();
  #tail = Promise.resolve();

  /**
   * `onRevised(message)` is called with the message as it is now, `onFailed(message, error)` when
   * the service has refused, and `onChange()` whenever `pending` has changed.
   */
  constructor({ api, connection, signal, onRevised, onFailed, onChange }) {
    this.#api = api;
    this.#connection = connection;
    this.#signal = signal;
    this.#callbacks = { onRevised, onFailed, onChange };
  }

  /** The text that a message is going to have, "" if it is going to be deleted; else undefined. */
  pending(message) {
    return this.#pending.get(messageKey(message));
  }

  edit(message, text) {
    const body = { user_id: message.received_by, seq: message.seq, message: text };
    return this.#add(message, text, async (signal) => {
      return (await this.#api.request("PATCH", "/chats/", { body, signal })).body;
    });
  }

  remove(message) {
    const query = { user_id: message.received_by, seq: message.seq };
    return this.#add(message, "", async (signal) => {
      await this.#api.request("DELETE", "/chats/", { query, signal });
      const now = new Date().toISOString().replace(/\.[0-9]+/, "");
      return { ...message, message: "", deleted_at: now };
    });
  }

  /** One after the other, so that the last of several edits is the one that stays. */
  #add(message, text, call) {
    this.#pending.set(messageKey(message), text);
    this.#callbacks.onChange();
    this.#tail = this.#tail.then(() => this.#run(message, text, call));
    return this.#tail;
  }

  async #run(message, text, call) {
    const { onRevised, onFailed, onChange } = this.#callbacks;
    const settle = () => {
      if (this.pending(message) === text) this.#pending.delete(messageKey(message));
    };
    try {
      const revised = await this.#connection.untilSuccess(call);
      settle();
      onRevised(revised);
    } catch (error) {
      settle();
      if (this.#signal.aborted) return;
      onChange();
      onFailed(message, error);
    }
  }
}
