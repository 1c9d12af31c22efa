// A client of chatd's HTTP API.

const BASE_PATH = "/api/v1";

/** The service refused a request: programs match on `code`, users read `message`. */
export class APIError extends Error {
  constructor(status, code, detail, retryAfter) {
    super(detail);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** There was no response, so the service may or may not have processed the request. */
export class NetworkError extends Error {}

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
  async request(method, path, { query = {}, body, idempotencyKey, signal, timeout = 20 } = {}) {
    signal?.throwIfAborted();
    const headers = { Accept: "application/json" };
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (idempotencyKey) headers["Idempotency-Key"] = idempotencyKey;
    const search = new URLSearchParams(query).toString();
    const controller = new AbortController();
    const abort = () => controller.abort();
    const timer = setTimeout(abort, timeout * 1000);
    signal?.addEventListener("abort", abort, { once: true });
    try {
      const response = await fetch(BASE_PATH + path + (search && `?${search}`), {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: controller.signal,
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
      });
      return await parseResponse(response);
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof APIError) throw error;
      throw new NetworkError(error.message);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
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
  const detail = body.detail || body.title || `The server responded with status ${response.status}.`;
  throw new APIError(response.status, body.code || "", detail, retryAfter);
}

/** Whether the same request may succeed later. */
export const isTemporary = (error) =>
  error instanceof NetworkError ||
  (error instanceof APIError && [429, 502, 503, 504].includes(error.status));

/** The text of an error, for the user. */
export function describeError(error) {
  return error instanceof NetworkError ? "The server cannot be reached right now." : error.message;
}
