// Renders the list of conversations and of people that were searched for, and moves the focus in it.

import { byId, createButton, createElement, setAvatar, setName } from "./dom.js";
import { countText, shortTime } from "./format.js";

export class ConversationList {
  #list = byId("conversations");
  #people = byId("found-people");
  #scroller = byId("list-scroller");

  /** `onOpen(id)` is called when somebody is chosen, `onEnd()` when the end is in view. */
  constructor({ signal, onOpen, onEnd }) {
    const open = (event) => {
      const button = event.target.closest("li button");
      if (button) onOpen(Number(button.dataset.id));
    };
    this.#scroller.addEventListener("click", open, { signal });
    this.#scroller.addEventListener("keydown", (event) => this.#handleKey(event), { signal });
    byId("search").addEventListener("keydown", (event) => this.#handleKey(event), { signal });
    byId("more-conversations").addEventListener("click", onEnd, { signal });
    const observer = new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && onEnd());
    observer.observe(byId("more-conversations"));
    signal.addEventListener("abort", () => observer.disconnect());
  }

  /**
   * Show conversations as `{ id, name, preview, at, unread }`, and people as `{ id, name }`.
   *
   * `search` is the text that both were searched for; `canAsk` if a user of that name may exist.
   */
  render({ conversations, people, openId, search, canAsk, hasOlder }) {
    const focused = document.activeElement?.closest("#list-scroller li button")?.dataset.id;
    const rows = conversations.map((each) => conversationRow(each, each.id === openId));
    const current = focused ?? String(openId);
    const buttons = rows.map((row) => row.firstChild);
    // One of them can be reached with Tab, the others with arrow keys.
    const reachable = buttons.find((button) => button.dataset.id === current) ?? buttons[0];
    for (const button of buttons) button.tabIndex = button === reachable ? 0 : -1;
    this.#list.replaceChildren(...rows);
    this.#people.replaceChildren(...people.map(personRow));
    if (focused) this.focus(focused);
    byId("people").hidden = !search;
    byId("find-person").hidden = !canAsk;
    byId("find-person").textContent = `Write to “${search}”`;
    byId("no-conversations").hidden = conversations.length > 0 || Boolean(search);
    byId("more-conversations").hidden = !hasOlder || Boolean(search);
  }

  /** Focus a conversation; the field for the search if there is no such conversation. */
  focus(id) {
    (this.#scroller.querySelector(`li [data-id="${id}"]`) ?? byId("search")).focus();
  }

  #handleKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const all = [...this.#scroller.querySelectorAll("button")];
    const buttons = all.filter((button) => button.checkVisibility());
    const at = buttons.indexOf(document.activeElement);
    const target = {
      ArrowDown: buttons[at + 1],
      ArrowUp: at > 0 ? buttons[at - 1] : byId("search"),
      Home: at >= 0 ? buttons[0] : null,
      End: at >= 0 ? buttons.at(-1) : null,
    }[event.key];
    if (!target) return;
    event.preventDefault();
    target.focus();
  }
}

function conversationRow({ id, name, preview, at, unread }, isOpen) {
  const button = personButton(id, name);
  if (isOpen) button.setAttribute("aria-current", "true");
  const time = createElement("time", "time", shortTime(new Date(at)));
  time.dateTime = at;
  const last = createElement("span", "last");
  if (preview.label) last.append(createElement("span", preview.className, preview.label), " ");
  last.append(createElement("bdi", "", preview.text));
  button.append(time, last, unreadBadge(unread));
  return listItem(button);
}

const personRow = ({ id, name }) => listItem(personButton(id, name));

function personButton(id, displayName) {
  const button = createButton();
  button.dataset.id = id;
  const avatar = createElement("span");
  setAvatar(avatar, id, displayName);
  avatar.setAttribute("aria-hidden", "true");
  const name = createElement("span", "name");
  setName(name, displayName);
  button.append(avatar, name);
  return button;
}

function listItem(button) {
  const item = createElement("li");
  item.append(button);
  return item;
}

function unreadBadge(count) {
  const text = count ? countText(count) : "";
  const badge = createElement("span", "unread", text);
  if (count) {
    badge.setAttribute("aria-label", `${text} unread`);
    badge.setAttribute("role", "img");
  }
  return badge;
}
