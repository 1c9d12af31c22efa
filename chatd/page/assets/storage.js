// What the browser remembers; where it may not (private windows), the page works without.

const PREFIX = "chatd.";

export function kept(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function keep(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // Nothing is lost but convenience.
  }
}

export function forget(...names) {
  try {
    for (const name of names) localStorage.removeItem(PREFIX + name);
  } catch {
    // As above.
  }
}
