// Renders the messages of a conversation.

import { byId, createElement } from "./dom.js";
import { clockTime, dayName, messageText } from "./format.js";
import { messageKey } from "./message_history.js";

const GROUP_MS = 5 * 60_000;
const AT_END_PIXELS = 80;

export class MessageList {
  #list = byId("messages");
  #scroller = byId("scroller");
  #newest = byId("newest");
  #rows = new Map();
  #pinned = true;

  constructor({ signal }) {
    this.#newest.addEventListener("click", () => this.scrollToEnd(), { signal });
    this.#scroller.addEventListener("scroll", () => this.#handleScroll(), { signal });
    // A keyboard on the screen or a longer draft leaves less room: the end stays visible.
    const observer = new ResizeObserver(() => this.#pinned && this.scrollToEnd());
    observer.observe(this.#scroller);
    signal.addEventListener("abort", () => observer.disconnect());
  }

  get isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight < AT_END_PIXELS;
  }

  scrollToEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#pinned = true;
    this.hideNewest();
  }

  /** Show a button that leads from older messages to the new ones. */
  offerNewest() {
    this.#newest.hidden = false;
  }

  hideNewest() {
    this.#newest.hidden = true;
  }

  /**
   * Show the messages, then those that are not sent yet.
   *
   * At the end the list stays at the end; elsewhere, what is in view stays in place. `added` are
   * the keys of the messages that have just arrived.
   */
  render({ messages, unsent, me, peerName, hasOlder, added }) {
    const wasAtEnd = this.isAtEnd;
    const anchor = this.#firstMessageInView();
    const offset = anchor?.offsetTop - this.#scroller.scrollTop;
    const items = [
      ...messages.map((message) => this.#messageItem(message, me, peerName)),
      ...unsent.map(unsentItem),
    ];
    const rows = this.#arrange(items);
    byId("load-older").hidden = !hasOlder;
    replaceRows(this.#list, rows);
    this.#rows = new Map(rows.map((row) => [row.dataset.key, row]));
    if (wasAtEnd) this.scrollToEnd();
    else if (anchor?.isConnected) this.#scroller.scrollTop = anchor.offsetTop - offset;
    for (const key of added) animateIn(this.#rows.get(key));
  }

  #handleScroll() {
    this.#pinned = this.isAtEnd;
    if (this.#pinned) this.hideNewest();
  }

  #messageItem(message, me, peerName) {
    const own = message.sent_by === me.id;
    return {
      key: messageKey(message),
      own,
      author: own ? "You" : peerName,
      text: messageText(message),
      date: new Date(message.sent_at),
      sentAt: message.sent_at,
      status: "sent",
      change: message.deleted_at ? "deleted" : message.edited_at ? "edited" : null,
    };
  }

  /** Rows in order: a heading for each day, and messages grouped by author and time. */
  #arrange(items) {
    const rows = [];
    let previous = null;
    for (const item of items) {
      const day = item.date.toDateString();
      if (previous?.day !== day) {
        rows.push(this.#row(`day ${day}`, dayName(item.date), dayRow));
        previous?.row.classList.add("last");
        previous = null;
      }
      const { author, text, status, sentAt, error, change } = item;
      const content = JSON.stringify([author, text, status, sentAt, error, change]);
      const row = this.#row(item.key, content, () => messageRow(item));
      const grouped = previous?.own === item.own && item.date - previous.date < GROUP_MS;
      if (!grouped) previous?.row.classList.add("last");
      row.classList.toggle("first", !grouped);
      row.classList.remove("last");
      rows.push(row);
      previous = { row, day, own: item.own, date: item.date };
    }
    previous?.row.classList.add("last");
    return rows;
  }

  /** The row that is already shown, unless its content has changed. */
  #row(key, content, create) {
    const shown = this.#rows.get(key);
    if (shown?.content === content) return shown;
    const row = create(content);
    row.dataset.key = key;
    row.content = content;
    return row;
  }

  #firstMessageInView() {
    const top = this.#scroller.scrollTop;
    const rows = this.#list.children;
    let [low, high] = [0, rows.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (rows[middle].offsetTop + rows[middle].offsetHeight <= top) low = middle + 1;
      else high = middle;
    }
    // The heading of a day moves when older messages of that day are inserted below it.
    return rows[low]?.classList.contains("day") ? rows[low + 1] : rows[low];
  }
}

function unsentItem(entry) {
  return {
    key: entry.key,
    own: true,
    author: "You",
    text: entry.text,
    date: new Date(entry.at),
    status: entry.failed ? "failed" : "pending",
    error: entry.failed,
  };
}

function dayRow(name) {
  return createElement("li", "day", name);
}

function messageRow(item) {
  const row = createElement("li", `message ${item.status}`);
  row.classList.toggle("own", item.own);
  if (item.change) row.classList.add(item.change);
  const bubble = createElement("div", "bubble", item.text);
  bubble.dir = "auto";
  const details = createElement("span", "details");
  if (item.status === "sent") {
    const time = createElement("time", "", clockTime(item.date));
    time.dateTime = item.sentAt;
    details.append(time);
    if (item.change === "edited") details.append(" · edited");
  } else if (item.status === "pending") details.append("Sending …");
  else details.append(`Not sent: ${item.error} `, ...failedActions(item.key));
  row.append(createElement("span", "visually-hidden", `${item.author}:`), bubble, details);
  return row;
}

function failedActions(key) {
  return [["retry", "Try again"], ["discard", "Discard"]].map(([action, label]) => {
    const button = createElement("button", "", label);
    button.type = "button";
    Object.assign(button.dataset, { action, key });
    return button;
  });
}

// Rows that remain are not touched, so that a screen reader announces only what is new.
function replaceRows(list, rows) {
  const wanted = new Set(rows);
  for (const row of [...list.children]) if (!wanted.has(row)) row.remove();
  let next = list.firstChild;
  for (const row of rows) {
    if (row === next) next = next.nextSibling;
    else list.insertBefore(row, next);
  }
}

function animateIn(row) {
  if (!row || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const hidden = { opacity: 0, transform: "translateY(6px)" };
  row.animate([hidden, { opacity: 1, transform: "none" }], { duration: 180, easing: "ease-out" });
}
