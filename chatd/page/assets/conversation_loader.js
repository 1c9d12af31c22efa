// Loads the list of conversations from the service, page by page.

const PAGE_SIZE = 50;
const ATTEMPTS = 3;
const INBOX_PAGES = 2;

export class ConversationLoader {
  #api;
  #connection;
  #conversations;
  #users;
  #older = null;
  #loading = false;
  #reloading = false;
  #reloadAgain = false;

  constructor({ api, connection, conversations, users }) {
    this.#api = api;
    this.#connection = connection;
    this.#conversations = conversations;
    this.#users = users;
  }

  get hasOlder() {
    return this.#older !== null;
  }

  /** Load the newest conversations; throws what `APIClient.request` throws. */
  async load() {
    const attempt = (call) => this.#connection.attempt(call);
    try {
      const page = await this.#get({}, attempt);
      this.#conversations.mergeNewest(page.conversations);
      this.#older = page.meta.older;
      this.#conversations.hasPositions = true;
    } catch (error) {
      if (error.code !== "not_found") throw error;
      this.#conversations.hasPositions = false;
      await this.#loadInbox();
    }
    this.#conversations.setLoaded();
  }

  async loadOlder() {
    if (this.#older === null || this.#loading) return;
    this.#loading = true;
    try {
      const page = await this.#get({ before: this.#older }, this.#untilSuccess);
      this.#conversations.mergeOlder(page.conversations);
      this.#older = page.meta.older;
    } finally {
      this.#loading = false;
    }
  }

  /** Load the newest conversations again, for what cannot be told from messages. */
  async reload() {
    this.#reloadAgain = true;
    if (this.#reloading || !this.#conversations.hasPositions) return;
    this.#reloading = true;
    try {
      for (let attempt = 1; this.#reloadAgain; attempt += 1) {
        this.#reloadAgain = false;
        const { version } = this.#conversations;
        const page = await this.#get({}, this.#untilSuccess);
        // What has happened meanwhile may not be in the response.
        const isCurrent = version === this.#conversations.version;
        if (isCurrent || attempt === ATTEMPTS) this.#conversations.mergeNewest(page.conversations);
        else this.#reloadAgain = true;
      }
    } finally {
      this.#reloading = false;
    }
  }

  #untilSuccess = (call) => this.#connection.untilSuccess(call);

  async #get(parameters, attempt) {
    const query = { limit: PAGE_SIZE, ...parameters };
    const call = (signal) => this.#api.request("GET", "/conversations/", { query, signal });
    const { body } = await attempt(call);
    for (const { user_id, username } of body.conversations) this.#users.setName(user_id, username);
    return body;
  }

  /** A server of version 1 has no list: the inbox's newest messages tell who has written. */
  async #loadInbox() {
    const messages = [];
    for (let page = 1; page <= INBOX_PAGES; page += 1) {
      const { body } = await this.#connection.attempt((signal) =>
        this.#api.request("GET", "/chats/", { query: { page, limit: 100 }, signal }),
      );
      messages.push(...body.messages);
      if (body.meta.next === null) break;
    }
    for (const message of messages.reverse()) this.#conversations.record(message, { isRead: true });
  }
}
