// Renders the messages of a conversation, and keeps the place where the user reads.

import { byId } from "./dom.js";
import { countText, dayName } from "./format.js";
import { dayRow, messageRow, newRow, sentItem, setMark, unsentItem } from "./message_row.js";

const GROUP_MS = 5 * 60_000;
const AT_END_PIXELS = 80;
const ABOVE_NEW_PIXELS = 16;

export class MessageList {
  #list = byId("messages");
  #scroller = byId("scroller");
  #onEnd;
  #rows = new Map();
  #pinned = true;

  /** `onEnd()` is called when the user has scrolled to the end. */
  constructor({ signal, onEnd }) {
    this.#onEnd = onEnd;
    const goToEnd = () => {
      this.scrollToEnd();
      this.#onEnd();
    };
    byId("newest").addEventListener("click", goToEnd, { signal });
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
    this.#updatePosition();
  }

  /** Scroll to where the new messages begin; to the end if there are none. */
  scrollToNew() {
    const first = this.#rows.get("new");
    if (!first) return this.scrollToEnd();
    this.#scroller.scrollTop = first.offsetTop - ABOVE_NEW_PIXELS;
    this.#updatePosition();
  }

  /**
   * Show the messages, as `sentItem` takes them, then those that are not sent yet.
   *
   * At the end the list stays at the end if `follow`; elsewhere, what is in view stays in place.
   * `added` are the keys of the messages that have just arrived, `unread` the number of those that
   * the user has not seen.
   */
  render({ messages, unsent, peerName, isLoaded, hasOlder, unread, added, follow }) {
    const wasAtEnd = this.isAtEnd;
    const anchor = this.#firstMessageInView();
    const offset = anchor?.offsetTop - this.#scroller.scrollTop;
    const rows = this.#arrange([...messages.map(sentItem), ...unsent.map(unsentItem)]);
    byId("load-older").hidden = !hasOlder;
    byId("beginning").hidden = !isLoaded || hasOlder;
    byId("beginning").textContent = rows.length
      ? `The beginning of your conversation with ${peerName}.`
      : "No messages yet.";
    this.#list.hidden = rows.length === 0;
    replaceRows(this.#list, rows);
    this.#rows = new Map(rows.map((row) => [row.dataset.key, row]));
    if (wasAtEnd && follow) this.scrollToEnd();
    else if (anchor?.isConnected) this.#scroller.scrollTop = anchor.offsetTop - offset;
    byId("newest-text").textContent = newestText(unread);
    this.#updatePosition();
    for (const key of added) animateIn(this.#rows.get(key));
  }

  #handleScroll() {
    const wasAtEnd = this.#pinned;
    this.#updatePosition();
    if (this.#pinned && !wasAtEnd) this.#onEnd();
  }

  #updatePosition() {
    this.#pinned = this.isAtEnd;
    byId("newest").hidden = this.#pinned;
  }

  /** Rows in order: headings for each day and for the new messages, and groups by author and time. */
  #arrange(items) {
    const rows = [];
    let previous = null;
    const endGroup = () => {
      previous?.row.classList.add("last");
      previous = null;
    };
    let day = null;
    let hasNew = false;
    for (const item of items) {
      if (item.date.toDateString() !== day) {
        endGroup();
        day = item.date.toDateString();
        rows.push(this.#row(`day ${day}`, dayName(item.date), dayRow));
      }
      if (item.isNew && !hasNew) {
        endGroup();
        hasNew = true;
        rows.push(this.#row("new", "", newRow));
      }
      const { own, mark } = item;
      const isGrouped = previous?.own === own && item.date - previous.date < GROUP_MS;
      if (!isGrouped) endGroup();
      else if (previous.mark !== mark) previous.row.classList.add("last");
      const row = this.#messageRow(item);
      row.classList.toggle("first", !isGrouped);
      row.classList.remove("last");
      rows.push(row);
      previous = { row, own, mark, date: item.date };
    }
    endGroup();
    return rows;
  }

  #messageRow(item) {
    const { mark, date, isNew, ...content } = item;
    const row = this.#row(item.key, JSON.stringify([content, date]), () => messageRow(item));
    if (item.own && item.status === "sent") setMark(row, mark);
    return row;
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

function newestText(unread) {
  if (unread === 0) return "Newest messages";
  return unread === 1 ? "1 new message" : `${countText(unread)} new messages`;
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
