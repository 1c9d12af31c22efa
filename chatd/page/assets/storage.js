// JSON values in localStorage, or in memory where the browser does not allow that.

const PREFIX = "chatd.";
const memory = new Map();

export function load(name, fallback) {
  try {
    return JSON.parse(memory.get(name) ?? localStorage.getItem(PREFIX + name)) ?? fallback;
  } catch {
    return fallback;
  }
}

export function save(name, value) {
  const text = JSON.stringify(value);
  try {
    localStorage.setItem(PREFIX + name, text);
    memory.delete(name);
  } catch {
    memory.set(name, text); // forbidden, or full
  }
}

export function remove(...names) {
  for (const name of names) {
    memory.delete(name);
    try {
      localStorage.removeItem(PREFIX + name);
    } catch {
      // There is nothing to remove where storage is forbidden.
    }
  }
}

/** Names of the stored values that start with `prefix`. */
export function list(prefix) {
  let stored = [];
  try {
    stored = Object.keys(localStorage);
  } catch {
    // As above.
  }
  const names = stored.filter((key) => key.startsWith(PREFIX)).map((key) => key.slice(PREFIX.length));
  return [...new Set([...names, ...memory.keys()])].filter((name) => name.startsWith(prefix));
}

/** Move a value that was stored under a earlier name. */
export function rename(from, to) {
  const value = load(from, null);
  if (value !== null && load(to, null) === null) save(to, value);
  remove(from);
}
