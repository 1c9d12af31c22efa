// Times in the user's language, and numbers of unread messages.

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat([], { weekday: "long", day: "numeric", month: "long" });
const shortDate = new Intl.DateTimeFormat([], { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "short" });
const fullDate = new Intl.DateTimeFormat([], { dateStyle: "full" });

const RECENT_MS = 300 * 86_400_000;

const isSameDay = (one, other) => one.toDateString() === other.toDateString();

export const clockTime = (date) => clock.format(date);

/** The time of a message of today, the day of an older one. */
export function shortTime(date) {
  return (isSameDay(date, new Date()) ? clock : shortDate).format(date);
}

/** "Today", "Yesterday", or a date. */
export function dayName(date) {
  const today = new Date();
  if (isSameDay(date, today)) return "Today";
  const yesterday = new Date(today);
  yesterday.setDate(today.getDate() - 1);
  if (isSameDay(date, yesterday)) return "Yesterday";
  return (today - date < RECENT_MS ? weekday : fullDate).format(date);
}

/** The day and time of something that may be long ago. */
export const dateTime = (date) => (isSameDay(date, new Date()) ? clock : full).format(date);

/** A number of unread messages; the service counts up to 100. */
export const countText = (count) => (count < 100 ? String(count) : "99+");
