// Renders the contacts, and moves the focus among them.

import { byId, createElement, setAvatar, setName } from "./dom.js";
import { shortTime } from "./format.js";

export class ContactList {
  #list = byId("contacts");

  /** `onOpen(id)` is called when a contact is chosen. */
  constructor({ signal, onOpen }) {
    const open = (event) => {
      const button = event.target.closest("button");
      if (button) onOpen(Number(button.dataset.id));
    };
    this.#list.addEventListener("click", open, { signal });
    this.#list.addEventListener("keydown", (event) => this.#handleKey(event), { signal });
  }

  render(contacts, openId) {
    const focused = document.activeElement?.closest("#contacts button")?.dataset.id;
    this.#list.replaceChildren(
      ...contacts.map((contact) => contactRow(contact, contact.id === openId)),
    );
    if (focused) this.focus(focused);
    byId("no-contacts").hidden = contacts.length > 0;
  }

  /** Focus a contact; the field for usernames if there is no such contact. */
  focus(id) {
    (this.#list.querySelector(`[data-id="${id}"]`) ?? byId("new-name")).focus();
  }

  #handleKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...this.#list.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    (next ?? (step < 0 ? byId("new-name") : null))?.focus();
  }
}

function contactRow(contact, isOpen) {
  const button = createElement("button");
  button.type = "button";
  button.dataset.id = contact.id;
  if (isOpen) button.setAttribute("aria-current", "true");
  const displayName = contact.name ?? `user ${contact.id}`;
  const avatar = createElement("span");
  setAvatar(avatar, contact.id, displayName);
  avatar.setAttribute("aria-hidden", "true");
  const name = createElement("span", "name");
  setName(name, displayName);
  const time = createElement("time", "time", contact.at ? shortTime(new Date(contact.at)) : "");
  if (contact.at) time.dateTime = contact.at;
  const last = createElement("bdi", "last", contact.last || "No messages yet");
  button.append(avatar, name, time, last, unreadBadge(contact.unread.size));
  const row = createElement("li");
  row.append(button);
  return row;
}

function unreadBadge(count) {
  const badge = createElement("span", "unread", count || "");
  if (count) {
    badge.setAttribute("aria-label", `${count} unread`);
    badge.setAttribute("role", "img");
  }
  return badge;
}
