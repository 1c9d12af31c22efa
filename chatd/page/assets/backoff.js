// Exponential backoff with full jitter.

const BASE_SECONDS = 0.25;
const MAX_SECONDS = 20;
const MAX_RETRY_AFTER_SECONDS = 300;

export class Backoff {
  #failures = 0;

  /** Seconds to pause after another failure, at least `Retry-After`. */
  nextDelay(retryAfter = 0) {
    const ceiling = Math.min(MAX_SECONDS, BASE_SECONDS * 2 ** Math.min(this.#failures, 10));
    this.#failures += 1;
    return Math.min(retryAfter, MAX_RETRY_AFTER_SECONDS) + Math.random() * ceiling;
  }

  reset() {
    this.#failures = 0;
  }
}
