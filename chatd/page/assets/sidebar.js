// The list of conversations with its search: what it shows, and what is chosen in it.

import { ConversationList } from "./conversation_list.js";
import { messageText } from "./messages.js";
import { Search } from "./search.js";

const MAX_PREVIEW = 200;

export class Sidebar {
  #me;
  #users;
  #conversations;
  #loader;
  #drafts;
  #search;
  #list;
  #openId = null;

  /** `onOpen(id)` is called with the user whose conversation should be opened. */
  constructor({ me, users, conversations, loader, drafts, signal, onOpen }) {
    this.#me = me;
    this.#users = users;
    this.#conversations = conversations;
    this.#loader = loader;
    this.#drafts = drafts;
    const open = (id) => {
      this.#search.clear();
      onOpen(id);
    };
    this.#search = new Search({
      users,
      signal,
      onChange: () => this.render(),
      onFound: open,
      firstMatch: () => this.#matches[0]?.peer ?? null,
    });
    this.#list = new ConversationList({ signal, onOpen: open, onEnd: () => this.#loadOlder() });
  }

  /** The conversation that is open has this id; null if none is. */
  setOpen(id) {
    this.#openId = id;
    this.render();
  }

  focus(id = null) {
    if (id === null) this.#search.focus();
    else this.#list.focus(id);
  }

  render() {
    const matches = this.#matches;
    const peers = matches.map(({ peer }) => peer);
    const search = this.#search.text;
    const people = this.#search.people.filter((id) => !peers.includes(id));
    const names = [...peers, ...people].map((id) => this.#users.name(id).toLowerCase());
    this.#list.render({
      conversations: matches.map((conversation) => this.#describe(conversation)),
      people: people.map((id) => ({ id, name: this.#users.name(id) })),
      openId: this.#openId,
      search,
      canAsk: search !== "" && !names.includes(search.toLowerCase()),
      hasOlder: this.#loader.hasOlder,
    });
    for (const peer of peers) if (!this.#users.isKnown(peer)) this.#loadName(peer);
  }

  get #matches() {
    const isMatch = ({ peer }) => this.#search.matches(this.#users.name(peer));
    return this.#conversations.list().filter(isMatch);
  }

  #describe({ peer, last, unread }) {
    const draft = peer === this.#openId ? "" : this.#drafts.get(peer);
    const label = draft ? "Draft:" : last.sent_by === this.#me.id ? "You:" : "";
    const text = (draft || messageText(last)).slice(0, MAX_PREVIEW);
    const preview = { label, text, className: draft && "draft" };
    return { id: peer, name: this.#users.name(peer), unread, at: last.sent_at, preview };
  }

  async #loadName(peer) {
    await this.#users.load(peer);
    if (this.#users.isKnown(peer)) this.render();
  }

  async #loadOlder() {
    await this.#loader.loadOlder();
    this.render();
  }
}
