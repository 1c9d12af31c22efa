"""The same API on plain twisted.web and Klein, for comparison with chatd.

Sends, pages, the long poll and the stream on the tables of a chatd database: SQLite with
`synchronous=FULL`, group commit in a thread, bearer tokens. It has no limits, metrics, validation,
keep-alives or drain, which gives it an advantage.

    python -m bench.stock --db sqlite:bench.db --port 8081
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sqlite3
import time
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.web.server import Request, Site

NDJSON = "application/x-ndjson"
COLUMNS = "SELECT seq, sent_by, text, sent_at, received_by FROM message "


def connect(path: str) -> sqlite3.Connection:
    """Open a connection with durable commits."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


def render(row: Any) -> dict[str, object]:
    """The JSON object of a message."""
    seq, sent_by, text, sent_at, received_by = row
    shown = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(sent_at // 1_000_000))
    return {
        "seq": seq,
        "sent_by": sent_by,
        "message": text,
        "sent_at": shown,
        "received_by": received_by,
    }


class Stock:
    """The server on the database at `path`."""

    app = Klein()

    def __init__(self, path: str, reactor: Any) -> None:
        self._reactor = reactor
        self._reading = connect(path)
        self._writing = connect(path)
        self._tokens: dict[str, int] = {}
        self._queue: list[tuple[Any, Deferred[int]]] = []
        self._committing = False
        self._waiting: dict[int, set[Deferred[None]]] = {}

    def _caller(self, request: Request) -> int:
        token = (request.getHeader("authorization") or "").removeprefix("Bearer ")
        if token not in self._tokens:
            digest = hashlib.sha256(token.encode()).digest()
            row = self._reading.execute("SELECT user_id FROM token WHERE digest = ?", (digest,))
            [self._tokens[token]] = row.fetchone()
        return self._tokens[token]

    def _last(self, user: int) -> int:
        row = self._reading.execute("SELECT last_seq FROM inbox WHERE user_id = ?", (user,))
        return int(row.fetchone()[0])

    @app.route("/api/v1/chats/", methods=["POST"])
    async def send(self, request: Request) -> bytes:
        """Respond once the message is on disk."""
        sender = self._caller(request)
        args = json.load(request.content)  # type: ignore[arg-type]
        sent_at = time.time_ns() // 1000
        message = (args["user_id"], sender, sent_at, args["message"])
        durable: Deferred[int] = Deferred()
        self._queue.append((message, durable))
        if not self._committing:
            self._committing = True
            self._reactor.callLater(0, self._commit)
        seq = await durable
        request.setResponseCode(201)
        request.setHeader("Content-Type", "application/json")
        row = (seq, sender, args["message"], sent_at, args["user_id"])
        return json.dumps(render(row)).encode()

    def _commit(self) -> None:
        batch, self._queue = self._queue, []
        self._committing = bool(batch)
        if batch:
            call = deferToThread(self._write, [message for message, _ in batch])
            call.addCallback(self._committed, batch)

    def _write(self, messages: list[Any]) -> list[int]:
        db, seqs = self._writing, []
        db.execute("BEGIN IMMEDIATE")
        for user, sender, sent_at, text in messages:
            [(seq,)] = db.execute(
                "UPDATE inbox SET last_seq = last_seq + 1, last_sent_at = ? WHERE user_id = ?"
                " RETURNING last_seq",
                (sent_at, user),
            ).fetchall()
            db.execute(
                "INSERT INTO message (received_by, seq, sent_by, sent_at, text)"
                " VALUES (?, ?, ?, ?, ?)",
                (user, seq, sender, sent_at, text),
            )
            seqs.append(seq)
        db.execute("COMMIT")
        return seqs

    def _committed(self, seqs: list[int], batch: list[Any]) -> None:
        self._commit()
        for ((user, *_), durable), seq in zip(batch, seqs, strict=True):
            self._wake(user)
            durable.callback(seq)

    def _wake(self, user: int) -> None:
        for waiter in self._waiting.pop(user, ()):
            waiter.callback(None)

    @app.route("/api/v1/chats/", methods=["GET"])
    async def read(self, request: Request) -> bytes:
        """Respond with a page, the messages after `since`, waiting for one, or a stream."""
        user = self._caller(request)
        args: Any = request.args
        if request.getHeader("accept") == NDJSON:
            return await self._stream(request, user)
        request.setHeader("Content-Type", "application/json")
        if b"since" in args:
            return await self._poll(request, user, args)
        page = int(args.get(b"page", [b"1"])[0])
        last = self._last(user)
        end = last - (page - 1) * 10
        query = COLUMNS + "WHERE received_by = ? AND seq > ? AND seq <= ? ORDER BY seq DESC"
        rows = self._reading.execute(query, (user, end - 10, end)).fetchall()
        meta = {"count": last, "current_page": str(page), "cursor": str(last)}
        return json.dumps({"meta": meta, "messages": list(map(render, rows))}).encode()

    async def _poll(self, request: Request, user: int, args: Any) -> bytes:
        since = args[b"since"][0]
        seq = self._last(user) if since == b"now" else int(since)
        rows = self._after(user, seq)
        wait = float(args.get(b"wait", [b"0"])[0])
        if not rows and wait:
            await self._wait(request, user, wait)
            rows = self._after(user, seq)
        meta = {"cursor": str(rows[-1][0] if rows else seq)}
        return json.dumps({"meta": meta, "messages": list(map(render, rows))}).encode()

    async def _stream(self, request: Request, user: int) -> bytes:
        """Write messages as lines, from now until the client disconnects."""
        request.setHeader("Content-Type", NDJSON)
        request.write(b'{"keepalive":true}\n')
        seq = self._last(user)
        while True:
            for row in self._after(user, seq):
                seq = row[0]
                line = {"cursor": str(seq), "message": render(row)}
                request.write(json.dumps(line).encode() + b"\n")
            waiter: Deferred[None] = Deferred()
            self._waiting.setdefault(user, set()).add(waiter)
            try:
                # Klein cancels this when the client disconnects.
                await waiter
            finally:
                self._waiting.get(user, set()).discard(waiter)

    def _after(self, user: int, seq: int) -> list[Any]:
        query = COLUMNS + "WHERE received_by = ? AND seq > ? ORDER BY seq LIMIT 100"
        return self._reading.execute(query, (user, seq)).fetchall()

    def _wait(self, request: Request, user: int, seconds: float) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        self._waiting.setdefault(user, set()).add(waiter)

        def end() -> None:
            self._waiting.get(user, set()).discard(waiter)
            waiter.callback(None)

        timer = self._reactor.callLater(seconds, end)

        def woken(result: None) -> None:
            if timer.active():
                timer.cancel()

        def gone(_: Failure) -> None:
            if timer.active():
                timer.cancel()
                self._waiting.get(user, set()).discard(waiter)

        request.notifyFinish().addErrback(gone)
        return waiter.addCallback(woken)


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description="The API on plain twisted.web and Klein.")
    parser.add_argument("--db", required=True, help="sqlite:PATH of a chatd database")
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()

    from twisted.internet import reactor as installed

    reactor: Any = installed
    reactor.suggestThreadPoolSize(1)
    stock = Stock(args.db.removeprefix("sqlite:"), reactor)
    reactor.listenTCP(args.port, Site(stock.app.resource()), interface="127.0.0.1", backlog=1024)
    reactor.run()


if __name__ == "__main__":
    main()
