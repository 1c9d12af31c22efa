"""`chatd db`: the database as a whole."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from typing import Any, Final

from msgspec import structs

from chatd.admin.errors import DAMAGED, AdminError
from chatd.admin.printing import Record, print_fields, print_json, timestamp
from chatd.compose.administration import compose_maintenance, compose_sharding, upgrade_database
from chatd.config import Settings
from chatd.errors import StartError
from chatd.runtime.partial_file import SUFFIX, remove_abandoned

_COPY: Final = re.compile(r"chatd-\d{8}T\d{6}Z\.copy")
"""The names of copies in a folder, which sort by time."""


async def status(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """Show what the database holds."""
    found = compose_maintenance(settings).status()
    record = structs.asdict(found)
    for name in ("oldest_message_at", "backed_up_at"):
        record[name] = timestamp(record[name])
    if args.json:
        print_json(record)
        return
    for name in ("bytes", "log_bytes", "free_bytes"):
        if record[name] is not None:
            record[name] = _size(record[name])
    print_fields(record)


async def upgrade(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """Create the database, or bring its schema up to date."""
    try:
        await upgrade_database(settings, reactor)
    except StartError as problem:
        raise AdminError(str(problem)) from None
    found = compose_maintenance(settings).status()
    _report(
        args,
        {"location": found.location, "schema": found.schema},
        f"The database {found.location} has schema version {found.schema}.",
    )


async def backup(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """Copy the database."""
    target = args.target
    if os.path.isdir(target):
        target = os.path.join(target, time.strftime("chatd-%Y%m%dT%H%M%SZ.copy", time.gmtime()))
    elif args.keep is not None:
        raise AdminError(f"--keep is for a folder of copies, and {target} is none")
    if args.keep is not None:
        _remove_abandoned(args.target)
    compose_maintenance(settings).backup(target)
    if args.keep is not None:
        _delete_old(args.target, args.keep)
    _report(args, {"backup": target}, f"The copy is {target}.")


def _remove_abandoned(folder: str) -> None:
    """Remove what killed processes have left of their copies, before the room is needed."""
    try:
        for name in os.listdir(folder):
            if name.endswith(SUFFIX) and _COPY.fullmatch(name.removesuffix(SUFFIX)):
                remove_abandoned(os.path.join(folder, name))
    except OSError as error:
        raise AdminError(f"cannot delete old copies in {folder}: {error.strerror}") from None


def _delete_old(folder: str, keep: int) -> None:
    """Delete the oldest copies that `backup` has named."""
    try:
        copies = sorted(name for name in os.listdir(folder) if _COPY.fullmatch(name))
        for name in copies[:-keep]:
            os.unlink(os.path.join(folder, name))
    except OSError as error:
        raise AdminError(f"cannot delete old copies in {folder}: {error.strerror}") from None


async def restore(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """Replace the database by a copy."""
    aside = compose_maintenance(settings).restore(args.source)
    text = f"{args.source} is restored. What it has replaced is kept: {aside}."
    _report(args, {"restored": args.source, "kept": aside}, text)


async def check(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """Check that what is stored is consistent."""
    found = compose_maintenance(settings).check()
    if args.json:
        print_json({"consistent": not found, "found": found})
    else:
        for text in found:
            sys.stdout.write(text + "\n")
    if found:
        raise AdminError("the database is not consistent", DAMAGED)
    if not args.json:
        sys.stdout.write("The database is consistent.\n")


async def shard(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """Spread the tables over the servers of Citus, or bring them back."""
    sharding = compose_sharding(settings)
    done = sharding.unshard() if args.back else sharding.shard(args.shards)
    _report(args, {"done": done}, f"{done}.")


async def vacuum(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """Return unused space to the disk."""
    maintenance = compose_maintenance(settings)
    before = maintenance.status().bytes
    maintenance.vacuum(full=args.full)
    after = maintenance.status().bytes
    text = f"The database has {_size(after)}; it had {_size(before)}."
    _report(args, {"bytes_before": before, "bytes": after}, text)


def _report(args: argparse.Namespace, record: Record, text: str) -> None:
    if args.json:
        print_json(record)
    else:
        sys.stdout.write(text + "\n")


def _size(size: int) -> str:
    """A size for people."""
    value, unit = float(size), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"
