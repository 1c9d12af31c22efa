// The long poll: every message of the inbox once and in order, whatever happens to connections.
// The rules are those of docs/protocol.md; the cursor of each answer goes into the next request.

import { Refused } from "./api.js";
import { Backoff, pause } from "./backoff.js";

const WAIT_SECONDS = 30;
const LARGEST_ANSWER = 100;
const GRACE_SECONDS = 15;
const SHORTEST_WAIT = 5;

/**
 * Polls until `signal` aborts or the service refuses for good, which is thrown.
 *
 * `onMessages(messages)` gets what arrived, oldest first; `onState("online" | "offline")` how it
 * goes. A 410 is thrown too: the cursor is of another history, and the caller begins again.
 */
export async function follow({ api, cursor, signal, onMessages, onState }) {
  const failures = new Backoff();
  const hurries = new Backoff();
  let wait = WAIT_SECONDS;
  let limit = LARGEST_ANSWER;
  for (;;) {
    const began = performance.now();
    let answer;
    try {
      answer = await api.ask("GET", "/chats/", {
        query: { since: cursor, wait: Math.round(wait), limit },
        signal,
        seconds: wait + GRACE_SECONDS,
      });
    } catch (problem) {
      signal.throwIfAborted();
      const refused = problem instanceof Refused;
      if (refused && !problem.passing && problem.status < 500) throw problem;
      // A poll that was cut late was cut by something between: it gets shorter ones.
      const held = (performance.now() - began) / 1000;
      if (held >= SHORTEST_WAIT) wait = Math.max(SHORTEST_WAIT, Math.min(wait, held * 0.8));
      // On a bad line a long answer may never get through as a whole: a shorter one may.
      limit = Math.max(1, limit >> 1);
      onState("offline");
      await pause(failures.delay(refused ? problem.retryAfter : 0), signal);
      continue;
    }
    failures.reset();
    limit = Math.min(limit * 2, LARGEST_ANSWER);
    onState("online");
    const { meta, messages } = answer.body;
    cursor = meta.cursor;
    if (messages.length) onMessages(messages);
    if (messages.length || meta.timed_out) {
      hurries.reset();
      if (meta.timed_out) wait = Math.min(WAIT_SECONDS, wait * 1.05);
      if (answer.retryAfter) await pause(answer.retryAfter, signal);
    } else {
      // Empty and early: a stopping or overloaded server, or too many polls of one account.
      await pause(hurries.delay(answer.retryAfter), signal);
    }
  }
}
