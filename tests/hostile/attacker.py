"""An attack in a process of its own: `python -m tests.hostile.attacker NAME`.

The target is read from standard input.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

import tests.hostile.floods  # noqa: F401  # adds its attacks
from tests.hostile.attacks import ATTACKS, Attack, Target

__all__ = ["ATTACKS"]


async def _run(attack: Attack, target: Target) -> None:
    await attack.run(target)


if __name__ == "__main__":
    sys.stdout.write(f"{sys.argv[1]}\n")
    sys.stdout.flush()
    target = msgspec.json.decode(sys.stdin.read(), type=Target)
    asyncio.run(_run(ATTACKS[sys.argv[1]], target))
