# Needs only Python. Programs that use Twisted should use chatd.client instead.
import json
import secrets
import urllib.request

API = "http://127.0.0.1:8080/api/v1"


def call(method, path, body=None, token=None, **headers):
    """The decoded response; raises urllib.error.HTTPError for an error."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    headers["Content-Type"] = "application/json"
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(API + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def account(name, password):
    """Register and log in: the account's id and a token."""
    email = f"{name}@example.org"
    call("POST", "/users/", {"username": name, "email": email, "password": password})
    issued = call("POST", "/tokens/", {"username": name, "password": password})
    return issued["user_id"], issued["token"]


ann, anns = account("ann", "zzzzz")
bob, bobs = account("bob", "yyyyy")

# One key per message, the same if the request is repeated: the message is stored once.
for text in ("hai", "how are you?"):
    message = {"user_id": ann, "message": text}
    call("POST", "/chats/", message, bobs, Idempotency_Key=secrets.token_hex(16))

# The long poll: pass each cursor on, and nothing is lost or seen twice.
cursor, received = "0", 0
while received < 2:
    poll = call("GET", f"/chats/?since={cursor}&wait=30", token=anns)
    cursor = poll["meta"]["cursor"]
    for message in poll["messages"]:
        received += 1
        print(message["seq"], message["sent_by"], message["message"])

# A stream: the same in one response without end, a JSON document on each line.
request = urllib.request.Request(f"{API}/chats/?since=0")
request.add_header("Accept", "application/x-ndjson")
request.add_header("Authorization", f"Bearer {anns}")
with urllib.request.urlopen(request, timeout=40) as stream:
    for line in stream:
        event = json.loads(line)
        if "message" in event:
            cursor = event["cursor"]
            print(event["message"]["message"])
            if event["message"]["seq"] == received:
                break
