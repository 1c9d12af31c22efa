// The people that the account has blocked.

export class Blocks {
  #api;
  #signal;
  #users;
  #onChange;
  #ids = [];

  /** `onChange()` is called when other people are blocked. */
  constructor({ api, users, signal, onChange }) {
    this.#api = api;
    this.#signal = signal;
    this.#users = users;
    this.#onChange = onChange;
  }

  /** Ids of the blocked users, in the order of their names. */
  get ids() {
    return this.#ids;
  }

  has(id) {
    return this.#ids.includes(id);
  }

  /** Throws what `APIClient.request` throws, except that version 1 has no blocks. */
  async load() {
    try {
      const { body } = await this.#request("GET", {});
      for (const { user_id, username } of body.blocks) this.#users.setName(user_id, username);
      this.#set(body.blocks.map(({ user_id }) => user_id));
    } catch (error) {
      if (error.code !== "not_found") throw error;
    }
  }

  async block(id) {
    await this.#request("PUT", { body: { user_id: id } });
    if (!this.has(id)) this.#set([...this.#ids, id]);
  }

  async unblock(id) {
    await this.#request("DELETE", { query: { user_id: id } });
    this.#set(this.#ids.filter((each) => each !== id));
  }

  #set(ids) {
    this.#ids = ids;
    this.#onChange();
  }

  #request(method, options) {
    return this.#api.request(method, "/blocks/", { ...options, signal: this.#signal });
  }
}
