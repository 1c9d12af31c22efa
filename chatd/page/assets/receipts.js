// Tells the service what was read here, on one's own account's other devices and to the peers.

const CONFIRM_MS = 1000;

export class Receipts {
  #api;
  #connection;
  #signal;
  #read = new Map();
  #running = false;
  #timer = null;

  constructor({ api, connection, signal }) {
    this.#api = api;
    this.#connection = connection;
    this.#signal = signal;
    signal.addEventListener("abort", () => clearTimeout(this.#timer));
  }

  /** What `peer` sent is read up to `seq` of the account's inbox. Repeated until the service knows. */
  async markRead(peer, seq) {
    this.#read.set(peer, seq);
    if (this.#running) return;
    this.#running = true;
    try {
      while (this.#read.size) await this.#send(...this.#read.entries().next().value);
    } catch (error) {
      if (!this.#signal.aborted && error.status !== 401) throw error;
    } finally {
      this.#running = false;
    }
  }

  async #send(peer, seq) {
    const body = { user_id: peer, seq };
    const call = (signal) => this.#api.request("PUT", "/conversations/read/", { body, signal });
    try {
      await this.#connection.untilSuccess(call);
    } catch (error) {
      // The account of the peer was deleted, or the service's data replaced.
      if (error.status !== 404 && error.status !== 400) throw error;
    }
    if (this.#read.get(peer) === seq) this.#read.delete(peer);
  }

  /**
   * Prove that everything before a cursor has arrived: a stream goes on without coming back with
   * one. `cursor()` is asked for it after a second, in which more may arrive; null if
   * meanwhile all was read, which proves the same.
   */
  confirmDelivery(cursor) {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      const since = cursor();
      if (since === null) return;
      const query = { since, wait: 0, limit: 1 };
      // The next stream or poll does the same if this one fails.
      this.#api.request("GET", "/chats/", { query, signal: this.#signal }).catch(() => {});
    }, CONFIRM_MS);
  }
}
