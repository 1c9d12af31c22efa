// State of the connection to the service, and the moments at which failed requests are retried.

import { isTemporary } from "./api.js";
import { Backoff } from "./backoff.js";

const SUSPENDED_SECONDS = 3600;

/** A request was cancelled so that it is repeated at once on a fresh connection. */
export class Interrupted extends Error {}

/**
 * Runs requests that are repeated until they succeed, and the pauses between their attempts.
 *
 * `state` is "connecting", "online" or "offline"; `onState(state, previous)` is called on changes.
 * When the browser's network changes or the page becomes visible again, open requests are
 * interrupted, since their connections may be dead without any sign of it, and pauses end.
 */
export class Connection {
  #signal;
  #onState;
  #state = "connecting";
  #requests = new Map();
  #pauses = new Set();
  #suspended = false;

  constructor({ signal, onState }) {
    this.#signal = signal;
    this.#onState = onState;
    addEventListener("online", () => this.#retry(), { signal });
    addEventListener("offline", () => this.#retry(), { signal });
    addEventListener("pagehide", () => this.#setSuspended(true), { signal });
    addEventListener("pageshow", () => this.#setSuspended(false), { signal });
    const handleVisibility = () => (document.hidden ? this.#handleHidden() : this.#retry());
    document.addEventListener("visibilitychange", handleVisibility, { signal });
  }

  get state() {
    return this.#state;
  }

  setState(state) {
    const previous = this.#state;
    if (state === previous) return;
    this.#state = state;
    // Failed requests are retried now instead of after their pause.
    if (state === "online") this.#endPauses();
    this.#onState(state, previous);
  }

  /**
   * Await `call(signal)`; throws `Interrupted` if it should be repeated at once, in case of
   * `onlyVisible` also because the page has been hidden.
   */
  async attempt(call, { onlyVisible = false } = {}) {
    this.#signal.throwIfAborted();
    while (this.#suspended) await this.pause(SUSPENDED_SECONDS);
    const controller = new AbortController();
    const abort = () => controller.abort(this.#signal.reason);
    this.#signal.addEventListener("abort", abort, { once: true });
    this.#requests.set(controller, { onlyVisible });
    try {
      return await call(controller.signal);
    } finally {
      this.#requests.delete(controller);
      this.#signal.removeEventListener("abort", abort);
    }
  }

  /** Repeat `call(signal)` until it succeeds; throws errors that are not `retryable`. */
  async untilSuccess(call, retryable = isTemporary) {
    const backoff = new Backoff();
    for (;;) {
      try {
        return await this.attempt(call);
      } catch (error) {
        if (error instanceof Interrupted) backoff.reset();
        else if (retryable(error)) await this.pause(backoff.nextDelay(error.retryAfter));
        else throw error;
      }
    }
  }

  /** Resolves after `seconds`, or earlier when an attempt is likely to succeed. */
  pause(seconds) {
    return new Promise((resolve, reject) => {
      const settle = (callback) => () => {
        clearTimeout(timer);
        this.#pauses.delete(end);
        this.#signal.removeEventListener("abort", abort);
        callback(this.#signal.reason);
      };
      const end = settle(resolve);
      const abort = settle(reject);
      const timer = setTimeout(end, seconds * 1000);
      this.#pauses.add(end);
      this.#signal.addEventListener("abort", abort, { once: true });
      if (this.#signal.aborted) abort();
    });
  }

  // The browser may cache a page for its back button; such a page must not hold a poll.
  #setSuspended(suspended) {
    if (suspended === this.#suspended) return;
    this.#suspended = suspended;
    this.#retry();
  }

  #handleHidden() {
    for (const [controller, { onlyVisible }] of this.#requests) {
      if (onlyVisible) controller.abort(new Interrupted());
    }
  }

  #retry() {
    for (const controller of this.#requests.keys()) controller.abort(new Interrupted());
    this.#endPauses();
  }

  #endPauses() {
    for (const end of [...this.#pauses]) end();
  }
}
