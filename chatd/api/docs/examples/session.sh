# Needs curl. Two accounts; Ann waits, Bob writes, Ann's poll is answered at once.
API=http://127.0.0.1:8080/api/v1
JSON='Content-Type: application/json'

curl -fsS "$API/users/" -H "$JSON" \
  -d '{"username": "ann", "email": "ann@example.org", "password": "zzzzz"}'
curl -fsS "$API/users/" -H "$JSON" \
  -d '{"username": "bob", "email": "bob@example.org", "password": "yyyyy"}'

# Get the end of Ann's inbox, then wait for messages after it.
field() { grep -o "\"$1\":[^,}]*" | cut -d : -f 2 | tr -d '"'; }
ANN=$(curl -fsS -u ann:zzzzz "$API/users/" | field id)
CURSOR=$(curl -fsS -u ann:zzzzz "$API/chats/?since=now" | field cursor)
curl -fsS -u ann:zzzzz "$API/chats/?since=$CURSOR&wait=30" &

# The key makes it safe to repeat the request: the message is stored once.
curl -fsS -u bob:yyyyy "$API/chats/" -H "$JSON" -H 'Idempotency-Key: example-1' \
  -d "{\"user_id\": $ANN, \"message\": \"hai\"}"
wait

# A stream has no end: here it is cut after two seconds, which curl reports as its status 28.
curl -fsN --max-time 2 -u ann:zzzzz -H 'Accept: text/event-stream' "$API/chats/?since=$CURSOR" ||
  [ $? -eq 28 ]
