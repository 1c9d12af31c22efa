/**
 * Parses server-sent events (WHATWG HTML, section 9.2) from chunks of bytes that end anywhere.
 *
 * `lastEventId` and `retry`, milliseconds, are those in force after the last complete event, also
 * where that had no data and is not returned.
 */
export class EventStreamParser {
  lastEventId = "";
  retry = null;
  #decoder = new TextDecoder();
  #line = "";
  #afterCarriageReturn = false;
  #type = "";
  #data = [];
  #id = null;

  /** Events that these bytes complete, as `{ type, data }`. */
  push(bytes) {
    const text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return [];
    // A line feed that belongs to the carriage return before it, which has ended the line.
    const start = this.#afterCarriageReturn && text[0] === "\n" ? 1 : 0;
    this.#afterCarriageReturn = text.endsWith("\r");
    const lines = (this.#line + text.slice(start)).split(/\r\n|\r|\n/);
    this.#line = lines.pop();
    return lines.map((line) => this.#take(line)).filter((event) => event !== null);
  }

  /** The event that a line completes, or null. */
  #take(line) {
    if (line === "") return this.#dispatch();
    const [, name, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
    if (name === "data") this.#data.push(value ?? "");
    else if (name === "event") this.#type = value ?? "";
    else if (name === "id" && !value?.includes("\0")) this.#id = value ?? "";
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
    return null;
  }

  #dispatch() {
    const event = { type: this.#type || "message", data: this.#data.join("\n") };
    const isEmpty = this.#data.length === 0;
    this.lastEventId = this.#id ?? this.lastEventId;
    this.#type = "";
    this.#data = [];
    this.#id = null;
    return isEmpty ? null : event;
  }
}
