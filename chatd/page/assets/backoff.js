// Waiting before the next try: exponential with full jitter, ended early when there is reason to.

const BASE_SECONDS = 0.25;
const CAP_SECONDS = 20;

export class Backoff {
  #failures = 0;

  /** Seconds to wait after one more failure, never less than the service asked for. */
  delay(retryAfter = 0) {
    const ceiling = Math.min(CAP_SECONDS, BASE_SECONDS * 2 ** Math.min(this.#failures, 10));
    this.#failures += 1;
    return Math.min(retryAfter, 300) + Math.random() * ceiling;
  }

  reset() {
    this.#failures = 0;
  }
}

/** Resolves after `seconds`, or as soon as the browser says that it is online again. */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const end = (settle) => () => {
      clearTimeout(timer);
      removeEventListener("online", wake);
      signal?.removeEventListener("abort", abort);
      settle(signal?.reason);
    };
    const wake = end(resolve);
    const abort = end(reject);
    const timer = setTimeout(wake, seconds * 1000);
    addEventListener("online", wake);
    if (signal?.aborted) abort();
    else signal?.addEventListener("abort", abort);
  });
}
