// Makes the elements that show a message, a day, or where the new messages begin.

import { createButton, createElement, createIcon } from "./dom.js";
import { clockTime } from "./format.js";
import { linkify } from "./links.js";
import { messageKey, messageText } from "./messages.js";

const LONG_CHARACTERS = 1500;
const LONG_LINES = 25;
const MARK_TEXTS = { sent: "Sent", delivered: "Delivered", read: "Read" };

/** What is shown of a message that the service has. `content` is what needs another row. */
export function sentItem({ message, own, pending, author, mark, canChange, isNew }) {
  const isDeleted = Boolean(message.deleted_at);
  return {
    key: messageKey(message),
    own,
    author,
    text: pending || messageText(message),
    date: new Date(message.sent_at),
    status: pending === undefined ? "sent" : "changing",
    change: isDeleted ? "deleted" : message.edited_at ? "edited" : null,
    canChange: canChange && pending === undefined,
    mark,
    isNew,
  };
}

/** What is shown of an entry of the outbox. */
export function unsentItem(entry) {
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

export const dayRow = (name) => createElement("li", "day", name);

export const newRow = () => createElement("li", "new", "New messages");

export function messageRow(item) {
  const row = createElement("li", `message ${item.status}`);
  row.classList.toggle("own", item.own);
  if (item.change) row.classList.add(item.change);
  const bubble = createElement("div", "bubble");
  bubble.dir = "auto";
  bubble.append(...(item.change === "deleted" ? [item.text] : linkify(item.text)));
  const line = createElement("div", "line");
  if (item.canChange) line.append(actionsButton(item.key));
  line.append(bubble);
  row.append(createElement("span", "visually-hidden", `${item.author}:`), line);
  if (isLong(item.text)) row.append(expandButton(row));
  row.append(details(item));
  return row;
}

/** Show what became of a sent message. Only attributes change, so that nothing is announced. */
export function setMark(row, mark) {
  const element = row.querySelector(".mark");
  element.hidden = mark === null;
  if (mark === null || element.dataset.mark === mark) return;
  element.dataset.mark = mark;
  element.title = MARK_TEXTS[mark];
  element.setAttribute("aria-label", MARK_TEXTS[mark]);
}

function details(item) {
  const element = createElement("span", "details");
  if (item.status === "failed") {
    element.append(`Not sent: ${item.error} `, ...failedActions(item.key));
    return element;
  }
  if (item.status === "pending") element.append("Sending …");
  else if (item.status === "changing") element.append("Saving …");
  else {
    const time = createElement("time", "", clockTime(item.date));
    time.dateTime = item.date.toISOString();
    element.append(item.change === "edited" ? "edited " : "", time);
    if (item.own) element.append(markElement());
  }
  return element;
}

function markElement() {
  const mark = createElement("span", "mark");
  mark.setAttribute("role", "img");
  mark.append(createIcon("marks"));
  return mark;
}

function actionsButton(key) {
  const button = createButton("actions");
  button.setAttribute("aria-label", "Message options");
  button.setAttribute("aria-haspopup", "menu");
  button.dataset.key = key;
  button.append(createIcon("more"));
  return button;
}

const isLong = (text) => text.length > LONG_CHARACTERS || text.split("\n").length > LONG_LINES;

function expandButton(row) {
  row.classList.add("long");
  const button = createButton("expand", "Show all");
  button.addEventListener("click", () => {
    row.classList.remove("long");
    button.remove();
  });
  return button;
}

function failedActions(key) {
  const actions = [["retry", "Try again"], ["rewrite", "Edit"], ["discard", "Discard"]];
  return actions.map(([action, label]) => {
    const button = createButton("", label);
    Object.assign(button.dataset, { action, key });
    return button;
  });
}
