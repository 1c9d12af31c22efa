# Needs nothing but Python. Programs on Twisted have more with chatd.client.
import json
import secrets
import urllib.request

API = "http://127.0.0.1:8080/api/v1"


def ask(method, path, body=None, token=None, **headers):
    """The JSON of the answer; raises urllib.error.HTTPError for an error."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    headers["Content-Type"] = "application/json"
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(API + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def account(name, password):
    """Register and log in: the account's id and a token."""
    email = f"{name}@example.org"
    ask("POST", "/users/", {"username": name, "email": email, "password": password})
    issued = ask("POST", "/tokens/", {"username": name, "password": password})
    return issued["user_id"], issued["token"]


ann, anns = account("ann", "zzzzz")
bob, bobs = account("bob", "yyyyy")

# One key for a message, kept when the request is repeated: it is stored once.
for text in ("hai", "how are you?"):
    message = {"user_id": ann, "message": text}
    ask("POST", "/chats/", message, bobs, Idempotency_Key=secrets.token_hex(16))

# The long poll: pass each cursor on, and nothing is lost or seen twice.
cursor, received = "0", 0
while received < 2:
    answer = ask("GET", f"/chats/?since={cursor}&wait=30", token=anns)
    cursor = answer["meta"]["cursor"]
    for message in answer["messages"]:
        received += 1
        print(message["seq"], message["sent_by"], message["message"])
