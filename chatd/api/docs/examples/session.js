// Needs fetch: a browser on chatd's own page, or a JavaScript runtime (save it as session.mjs).
const API = "http://127.0.0.1:8080/api/v1";

async function call(method, path, { body, token, key } = {}) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (key) headers["Idempotency-Key"] = key;
  const response = await fetch(API + path, { method, headers, body: JSON.stringify(body) });
  const result = await response.json();
  if (!response.ok) throw new Error(`${result.code}: ${result.detail}`);
  return result;
}

async function account(username, password) {
  const email = `${username}@example.org`;
  await call("POST", "/users/", { body: { username, email, password } });
  return call("POST", "/tokens/", { body: { username, password } });
}

const ann = await account("ann", "zzzzz");
const bob = await account("bob", "yyyyy");

// One key per message, the same if the request is repeated: the message is stored once.
for (const message of ["hai", "how are you?"]) {
  const key = String(Math.random());
  await call("POST", "/chats/", { body: { user_id: ann.user_id, message }, token: bob.token, key });
}

// The long poll: pass each cursor on, and nothing is lost or seen twice.
let cursor = "0";
const received = [];
while (received.length < 2) {
  const poll = await call("GET", `/chats/?since=${cursor}&wait=30`, { token: ann.token });
  cursor = poll.meta.cursor;
  for (const message of poll.messages) {
    received.push(message.message);
    console.log(message.seq, message.sent_by, message.message);
  }
}

// A stream: the same in one response without end, a JSON document on each line.
const headers = { Authorization: `Bearer ${ann.token}`, Accept: "application/x-ndjson" };
const stream = await fetch(`${API}/chats/?since=0`, { headers });
const reader = stream.body.pipeThrough(new TextDecoderStream()).getReader();
const streamed = [];
let rest = "";
while (streamed.length < 2) {
  const { value, done } = await reader.read();
  if (done) break;
  const lines = (rest + value).split("\n");
  rest = lines.pop();
  for (const line of lines) {
    const event = JSON.parse(line);
    if (event.message) streamed.push(event.message.message);
  }
}
await reader.cancel();
console.log(streamed);
