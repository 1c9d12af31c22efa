// The open conversation: its messages, those on their way, older ones on demand.

import { byId, clockTime, dayName, element } from "./dom.js";

const PAGE = 50;
const GROUP_MS = 5 * 60_000;
const NEAR_END_PIXELS = 80;

const keyOf = (message) => `${message.received_by}.${message.seq}`;

export class Talk {
  #api;
  #me;
  #outbox;
  #shown = [];
  #keys = new Set();
  #older = null;
  #opening = 0;
  #list = byId("messages");
  #scroller = byId("scroller");

  constructor({ api, me, outbox }) {
    this.#api = api;
    this.#me = me;
    this.#outbox = outbox;
    this.peer = null;
  }

  /** Show what was said with `peer`; false if another conversation was opened meanwhile. */
  async open(peer) {
    const opening = ++this.#opening;
    if (this.peer !== peer) this.#reset();
    this.peer = peer;
    this.#draw();
    let answer;
    try {
      answer = await this.#ask({});
    } catch (problem) {
      if (problem.code !== "user_not_found") throw problem;
      answer = { messages: [], meta: { older: null } };
    }
    if (opening !== this.#opening) return false;
    // What arrived while the answer was under way is newer than what it holds.
    const arrived = this.#shown;
    this.#reset();
    this.#older = answer.meta.older;
    for (const message of answer.messages.reverse()) this.#insert(message);
    for (const message of arrived) this.#insert(message);
    this.#draw();
    this.toEnd();
    return true;
  }

  close() {
    this.#opening += 1;
    this.peer = null;
    this.#reset();
  }

  /** A message that belongs here has come or was sent. */
  add(message) {
    if (!this.#insert(message)) return;
    const end = this.atEnd;
    this.#draw(keyOf(message));
    if (end || message.sent_by === this.#me.id) this.toEnd();
    else byId("newest").hidden = false;
  }

  /** What is on its way has changed. */
  refresh() {
    const end = this.atEnd;
    this.#draw();
    if (end) this.toEnd();
  }

  async showOlder() {
    if (!this.#older) return;
    const opening = this.#opening;
    const before = this.#older;
    const answer = await this.#ask({ before });
    if (opening !== this.#opening || before !== this.#older) return;
    this.#older = answer.meta.older;
    const older = answer.messages.reverse().filter((message) => !this.#keys.has(keyOf(message)));
    for (const message of older) this.#keys.add(keyOf(message));
    this.#shown = [...older, ...this.#shown];
    const fromEnd = this.#scroller.scrollHeight - this.#scroller.scrollTop;
    this.#draw();
    this.#scroller.scrollTop = this.#scroller.scrollHeight - fromEnd;
  }

  get atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR_END_PIXELS;
  }

  toEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    byId("newest").hidden = true;
  }

  async #ask(more) {
    const query = { with: this.peer, limit: PAGE, ...more };
    return (await this.#api.ask("GET", "/chats/", { query })).body;
  }

  #reset() {
    this.#shown = [];
    this.#keys.clear();
    this.#older = null;
    byId("newest").hidden = true;
  }

  #insert(message) {
    const key = keyOf(message);
    if (this.#keys.has(key)) return false;
    this.#keys.add(key);
    this.#shown.push(message);
    return true;
  }

  #draw(fresh) {
    byId("older").hidden = !this.#older;
    const rows = [];
    let before = null;
    const waiting = this.#outbox.to(this.peer).map((entry) => ({
      sent_by: this.#me.id, message: entry.text, sent_at: entry.at, entry,
    }));
    for (const message of [...this.#shown, ...waiting]) {
      const when = new Date(message.sent_at);
      if (!before || dayName(before.when) !== dayName(when)) {
        const day = element("li", "day", dayName(when));
        day.dataset.key = `day ${when.toDateString()}`;
        rows.push(day);
        before?.row.classList.add("last");
        before = null;
      }
      const row = this.#row(message, when);
      const joins = before && before.by === message.sent_by && when - before.when < GROUP_MS;
      if (!joins) {
        before?.row.classList.add("last");
        row.classList.add("first");
      }
      rows.push(row);
      before = { row, when, by: message.sent_by };
    }
    before?.row.classList.add("last");
    reconcile(this.#list, rows);
    if (fresh) appear(rows.find((row) => row.dataset.key === fresh));
  }

  #row(message, when) {
    const mine = message.sent_by === this.#me.id;
    const row = element("li", mine ? "said mine" : "said");
    row.append(element("span", "unseen", mine ? "You:" : `${byId("peer-name").textContent}:`));
    const bubble = element("div", "bubble", message.message);
    bubble.dir = "auto";
    row.append(bubble);
    const note = element("span", "when");
    if (message.entry) this.#onItsWay(row, note, message.entry);
    else {
      const time = element("time", "", clockTime(when));
      time.dateTime = message.sent_at;
      note.append(time);
    }
    row.append(note);
    row.dataset.key = message.entry ? message.entry.key : keyOf(message);
    return row;
  }

  #onItsWay(row, note, entry) {
    note.classList.add("loud");
    if (!entry.failed) {
      row.classList.add("waiting");
      note.textContent = "Sending …";
      return;
    }
    row.classList.add("failed");
    note.append(`Not sent: ${entry.failed} `);
    for (const [action, label] of [["retry", "Try again"], ["drop", "Discard"]]) {
      const button = element("button", "", label);
      button.type = "button";
      button.dataset.action = action;
      button.dataset.key = entry.key;
      note.append(button);
    }
  }
}

// Rows stay in place when they are the same message: a screen reader hears what is new, only that.
function reconcile(list, rows) {
  const present = new Map([...list.children].map((row) => [row.dataset.key, row]));
  const wanted = new Set(rows.map((row) => row.dataset.key));
  for (const [key, row] of present) if (!wanted.has(key)) row.remove();
  let at = list.firstChild;
  for (const row of rows) {
    const there = present.get(row.dataset.key);
    if (there && there === at) {
      at = at.nextSibling;
      update(there, row);
    } else if (there) {
      list.insertBefore(there, at);
      update(there, row);
    } else list.insertBefore(row, at);
  }
}

function update(there, row) {
  there.className = row.className;
  if (there.textContent !== row.textContent) there.replaceChildren(...row.childNodes);
}

function appear(row) {
  if (!row || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const hidden = { opacity: 0, transform: "translateY(6px)" };
  row.animate([hidden, { opacity: 1, transform: "none" }], { duration: 180, easing: "ease-out" });
}
