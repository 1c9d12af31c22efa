// One stay of one account: its conversations on the screen, kept up to date.

import { Api, Refused, Unreachable } from "./api.js";
import { pause } from "./backoff.js";
import { follow } from "./inbox_poll.js";
import { Outbox } from "./outbox.js";
import { People } from "./contacts.js";
import { forget } from "./storage.js";
import { Talk } from "./conversation.js";
import { byId, personRow, say, setFace, setName } from "./dom.js";

const CATCH_UP_PAGES = 2;
const WORDS = { connecting: "Connecting …", online: "Connected", offline: "Offline, trying again" };

/** From logging in to logging out; `leave(word)` is called at the end, with what to say. */
export class Stay {
  #ended = new AbortController();
  #state = "connecting";

  constructor(session, leave) {
    this.leave = leave;
    this.me = { id: session.user_id, username: session.username };
    this.api = new Api(session.token);
    const signal = this.#ended.signal;
    this.people = new People(this.api, this.me);
    this.outbox = new Outbox({
      api: this.api,
      signal,
      userId: this.me.id,
      onSent: (entry, message) => this.#sent(message),
      onFailed: (entry) => this.talk.peer === entry.to && this.talk.refresh(),
    });
    this.talk = new Talk({ api: this.api, me: this.me, outbox: this.outbox });
    const listen = (id, type, listener) =>
      byId(id).addEventListener(type, listener, { signal });
    listen("find-form", "submit", (event) => this.#find(event));
    listen("people", "click", (event) => this.#choose(event));
    listen("people", "keydown", (event) => this.#walk(event));
    listen("compose", "submit", (event) => this.#compose(event));
    listen("text", "keydown", (event) => this.#type(event));
    listen("text", "input", grow);
    listen("messages", "click", (event) => this.#onItsWay(event));
    listen("older", "click", () => this.#try(() => this.talk.showOlder()));
    listen("newest", "click", () => this.talk.toEnd());
    listen("scroller", "scroll", () => this.talk.atEnd && (byId("newest").hidden = true));
    listen("back", "click", () => this.closeTalk());
    listen("talk", "keydown", (event) => event.key === "Escape" && this.closeTalk());
    listen("logout", "click", () => this.logOut());
    addEventListener("offline", () => this.#show("offline"), { signal });
    // A conversation that was out of sight may have gone on in another window of this account.
    document.addEventListener("visibilitychange", () => this.#seen(), { signal });
    addEventListener("hashchange", () => this.#followHash(), { signal });
  }

  /** Show the account's conversations until it logs out. */
  async begin() {
    setFace(byId("my-face"), this.me.id, this.me.username);
    setName(byId("my-name"), this.me.username);
    byId("entry").hidden = true;
    byId("chat").hidden = false;
    this.#show("connecting");
    this.#draw();
    this.outbox.run();
    // On a phone the focus would bring up the keyboard, over the people.
    if (!this.#followHash() && !matchMedia("(pointer: coarse)").matches) byId("find").focus();
    try {
      for (;;) await this.#live();
    } catch (problem) {
      if (this.#ended.signal.aborted) return;
      if (problem instanceof Refused && problem.status === 401) {
        this.end();
        forget("session");
        this.leave("You were logged out.");
      } else throw problem;
    }
  }

  /** Read what there is, then follow from exactly there; returns if that has to begin again. */
  async #live() {
    const signal = this.#ended.signal;
    try {
      const cursor = await this.#catchUp();
      this.#show("online");
      if (this.talk.peer !== null) this.#try(() => this.talk.open(this.talk.peer));
      await follow({
        api: this.api,
        cursor,
        signal,
        onMessages: (messages) => this.#arrived(messages),
        onState: (state) => this.#show(state),
      });
    } catch (problem) {
      if (problem instanceof Refused && problem.code === "cursor_epoch") {
        this.people.startOver();
        return;
      }
      const passes = problem instanceof Unreachable || problem.passing || problem.status >= 500;
      if (!passes) throw problem;
      this.#show("offline");
      await pause(1 + Math.random() * 2 + (problem.retryAfter ?? 0), signal);
    }
  }

  async #catchUp() {
    const signal = this.#ended.signal;
    let cursor;
    const found = [];
    for (let page = 1; page <= CATCH_UP_PAGES; page += 1) {
      const query = { page, limit: 100, ...(cursor && { at: cursor }) };
      const { body } = await this.api.ask("GET", "/chats/", { query, signal });
      cursor = body.meta.cursor;
      found.push(...body.messages);
      if (body.meta.next === null) break;
    }
    for (const message of found.reverse()) this.people.note(message);
    this.#draw();
    return cursor;
  }

  #arrived(messages) {
    for (const message of messages) {
      const person = this.people.note(message);
      if (person.id === this.talk.peer) this.talk.add(message);
    }
    this.#seen();
  }

  #sent(message) {
    this.people.note(message);
    if (this.talk.peer === message.received_by) {
      this.talk.add(message);
      this.talk.refresh();
    }
    this.#draw();
  }

  /** What is on the screen counts as read. */
  #seen() {
    if (this.talk.peer !== null && !document.hidden) this.people.markRead(this.talk.peer);
    this.#draw();
  }

  #draw() {
    const people = this.people.list();
    const focused = document.activeElement?.dataset?.id;
    byId("people").replaceChildren(
      ...people.map((person) => personRow(person, person.id === this.talk.peer)),
    );
    if (focused) byId("people").querySelector(`[data-id="${focused}"]`)?.focus();
    byId("nobody").hidden = people.length > 0;
    const unread = this.people.unread;
    document.title = unread ? `(${unread}) chatd` : "chatd";
    for (const person of people) {
      if (person.name === null && !person.asked) {
        person.asked = true;
        this.people.name(person.id).then(() => this.#draw(), () => (person.asked = false));
      }
    }
  }

  #show(state) {
    if (state === "online" && this.#state === "offline" && this.talk.peer !== null) {
      // Also what was sent from elsewhere meanwhile.
      this.#try(() => this.talk.open(this.talk.peer));
    }
    this.#state = state;
    const status = byId("status");
    if (status.dataset.state === state && status.textContent === WORDS[state]) return;
    status.dataset.state = state;
    status.textContent = WORDS[state];
  }

  async #find(event) {
    event.preventDefault();
    const name = byId("find").value.trim();
    byId("find-error").textContent = "";
    if (!name) return;
    try {
      const { body } = await this.api.ask("GET", "/users/", { query: { username: name } });
      this.people.named(body.id, body.username);
      byId("find").value = "";
      this.openTalk(body.id);
    } catch (problem) {
      const unknown = problem.code === "user_not_found";
      byId("find-error").textContent = unknown ? `There is no ${name} here.` : say(problem);
    }
  }

  #choose(event) {
    const button = event.target.closest("button");
    if (button) this.openTalk(Number(button.dataset.id));
  }

  #walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...byId("people").querySelectorAll("button")];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    (next ?? (step < 0 ? byId("find") : null))?.focus();
  }

  openTalk(id) {
    if (location.hash === `#${id}`) this.#followHash();
    else location.hash = id;
  }

  closeTalk() {
    location.hash = "";
  }

  /** The address names the conversation, so that the browser's own back button works. */
  #followHash() {
    const id = Number(location.hash.slice(1));
    const previous = this.talk.peer;
    const open = Number.isSafeInteger(id) && id > 0;
    byId("chat").classList.toggle("in-talk", open);
    byId("talk-open").hidden = !open;
    byId("talk-empty").hidden = open;
    if (!open) {
      this.talk.close();
      this.#draw();
      (byId("people").querySelector(`[data-id="${previous}"]`) ?? byId("find")).focus();
      return false;
    }
    this.#openTalk(id);
    return true;
  }

  async #openTalk(id) {
    byId("talk-empty").hidden = true;
    setName(byId("peer-name"), "");
    const naming = this.people.name(id).then((name) => {
      if (this.talk.peer !== id) return;
      setName(byId("peer-name"), name);
      setFace(byId("peer-face"), id, name);
      this.talk.refresh();
    });
    byId("text").focus();
    await this.#try(() => Promise.all([naming, this.talk.open(id)]));
    this.#seen();
  }

  /** Do what needs the service; it says itself when that is away. */
  async #try(call) {
    try {
      await call();
    } catch (problem) {
      if (problem instanceof Unreachable || problem.passing) this.#show("offline");
      else if (problem.status !== 401 && !this.#ended.signal.aborted) throw problem;
    }
  }

  #compose(event) {
    event.preventDefault();
    const text = byId("text").value;
    if (!text.trim() || this.talk.peer === null) return;
    byId("text").value = "";
    grow();
    this.outbox.add(this.talk.peer, text);
    this.talk.refresh();
    this.talk.toEnd();
    byId("text").focus();
  }

  #type(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      byId("compose").requestSubmit();
    }
  }

  #onItsWay(event) {
    const { action, key } = event.target.dataset;
    if (!action) return;
    this.outbox[action](key);
    this.talk.refresh();
    byId("text").focus();
  }

  /** Revoke the token; afterwards this browser knows nothing of the account. */
  async logOut() {
    byId("logout").disabled = true;
    let word = "";
    try {
      await this.api.ask("DELETE", "/tokens/");
    } catch (problem) {
      if (problem.status !== 401) {
        word = "Logged out here, but the server could not be told: the token is still valid.";
      }
    }
    byId("logout").disabled = false;
    this.end();
    forget("session", `people.${this.me.id}`, `outbox.${this.me.id}`);
    this.leave(word);
  }

  /** Stop everything that goes on. */
  end() {
    this.#ended.abort();
    this.talk.close();
  }
}

function grow() {
  const text = byId("text");
  text.rows = Math.min(6, text.value.split("\n").length);
}
