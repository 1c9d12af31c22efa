// Elements of the page. Whatever people wrote goes through textContent, never through markup.

import { Unreachable } from "./api.js";

export const byId = (id) => document.getElementById(id);

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Show a name so that its letters cannot reorder what stands beside it. */
export function setName(target, name) {
  let isolated = target.querySelector("bdi");
  if (!isolated) target.append((isolated = element("bdi")));
  isolated.textContent = name;
}

export function setFace(target, id, name) {
  target.className = `face hue${id % 8}`;
  target.textContent = name.slice(0, 1);
}

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat([], { weekday: "long", day: "numeric", month: "long" });
const date = new Intl.DateTimeFormat([], { day: "numeric", month: "short" });
const dated = new Intl.DateTimeFormat([], { dateStyle: "full" });

const dayOf = (when) => when.toDateString();

export const clockTime = (when) => clock.format(when);

export function shortTime(when) {
  return dayOf(when) === dayOf(new Date()) ? clock.format(when) : date.format(when);
}

export function dayName(when) {
  const today = new Date();
  if (dayOf(when) === dayOf(today)) return "Today";
  const yesterday = new Date(today);
  yesterday.setDate(today.getDate() - 1);
  if (dayOf(when) === dayOf(yesterday)) return "Yesterday";
  return today - when < 300 * 86400_000 ? weekday.format(when) : dated.format(when);
}

export function personRow(person, current) {
  const button = element("button");
  button.type = "button";
  button.dataset.id = person.id;
  const name = person.name ?? `user ${person.id}`;
  const face = element("span");
  setFace(face, person.id, name);
  face.setAttribute("aria-hidden", "true");
  const label = element("span", "name");
  setName(label, name);
  const time = element("time", "time", person.at ? shortTime(new Date(person.at)) : "");
  if (person.at) time.dateTime = person.at;
  const last = element("bdi", "last", person.last || "No messages yet");
  const count = element("span", "count", person.unread.size || "");
  if (person.unread.size) {
    count.setAttribute("aria-label", `${person.unread.size} not read`);
    count.setAttribute("role", "img");
  }
  button.append(face, label, time, last, count);
  if (current) button.setAttribute("aria-current", "true");
  const row = element("li");
  row.append(button);
  return row;
}

/** What went wrong, for the one who reads it. */
export function say(problem) {
  if (problem instanceof Unreachable) return "The server cannot be reached just now.";
  return problem.message;
}
