// Calls of the public API: one request, one answer or one named error.

const BASE = "/api/v1";

/** The service refused: `code` is stable and for programs, `message` is for people. */
export class Refused extends Error {
  constructor(status, code, detail, retryAfter) {
    super(detail);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may succeed later. */
  get passing() {
    return [429, 502, 503, 504].includes(this.status);
  }
}

/** No answer of the service came: whether it acted on the request is not known. */
export class Unreachable extends Error {}

export class Api {
  constructor(token = null) {
    this.token = token;
  }

  /** The body of the answer and its `Retry-After`; aborted by `signal`, or after `seconds`. */
  async ask(method, path, { query = {}, body, key, signal, seconds = 20 } = {}) {
    const headers = { Accept: "application/json" };
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (key) headers["Idempotency-Key"] = key;
    const words = new URLSearchParams(query).toString();
    const limit = new AbortController();
    const stop = () => limit.abort();
    const timer = setTimeout(stop, seconds * 1000);
    signal?.addEventListener("abort", stop, { once: true });
    try {
      const response = await fetch(BASE + path + (words && `?${words}`), {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: limit.signal,
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
      });
      return await read(response);
    } catch (problem) {
      signal?.throwIfAborted();
      if (problem instanceof Refused) throw problem;
      throw new Unreachable(problem.message);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    }
  }
}

async function read(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || 0;
  if (response.status === 204) return { body: null, retryAfter };
  let body;
  try {
    body = await response.json();
  } catch (problem) {
    if (response.ok) throw problem; // cut short, or somebody else's page
    body = {};
  }
  if (response.ok) return { body, retryAfter };
  const detail = body.detail || body.title || `The service answered ${response.status}.`;
  throw new Refused(response.status, body.code || "", detail, retryAfter);
}
