"""Creates the domain, on a store and a bus."""

from __future__ import annotations

from collections.abc import Callable

from argon2 import PasswordHasher
from twisted.internet.interfaces import IReactorTime

from chatd.config import Settings
from chatd.domain.account_changes import AccountChanges
from chatd.domain.accounts import Accounts
from chatd.domain.blocks import Blocks
from chatd.domain.bus_subscriber import BusSubscriber
from chatd.domain.caller_networks import CallerNetworks
from chatd.domain.chats import Chats
from chatd.domain.conversations import Conversations
from chatd.domain.deliveries import Deliveries
from chatd.domain.disk_space import DiskSpace
from chatd.domain.erasures import Erasures
from chatd.domain.last_seen import LastSeenWriter
from chatd.domain.notifier import Notifier
from chatd.domain.password_checks import PasswordChecks
from chatd.domain.passwords import THREADS, Passwords
from chatd.domain.rate_limits import RateLimits, Rates
from chatd.domain.read_limits import ReadLimits
from chatd.domain.receipts import Receipts
from chatd.domain.removals import Removals
from chatd.domain.revisions import Revisions
from chatd.domain.session_expiry import SessionExpiry
from chatd.domain.store_calls import StoreCalls
from chatd.domain.sweep import Sweep
from chatd.domain.tokens import Tokens
from chatd.interfaces import IBus, IStore
from chatd.metrics import Metrics
from chatd.process.components import Components
from chatd.process.readiness import Readiness
from chatd.runtime.shield import ShieldedTasks
from chatd.runtime.thread_pool import Executor


def compose_domain(
    settings: Settings,
    store: IStore,
    bus: IBus,
    metrics: Metrics,
    *,
    clock: IReactorTime,
    now: Callable[[], int],
    hashing: Executor,
    hashing_threads: int = THREADS,
    hasher: PasswordHasher,
    rates: Rates | None,
    reads_answers: Callable[[int], bool] = lambda user_id: True,
    free_bytes: Callable[[], int] | None = None,
) -> Components:
    """Create the domain, on a store and a bus.

    `clock` gives seconds for durations, `now` microseconds for records; passwords are hashed by
    `hasher` in the threads of `hashing`, of which there are `hashing_threads`. Without `rates`
    nothing is rate-limited. `reads_answers` is whether the clients of an account read what they are
    sent, `free_bytes` how much room the disk of the database has.
    """
    limits = RateLimits(rates, clock)
    notifier = Notifier(
        max_held=settings.max_polls, expiry=SessionExpiry(clock, now), interest=bus.interest
    )
    passwords = Passwords(hashing, hasher, hashing_threads)
    checks = PasswordChecks(store, passwords, limits)
    last_seen = LastSeenWriter(store, clock, now)
    tasks = ShieldedTasks()
    read_limits = ReadLimits(limits, reads_answers)
    callers = CallerNetworks()
    calls = StoreCalls(read_limits, callers, store.parallel)
    disk = DiskSpace(free_bytes, settings.min_free_disk, clock)
    erasures = Erasures(store, bus, clock)
    accounts = Accounts(
        store,
        bus,
        passwords,
        checks,
        limits,
        last_seen,
        tasks,
        callers,
        calls,
        disk,
        erasures,
        clock=clock,
        now=now,
        registration_open=settings.registration,
        directory_open=settings.directory,
        emails_shown=settings.show_email,
        min_password_length=settings.min_password_length,
    )
    changes = AccountChanges(
        store,
        bus,
        passwords,
        checks,
        tasks,
        calls,
        last_seen.with_last_seen,
        min_password_length=settings.min_password_length,
    )
    deliveries = Deliveries(store, bus, clock)
    chats = Chats(
        store,
        bus,
        notifier,
        limits,
        read_limits,
        callers,
        calls,
        disk,
        clock=clock,
        max_message_bytes=settings.max_message_bytes,
        note_delivered=deliveries.note,
        observe_poll=metrics.observe_poll,
        observe_batch=metrics.batch_observer,
    )
    metrics.add_gauge("chatd_polls_held", "Polls and streams that wait now", lambda: notifier.held)
    metrics.add_labelled_gauge(
        "chatd_queue_depth",
        "Sends and reads that wait for the store, and passwords for being hashed",
        "queue",
        lambda: {**chats.queued(), "password": passwords.pending},
    )
    metrics.add_labelled_counter(
        "chatd_rate_limited", "What rate limits have refused, by limit", "limit", limits.refused
    )
    subscriber = BusSubscriber(store, notifier, accounts, deliveries, metrics, clock)
    return Components(
        store=store,
        bus=bus,
        subscriber=subscriber,
        sweep=Sweep(
            store,
            notifier,
            clock,
            metrics,
            subscriber,
            lossy=bus.interest is not None,
            bus_problem=bus.problem,
        ),
        limits=limits,
        disk=disk,
        notifier=notifier,
        passwords=passwords,
        accounts=accounts,
        erasures=erasures,
        account_changes=changes,
        tokens=Tokens(store, bus, tasks, calls, last_seen.later_uses),
        chats=chats,
        conversations=Conversations(store, bus, read_limits, calls),
        receipts=Receipts(store, notifier, calls, clock),
        deliveries=deliveries,
        revisions=Revisions(
            store,
            bus,
            limits,
            disk,
            calls,
            max_message_bytes=settings.max_message_bytes,
            edit_seconds=settings.edit_seconds,
        ),
        removals=Removals(store, limits, calls),
        blocks=Blocks(store, limits, calls),
        readiness=Readiness(store, bus, clock),
        metrics=metrics,
    )
