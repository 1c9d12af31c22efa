"""`chatd export`, on every database, with a daemon and without."""

from __future__ import annotations

import json

import pytest
from pytest_twisted import ensureDeferred

from chatd.admin import export
from chatd.model import Revision
from tests.admin.commands import Commands
from tests.contracts.helpers import add_accounts, digest, send, send_many


@ensureDeferred
async def test_everything_of_an_account_is_exported(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "STEP", 3)
    async with commands.store() as store:
        ann, bob, cat, dan = await add_accounts(store, "ann", "bob", "cat", "dan")
        await send_many(store, ann, bob, 7)
        await send_many(store, bob, ann, 5)
        await send(store, ann, cat, "Grüße\n\x1b[2J")
        await send(store, ann, ann, "to myself")
        await send(store, cat, bob, "not hers")
        await send(store, ann, dan, "to somebody who leaves")
        await send(store, dan, ann, "from somebody who leaves")
        await store.revise(Revision(ann, bob, 2, "edited"))
        await store.revise(Revision(ann, bob, 3, None))
        await store.add_token(ann, digest("token"))
        await store.block(ann, cat)
        await store.delete_account(dan)
    lines = [
        json.loads(line) for line in (await commands.run("export", "--user", "ANN")).splitlines()
    ]
    kinds = [line.pop("type") for line in lines]
    assert kinds == ["account", "token", "block"] + ["received"] * 7 + ["sent"] * 8
    assert lines[0]["username"] == "ann"
    assert "password" not in lines[0]
    assert lines[2] == {"user_id": cat, "username": "cat"}
    received, sent = lines[3:10], lines[10:]
    assert [line["seq"] for line in received] == list(range(1, 8))
    assert [line["sent_by"] for line in received] == [bob] * 5 + [ann, dan]
    assert [(line["received_by"], line["seq"]) for line in sent] == [
        *((bob, seq) for seq in range(7, 0, -1)),
        (cat, 1),
    ]
    assert sent[5]["message"] == "edited"
    assert "edited_at" in sent[5]
    assert (sent[4]["message"], "deleted_at" in sent[4]) == ("", True)
    assert sent[-1]["message"] == "Grüße\n\x1b[2J"
    assert "no user" in await commands.fail(3, "export", "--user", "nobody")
