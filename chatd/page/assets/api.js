// A client of chatd's HTTP API.

import { Deadline } from "./deadline.js";

const BASE_PATH = "/api/v1";
const FIRST_BYTES_SECONDS = 5;
const SILENCE_SECONDS = 40;

/** The service refused a request: programs match on `code`, users read `message`. */
export class APIError extends Error {
  constructor(status, code, detail, retryAfter = 0) {
    super(detail);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** There was no response, so the service may or may not have processed the request. */
export class NetworkError extends Error {}

/** The response to a request for a stream was none, or something on the way retains it. */
export class NotStreaming extends Error {}

export class APIClient {
  constructor(token = null) {
    this.token = token;
  }

  /**
   * Send a request; returns `{ body, retryAfter }`.
   *
   * Throws `APIError`, `NetworkError` (also after `timeout` seconds), or the reason of `signal`
   * when that aborts.
   */
  async request(method, path, { query, body, idempotencyKey, signal, timeout = 20 } = {}) {
    const headers = { Accept: "application/json" };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (idempotencyKey) headers["Idempotency-Key"] = idempotencyKey;
    const deadline = new Deadline(signal);
    deadline.set(timeout, new NetworkError("The server did not respond in time."));
    try {
      const content = body === undefined ? undefined : JSON.stringify(body);
      const options = { method, headers, body: content, signal: deadline.signal };
      return await parseResponse(await this.#fetch(path, query, options));
    } catch (error) {
      throw causeOf(error, deadline.signal);
    } finally {
      deadline.end();
    }
  }

  /**
   * Yields the bytes of a stream of server-sent events as they arrive, until it ends.
   *
   * Throws what `request` throws, and `NotStreaming`. Servers send their first bytes at once and
   * a comment every 15 seconds, so silence means that the connection is lost: `NetworkError`.
   */
  async *stream(path, { query, signal }) {
    const deadline = new Deadline(signal);
    deadline.set(FIRST_BYTES_SECONDS, new NotStreaming());
    try {
      const headers = { Accept: "text/event-stream" };
      const response = await this.#fetch(path, query, { headers, signal: deadline.signal });
      if (!response.ok) await parseResponse(response);
      if (!isEventStream(response)) throw new NotStreaming();
      const reader = response.body.getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        deadline.set(SILENCE_SECONDS, new NetworkError("The stream was silent."));
        yield value;
      }
    } catch (error) {
      throw causeOf(error, deadline.signal);
    } finally {
      deadline.end();
    }
  }

  #fetch(path, query, options) {
    const search = new URLSearchParams(query).toString();
    if (this.token) options.headers.Authorization = `Bearer ${this.token}`;
    return fetch(BASE_PATH + path + (search && `?${search}`), {
      ...options,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  }
}

async function parseResponse(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || 0;
  if (response.status === 204) return { body: null, retryAfter };
  let body;
  try {
    body = await response.json();
  } catch (error) {
    if (response.ok) throw error; // truncated, or not from chatd
    body = {};
  }
  if (response.ok) return { body, retryAfter };
  throw errorOf(response.status, body, retryAfter);
}

/** The error that a problem document describes. */
export function errorOf(status, problem, retryAfter = 0) {
  const detail = problem.detail || problem.title || `The server responded with status ${status}.`;
  return new APIError(status, problem.code || "", detail, retryAfter);
}

const isEventStream = ({ headers, body }) =>
  Boolean(body) && /^text\/event-stream\b/i.test(headers.get("Content-Type") ?? "");

/** What made a request fail with `error`. */
function causeOf(error, signal) {
  if (signal.aborted) return signal.reason;
  if (error instanceof APIError || error instanceof NotStreaming) return error;
  return new NetworkError(error.message);
}

/** Whether the same request may succeed later. */
export const isTemporary = (error) =>
  error instanceof NetworkError ||
  (error instanceof APIError && [408, 429, 502, 503, 504].includes(error.status));
