"""PostgreSQL's hash function of bigint, by which Citus finds the shard of a row.

`hashint8` in src/backend/access/hash/hashfunc.c, and `hash_bytes_uint32` in src/common/hashfn.c.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

_MASK: Final = 0xFFFFFFFF
_INITIAL: Final = (0x9E3779B9 + 4 + 3923095) & _MASK


@lru_cache(maxsize=100_000)
def hash_bigint(value: int) -> int:
    """`hashint8(value)`, a signed number of 32 bits."""
    high = (value >> 32) & _MASK
    return _hash_uint32((value & _MASK) ^ (high if value >= 0 else ~high & _MASK))


def _hash_uint32(key: int) -> int:
    a = (_INITIAL + key) & _MASK
    b = c = _INITIAL
    c = _mixed(c, b, 14)
    a = _mixed(a, c, 11)
    b = _mixed(b, a, 25)
    c = _mixed(c, b, 16)
    a = _mixed(a, c, 4)
    b = _mixed(b, a, 14)
    c = _mixed(c, b, 24)
    return c - (1 << 32) if c >> 31 else c


def _mixed(value: int, other: int, bits: int) -> int:
    rotated = (other << bits | other >> (32 - bits)) & _MASK
    return ((value ^ other) - rotated) & _MASK
