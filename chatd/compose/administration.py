"""Creates what the commands for administrators work with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chatd.bus.local import LocalBus, NoPolls
from chatd.compose.databases import (
    is_postgres,
    postgres_addresses,
    sqlite_path,
    unknown_database,
)
from chatd.compose.storage import compose_store_and_bus
from chatd.config import ConfigError, Settings
from chatd.domain.administration import Administration
from chatd.errors import StartError
from chatd.interfaces import IStore
from chatd.maintenance import Maintenance
from chatd.metrics import Metrics
from chatd.store.migrations import migrations

if TYPE_CHECKING:
    from chatd.store.sharded.sharding import Sharding


async def compose_administration(settings: Settings, reactor: Any) -> tuple[IStore, Administration]:
    """Administration of the database that `--db` names, and its store, which is open.

    In the end, stop the former, then close the latter.
    Raises `ConfigError`, and `StartError` also for a database that does not exist or is old.
    """
    store, bus = compose_store_and_bus(settings, reactor, Metrics(), upgrade=False)
    await store.open()
    if settings.bus is None:
        # Processes on the same database are notified by the store; this one has no polls.
        bus = LocalBus()
    else:
        try:
            await bus.start(NoPolls())
        except StartError:
            await store.close()
            raise
    return store, Administration(store, bus)


async def upgrade_database(settings: Settings, reactor: Any) -> None:
    """Create or migrate the database that `--db` names; raises `ConfigError` and `StartError`."""
    store, _ = compose_store_and_bus(settings, reactor, Metrics())
    await store.open()
    await store.close()


def compose_sharding(settings: Settings) -> Sharding:
    """What changes the layout of the database that `--db` names; raises `ConfigError`."""
    if not is_postgres(settings.db):
        raise ConfigError("db: only PostgreSQL can be sharded")
    [address, _] = postgres_addresses(settings)
    from chatd.store.postgres.maintenance import PostgresMaintenance
    from chatd.store.sharded.sharding import Sharding

    known = migrations("postgres")
    return Sharding(PostgresMaintenance(address, known), known)


def compose_maintenance(settings: Settings) -> Maintenance:
    """Maintenance of the database that `--db` names; raises `ConfigError`."""
    path = sqlite_path(settings.db)
    if path is not None:
        from chatd.store.sqlite.maintenance import SqliteMaintenance

        return SqliteMaintenance(
            path, migrations("sqlite"), shrinks=settings.keep_microseconds is not None
        )
    if not is_postgres(settings.db):
        raise unknown_database()
    [address, _] = postgres_addresses(settings)
    from chatd.store.postgres.maintenance import PostgresMaintenance

    return PostgresMaintenance(address, migrations("postgres"))
