/** A signal that aborts with another one, or with `reason` when the time of the last `set` is over. */
export class Deadline {
  #controller = new AbortController();
  #parent;
  #follow = () => this.#controller.abort(this.#parent.reason);
  #timer;

  /** Throws the reason of `parent`, which may be undefined, if that has aborted. */
  constructor(parent) {
    parent?.throwIfAborted();
    this.#parent = parent;
    parent?.addEventListener("abort", this.#follow, { once: true });
  }

  get signal() {
    return this.#controller.signal;
  }

  set(seconds, reason) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#controller.abort(reason), seconds * 1000);
  }

  /** Stop the time; abort what still uses the signal. */
  end() {
    clearTimeout(this.#timer);
    this.#parent?.removeEventListener("abort", this.#follow);
    this.#controller.abort();
  }
}
