// A session with the client of openapi-typescript and openapi-fetch: `node session.js URL`.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

type Schemas = components["schemas"];

// Streams, which are of other media types, are read as such below.
type Media = "application/json" | "application/problem+json";

const baseUrl = process.argv[2];
const anonymous = createClient<paths, Media>({ baseUrl });

// The body of a response, which must not be an error.
function ok<T>({ data, error }: { data?: T; error?: unknown }): T {
  assert.equal(error, undefined);
  assert.notEqual(data, undefined);
  return data as T;
}

async function account(username: string) {
  const email = `${username}@example.org`;
  const password = "secret";
  const user = ok(
    await anonymous.POST("/api/v1/users", { body: { username, email, password } }),
  );
  const { token } = ok(
    await anonymous.POST("/api/v1/tokens", { body: { username, password, label: "generated" } }),
  );
  const headers = { Authorization: `Bearer ${token}` };
  return { user, client: createClient<paths, Media>({ baseUrl, headers }) };
}

const ann = await account("ann");
const bob = await account("bob");

// One path has several results, which their members tell apart.
const poll = async (query: NonNullable<paths["/api/v1/chats"]["get"]["parameters"]["query"]>) => {
  const found = ok(await bob.client.GET("/api/v1/chats", { params: { query } }));
  assert.ok("timed_out" in found.meta);
  return found as Schemas["Poll"];
};

const body = { user_id: bob.user.id, message: "hai" };
const once = { "Idempotency-Key": "one" };
const first = ok(await ann.client.POST("/api/v1/chats", { body, params: { header: once } }));
const again = await ann.client.POST("/api/v1/chats", { body, params: { header: once } });
assert.deepEqual(again.data, first);
assert.equal(again.response.headers.get("Idempotency-Replayed"), "true");

const page = ok(await bob.client.GET("/api/v1/chats", { params: { query: { page: 1 } } }));
assert.ok("next" in page.meta);
assert.equal(page.meta.count, 1);
const begun = await poll({ since: "0", wait: 0 });
assert.deepEqual(begun.messages.map((each) => each.message), ["hai"]);

// A poll that waits.
const held = poll({ since: begun.meta.cursor, wait: 20.5 });
const second = ok(
  await ann.client.POST("/api/v1/chats", {
    body: { user_id: bob.user.id, message: "how are you?" },
    params: { query: { wait_for: "delivered", wait: 0.5 } },
  }),
);
const came = await held;
assert.deepEqual(came.messages.map((each) => each.message), ["how are you?"]);
assert.ok((await poll({ since: came.meta.cursor, wait: 0.25 })).meta.timed_out);

const listed = ok(await bob.client.GET("/api/v1/conversations", {}));
assert.deepEqual(
  listed.conversations.map((each) => [each.username, each.unread, each.last_message.message]),
  [["ann", 2, "how are you?"]],
);
const read = { user_id: ann.user.id, seq: second.seq };
ok({ data: (await bob.client.PUT("/api/v1/conversations/read", { body: read })).response.ok });
const talk = ok(
  await ann.client.GET("/api/v1/chats", { params: { query: { with: bob.user.id } } }),
);
assert.ok("peer_read" in talk.meta);
assert.equal(talk.meta.peer_read, second.seq);

const { cursor } = (await poll({ since: "now", changes: true })).meta;
const edit = { user_id: bob.user.id, seq: first.seq, message: "hello" };
const edited = ok(await ann.client.PATCH("/api/v1/chats", { body: edit }));
assert.equal(edited.message, "hello");
const gone = await ann.client.DELETE("/api/v1/chats", {
  params: { query: { user_id: bob.user.id, seq: second.seq } },
});
assert.equal(gone.response.status, 204);
const changed = await poll({ since: cursor, changes: true, wait: 20 });
assert.deepEqual(
  // `type` decides which members a change has.
  changed.changes?.map((each) => (each.type === "changed" ? each.message.message : each)),
  ["hello", ""],
);

const nobody = await ann.client.POST("/api/v1/chats", { body: { user_id: 99, message: "hai" } });
assert.equal(nobody.data, undefined);
assert.equal(nobody.error?.code, "user_not_found");

const stream = await bob.client.GET("/api/v1/chats", {
  params: { query: { since: "0" } },
  headers: { Accept: "application/x-ndjson" },
  parseAs: "stream",
});
const lines = stream.data?.pipeThrough(new TextDecoderStream()).getReader();
let text = "";
while (text.split("\n").length < 4) text += (await lines?.read())?.value;
await lines?.cancel();
assert.equal(JSON.parse(text.split("\n")[1] ?? "").message.message, "hello");

const left = await ann.client.DELETE("/api/v1/tokens", {});
assert.equal(left.response.status, 204);
assert.equal((await ann.client.GET("/api/v1/tokens", {})).response.status, 401);
