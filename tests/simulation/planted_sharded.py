"""Bugs that are planted where several daemons have a sharded PostgreSQL, see `planted`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

from chatd.model import Appended
from chatd.store.postgres.append import new_batch_id
from chatd.store.sharded import claims
from chatd.store.sharded.append import ShardedAppender
from chatd.store.sharded.lanes import Lanes
from chatd.store.sharded.shards import Lane
from tests.simulation.planting import Patch, replace


async def _not_released(original: Any, self: Any, keys: Any, holder: str) -> None:
    """Instead of the original."""


@contextmanager
def _claims_after_messages() -> Iterator[None]:
    append_turn, claim = ShardedAppender._append_turn, ShardedAppender._claim

    async def late(self: Any, drafts: Any, keys: Any, node_id: Any, left: Any) -> Any:
        results = await append_turn(self, drafts, keys, node_id, left)
        stored = {
            place: claims.key_of(draft)
            for place, draft in drafts.items()
            if draft.idempotency is not None and isinstance(results[place], Appended)
        }
        used = {key: keys[key] for key in stored.values()}
        claimed = await claim(self, used, new_batch_id(self._now()), left)
        return results | {place: error for place, key in stored.items() if (error := claimed[key])}

    async def unclaimed(self: Any, keys: Any, holder: Any, left: Any) -> Any:
        return dict.fromkeys(keys)

    with (
        patch.object(ShardedAppender, "_append_turn", late),
        patch.object(ShardedAppender, "_claim", unclaimed),
    ):
        yield


async def _new_batch(
    original: Any, self: Any, lane: Lane, sql: str, parameters: Any, *args: Any
) -> Any:
    if "INSERT INTO message" in sql:
        if parameters.get("was sent"):
            parameters["id"] = new_batch_id(0)
        parameters["was sent"] = True
    return await original(self, lane, sql, parameters, *args)


PLANTED: Final[dict[str, Patch]] = {
    "keys are claimed after the message": _claims_after_messages,
    "a refused send keeps its claim": replace(ShardedAppender, "_release", _not_released),
    "a batch gets a new id after its shards moved": replace(Lanes, "run", _new_batch),
    "nothing looks where the shards are": lambda: patch.object(Lane, "guard", ""),
}
"""What is wrong, and the patch that makes it so."""
