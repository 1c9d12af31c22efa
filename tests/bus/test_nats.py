"""The NATS bus: the contract, several processes, and a cluster of servers that fail."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred

import chatd.bus.nats
import chatd.bus.nats_link
from bench.processes import free_port
from chatd.admin.access import access
from chatd.admin.errors import AdminError
from chatd.bus.nats import NatsBus
from chatd.config import load
from chatd.domain.administration import DisableUser
from chatd.errors import StartError
from chatd.model import Draft, ReadAfter, Revision
from chatd.store import token_statements
from tests.bus.nats_nodes import Node, cached, settle
from tests.contracts.bus import BusContract, OpenBus, Recorder
from tests.contracts.helpers import add_accounts, digest
from tests.integration.certificate import write_certificate
from tests.nats_server import NatsCluster, NatsServer
from tests.postgres_server import Databases, connected, rows, sleep

BACK_SECONDS = 5.0
SILENT_SECONDS = 4.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[NatsCluster]:
    servers = NatsCluster()
    try:
        servers.start()
        yield servers
    finally:
        servers.destroy()


@async_yield_fixture
async def nodes(
    cluster: NatsCluster, postgres: Databases, emptied_postgres_database: str
) -> AsyncIterator[tuple[Node, Node]]:
    cluster.start()
    url = postgres.url(emptied_postgres_database)
    pair = Node(url, cluster.url(0)), Node(url, cluster.url(1))
    for node in pair:
        await node.open()
    yield pair
    for node in pair:
        await node.close()


@async_yield_fixture
async def open_bus(
    cluster: NatsCluster, postgres: Databases, emptied_postgres_database: str
) -> AsyncIterator[OpenBus]:
    opened: list[Node] = []

    async def open_one() -> NatsBus:
        opened.append(Node(postgres.url(emptied_postgres_database), cluster.url()))
        await opened[-1].store.open()
        return opened[-1].bus

    yield open_one
    for node in opened:
        await node.bus.stop()
        await node.store.close()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats and checks come much sooner, in tests that do not measure the time."""
    monkeypatch.setattr(chatd.bus.nats, "COALESCE_SECONDS", 0.1)
    monkeypatch.setattr(chatd.bus.nats_link, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(chatd.bus.nats_link, "HEARTBEAT_SECONDS", 0.1)


@pytest.mark.usefixtures("fast")
class TestNatsBus(BusContract):
    """The contract."""


@pytest.mark.usefixtures("fast")
@ensureDeferred
async def test_messages_reach_the_polls_of_other_processes_with_their_texts(
    nodes: tuple[Node, Node],
) -> None:
    one, two = nodes
    ann, bob, cat = await add_accounts(one.store, "ann", "bob", "cat")
    follower = await two.follow(bob)
    await settle(two)
    await one.commit(ann, bob, "1")
    await follower.receive("1")
    assert cached(two, bob, 0) == ("1",)
    await one.store.append([Draft(ann, bob, text) for text in ("2", "x" * 20_000, "4")])
    await one.commit(ann, cat, "x")
    await follower.receive("1", "2", "x" * 20_000, "4")
    assert cached(two, cat, 0) is None
    # No message of Cat's was sent to the other process.
    assert two.bus.interest.users == {bob}
    assert one.bus.interest.users == set()
    with connected(one.store._address.attempts[0]) as db:
        assert rows(db, "SELECT * FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'") == []


@pytest.mark.usefixtures("fast")
@ensureDeferred
async def test_the_cache_knows_only_users_that_are_subscribed(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    assert await two.store.read([ReadAfter(bob, 0, 10)])
    assert cached(two, bob, 0) is None
    interest = two.bus.interest
    interest.watch(bob)
    assert cached(two, bob, 0) is None
    await settle(two)
    await two.store.read([ReadAfter(bob, 0, 10)])
    assert cached(two, bob, 0) == ()
    await one.commit(ann, bob, "1")
    await two.until(lambda: cached(two, bob, 0) == ("1",))
    interest.unwatch(bob)
    assert cached(two, bob, 0) == ("1",)
    interest._lingering[bob] = 0.0
    interest.expire()
    assert cached(two, bob, 0) is None
    await one.commit(ann, bob, "2")
    interest.watch(bob)
    assert cached(two, bob, 1) is None


@ensureDeferred
async def test_what_is_missed_while_a_subscription_spreads_is_found(
    nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = nodes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    await settle(one, two)
    # As if the publisher's server did not know of the subscription yet.
    monkeypatch.setattr(one.bus._announcer, "announce_messages", lambda messages: None)
    follower = await two.follow(bob)
    await two.until(lambda: follower.held)
    await one.commit(ann, bob, "1")
    assert await follower.receive("1") < 3
    assert two.bus.gaps == 0


@pytest.mark.usefixtures("fast")
@ensureDeferred
async def test_changes_revisions_and_revocations_are_told(
    nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = nodes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    await one.store.sync.synchronise(ann)
    recorder = Recorder()
    two.bus.subscriber = recorder
    for user_id in (ann, bob):
        two.bus.interest.watch(user_id)
    await settle(two)
    await two.store.read([ReadAfter(bob, 0, 10)])
    await one.commit(ann, bob, "1")
    await recorder.until(lambda recorder: recorder.told[ann] and recorder.woken[bob])
    assert cached(two, bob, 0) == ("1",)
    await one.store.revise(Revision(ann, bob, 1, "changed"))
    await recorder.until(lambda recorder: recorder.changes == [(bob, 1, ann)])
    assert cached(two, bob, 0) is None
    await recorder.until(lambda recorder: recorder.told[ann] == 2)
    await one.store.sync.record_delivered({bob: 1})
    await recorder.until(lambda recorder: recorder.told[ann] == 3)
    await one.store.add_token(ann, digest("1"))
    await one.store.delete_token(ann, digest("1"))
    await one.store.delete_other_tokens(bob, None)
    await recorder.until(lambda recorder: recorder.session_changes == [bob])
    monkeypatch.setattr(token_statements, "MAX_TOKENS", 1)
    for name in ("2", "3"):
        await one.store.add_token(ann, digest(name))
    await recorder.until(lambda recorder: recorder.session_changes[:2] == [bob, ann])
    await one.store.delete_account(bob)
    await recorder.until(lambda recorder: len(recorder.revocations) == 2)
    assert recorder.revocations == [(ann, digest("1")), (bob, None)]
    assert two.bus.gaps == 0


@ensureDeferred
async def test_a_server_that_is_killed_loses_nothing(
    cluster: NatsCluster, nodes: tuple[Node, Node]
) -> None:
    one, two = nodes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    follower = await two.follow(bob)
    await settle(one, two)
    # The process learns of the other servers from its own.
    ports = {server.port: server for server in cluster.servers}
    ports[two.port].kill()
    for number in range(20):
        await one.commit(ann, bob, str(number))
        await sleep(0.02)
    await follower.receive(*map(str, range(20)), seconds=BACK_SECONDS)
    assert two.bus.problem() is None
    assert two.bus.reconnects == 1
    # The sender's.
    ports[one.port].kill()
    for number in range(20, 40):
        await one.commit(ann, bob, str(number))
        await sleep(0.02)
    await follower.receive(*map(str, range(40)), seconds=BACK_SECONDS)


@ensureDeferred
async def test_all_servers_killed_and_back(cluster: NatsCluster, nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    follower = await two.follow(bob)
    await settle(one, two)
    for server in cluster.servers:
        server.kill()
    await two.until(lambda: one.bus.problem() and two.bus.problem())
    [reason] = await two.components.readiness.reasons()
    assert "NATS" in reason
    await one.commit(ann, bob, "1")
    await sleep(0.3)
    assert follower.texts == []
    cluster.start()
    await follower.receive("1", seconds=BACK_SECONDS)
    await two.until(lambda: not one.bus.problem() and not two.bus.problem(), BACK_SECONDS)
    assert await two.components.readiness.reasons() == []


@ensureDeferred
async def test_a_server_that_is_stopped_is_left(
    cluster: NatsCluster, nodes: tuple[Node, Node]
) -> None:
    one, two = nodes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    follower = await two.follow(bob)
    await settle(one, two)
    [server] = [each for each in cluster.servers if each.port == one.port]
    server.send_signal(signal.SIGSTOP)
    try:
        await one.commit(ann, bob, "1")
        await follower.receive("1", seconds=BACK_SECONDS)
        await one.until(lambda: one.bus.reconnects and not one.bus.problem(), BACK_SECONDS)
        await one.commit(ann, bob, "2")
        await follower.receive("1", "2", seconds=BACK_SECONDS)
    finally:
        server.send_signal(signal.SIGCONT)


@ensureDeferred
async def test_a_publisher_killed_between_commit_and_announcement(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    follower = await two.follow(bob)
    await settle(one, two)
    await one.until(lambda: one.bus.peers == two.bus.peers == 1)
    one.die()
    await one.commit(ann, bob, "1")
    assert await follower.receive("1") < SILENT_SECONDS
    # The look-up of newly subscribed users may have found it before.
    await two.until(lambda: two.bus.gaps == 1)
    assert two.bus.reconnects == 0


@pytest.mark.usefixtures("fast")
@ensureDeferred
async def test_a_process_that_stops_is_not_missed(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    await two.until(lambda: two.bus.peers == 1)
    await one.bus.stop()
    await two.until(lambda: two.bus.peers == 0)
    assert two.bus.gaps == 0


@ensureDeferred
async def test_a_consumer_that_the_server_cuts_misses_nothing(
    cluster: NatsCluster, nodes: tuple[Node, Node]
) -> None:
    one, two = nodes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    follower = await two.follow(bob)
    await settle(one, two)
    link = two.bus._link
    assert link._protocol is not None
    [server] = [each for each in cluster.servers if each.port == two.port]
    before = server.status()["slow_consumers"]
    link._protocol.transport.pauseProducing()
    try:
        await one.commit(ann, bob, "1")
        publisher: Any = one.bus._announcer._protocol
        subject = link._subjects.user(bob)
        while server.status()["slow_consumers"] == before:
            publisher.publish([(subject, b"l" + bytes(60_000))] * 50)
            await sleep(0.01)
    finally:
        link._protocol.transport.resumeProducing()
    await follower.receive("1", seconds=BACK_SECONDS)
    await two.until(lambda: two.bus.reconnects == 1 and not two.bus.problem(), BACK_SECONDS)


HOSTILE = [
    b"",
    b"m",
    b"m[",
    b"m[[1]]",
    b'm[[1,"x"]]',
    b"m[[99,1,1,1]]",
    b"m" + b"[" * 100_000,
    b"c",
    b"c1:-1",
    b"c1:" + b"9" * 5000,
    b"x",
    b"\xff\xfe",
    b"node:1:1:1",
    b"node:1:1",
    b"no de:1:1:1",
    b":::",
    b"node:1:1:1:*:",
    b"node:1:1:1:xyz",
    b"n" * 100 + b":1:1:1",
]


@pytest.mark.usefixtures("fast")
@ensureDeferred
async def test_malformed_messages_break_nothing(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    follower = await two.follow(bob)
    await settle(one, two)
    protocol: Any = one.bus._link._protocol
    subjects = one.bus._link._subjects
    for subject in (subjects.user(bob), subjects.revocations, subjects.heartbeats):
        protocol.publish([(subject, payload) for payload in HOSTILE])
    await one.commit(ann, bob, "1")
    await follower.receive("1")
    assert two.bus.reconnects == 0
    assert two.bus.problem() is None


@pytest.mark.usefixtures("fast")
@ensureDeferred
async def test_databases_that_share_a_cluster_do_not_disturb_each_other(
    nodes: tuple[Node, Node], cluster: NatsCluster, postgres: Databases
) -> None:
    one, two = nodes
    url = postgres.url(postgres.create())
    stranger = Node(url, cluster.url(0))
    await stranger.open()
    try:
        recorder = Recorder()
        two.bus.subscriber = recorder
        ann, bob = await add_accounts(one.store, "ann", "bob")
        assert [ann, bob] == await add_accounts(stranger.store, "ann", "bob")
        two.bus.interest.watch(bob)
        await settle(two)
        await stranger.commit(ann, bob, "1")
        await stranger.store.delete_other_tokens(bob, None)
        await one.commit(ann, bob, "2")
        await recorder.until_woken(bob)
        assert recorder.woken == {bob: 1}
        assert recorder.session_changes == []
        assert two.bus.peers == 1
    finally:
        await stranger.close()
        postgres.drop(url.rpartition("dbname=")[2].split()[0])


@pytest.mark.usefixtures("fast")
@ensureDeferred
async def test_an_append_of_unknown_outcome_is_looked_for(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    recorder = Recorder()
    two.bus.subscriber = recorder
    two.bus.interest.watch(bob)
    await settle(one, two)
    recorder.checked.clear()
    one.bus._announcer.announce_unknown({ann, bob})
    await recorder.until(lambda recorder: recorder.checked[bob])
    one.bus._announcer.announce_unknown({ann}, sessions=True)
    await recorder.until(lambda recorder: recorder.session_changes == [ann])


@pytest.mark.usefixtures("fast")
@ensureDeferred
async def test_removed_messages_are_forgotten(
    nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = nodes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    await one.commit(ann, bob, "old")
    two.bus.interest.watch(bob)
    await settle(one, two)
    # On a slow machine the announcement of the message, or a late heartbeat, may still be on its
    # way to the second process; what is read meanwhile is not cached.
    while cached(two, bob, 0) is None:
        [inbox] = await two.store.read([ReadAfter(bob, 0, 10)])
    assert inbox is not None
    assert cached(two, bob, 0) == ("old",)

    async def wait_for_two(_: float) -> None:
        await two.until(lambda: two.store.removed == {bob: 1})
        assert cached(two, bob, 0) is None

    monkeypatch.setattr(one.store._retention, "_pause", wait_for_two)
    assert await one.store.admin.remove_old(inbox.messages[0].sent_at + 1) == 1
    assert two.bus.gaps == 0
    # Also what its owner removes.
    await one.commit(ann, bob, "new")
    await one.store.remove_oldest(bob, 2)
    await two.until(lambda: two.store.removed == {bob: 2})


@pytest.mark.usefixtures("fast")
@ensureDeferred
async def test_administrators_end_sessions(
    nodes: tuple[Node, Node],
    cluster: NatsCluster,
    postgres: Databases,
    emptied_postgres_database: str,
) -> None:
    from twisted.internet import reactor

    one, two = nodes
    [ann] = await add_accounts(one.store, "ann")
    recorder = Recorder()
    two.bus.subscriber = recorder
    given = {"db": postgres.url(emptied_postgres_database), "bus": cluster.url()}
    async with access(load(given, {})[0], reactor) as admin:
        await admin.perform(DisableUser("ann"))
    await recorder.until(lambda recorder: recorder.session_changes == [ann])
    given["bus"] = f"nats://s3cret@127.0.0.1:{free_port()}"
    with pytest.raises(AdminError, match="cannot use NATS at nats://127") as failed:
        async with access(load(given, {})[0], reactor):
            pass
    assert "s3cret" not in str(failed.value)


@ensureDeferred
async def test_login_and_tls(
    tmp_path: Path,
    postgres: Databases,
    emptied_postgres_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate = tmp_path / "certificate.pem"
    write_certificate(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = NatsServer(
        "tls",
        f"""
        authorization {{ user: "ann", password: "s3cret@" }}
        tls {{ cert_file: "{certificate}", key_file: "{certificate}" }}
        """,
    )
    server.start()
    try:
        url = postgres.url(emptied_postgres_database)
        node = Node(url, f"tls://ann:s3cret%40@localhost:{server.port}")
        await node.open()
        assert node.bus.problem() is None
        await node.close()
        for login in ("ann:s3crets@", "s3crets@", ""):
            node = Node(url, f"nats://{login}localhost:{server.port}")
            with pytest.raises(StartError, match="Authorization Violation") as failed:
                await node.open()
            assert "s3cret" not in str(failed.value)
            await node.close()
        # A name that is not in the certificate.
        node = Node(url, f"tls://ann:s3cret%40@127.0.0.2:{server.port}")
        with pytest.raises(StartError, match="cannot use NATS at tls://127"):
            await node.open()
        await node.close()
    finally:
        server.destroy()
