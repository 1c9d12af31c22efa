// Users of the service: their names, which are requested once, and the search for them.

export class Users {
  #api;
  #signal;
  #names = new Map();
  #deleted = new Set();
  #requested = new Map();
  #hasDirectory = true;

  constructor({ api, me, signal }) {
    this.#api = api;
    this.#signal = signal;
    this.#names.set(me.id, me.username);
  }

  /** The name of a user as far as it is known. */
  name(id) {
    if (this.#deleted.has(id)) return "Deleted account";
    return this.#names.get(id) ?? `user ${id}`;
  }

  isKnown(id) {
    return this.#names.has(id) || this.#deleted.has(id);
  }

  isDeleted(id) {
    return this.#deleted.has(id);
  }

  /** Note a name; null if the account was deleted. */
  setName(id, name) {
    if (name === null) this.#deleted.add(id);
    else this.#names.set(id, name);
  }

  /** Request a name that is not known. Resolves also if that fails; the next call tries again. */
  async load(id) {
    if (this.isKnown(id)) return;
    if (!this.#requested.has(id)) this.#requested.set(id, this.#load(id));
    await this.#requested.get(id);
  }

  async #load(id) {
    try {
      const { body } = await this.#get({ user_id: id });
      this.setName(id, body.username);
    } catch (error) {
      if (error.code === "user_not_found") this.setName(id, null);
    } finally {
      this.#requested.delete(id);
    }
  }

  /** The id of the user of this name, whatever its case; null if there is none. */
  async find(username) {
    try {
      const { body } = await this.#get({ username });
      this.setName(body.id, body.username);
      return body.id;
    } catch (error) {
      if (error.code === "user_not_found") return null;
      throw error;
    }
  }

  /** Ids of users whose names begin with `prefix`; none where the directory is closed. */
  async search(prefix) {
    if (!this.#hasDirectory) return [];
    try {
      const { body } = await this.#get({ prefix, limit: 10 });
      // Version 1 has no directory, and answers with the caller.
      if (!body.users) this.#hasDirectory = false;
      const users = body.users ?? [];
      for (const { id, username } of users) this.setName(id, username);
      return users.map(({ id }) => id);
    } catch (error) {
      if (error.code === "directory_closed") this.#hasDirectory = false;
      return [];
    }
  }

  #get(query) {
    return this.#api.request("GET", "/users/", { query, signal: this.#signal });
  }
}
