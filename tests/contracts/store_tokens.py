"""Contract of `IStore`: tokens with their labels, scopes and expiry, and changes of accounts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import structs
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from chatd.api.rendering import timestamp
from chatd.api.tokens import TokenInfo
from chatd.model import (
    ALL_SCOPES,
    MAX_INTEGER,
    AccountChange,
    Credentials,
    EncodedTokens,
    Scope,
    Session,
    Token,
    TokenOptions,
    UserName,
    scope_names,
)
from chatd.store import token_statements
from tests.contracts.helpers import OpenStore, add_accounts, add_token, digest, owners

HOUR = 3_600_000_000


class TokenListContract:
    """Tokens and what is stored with them."""

    @ensureDeferred
    async def test_a_token_is_stored_with_its_options(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        plain = await add_token(store, ann, "plain")
        assert plain == Token(
            plain.id, digest("plain"), None, ALL_SCOPES, plain.created_at, None, None
        )
        options = TokenOptions("Grüße '%s\\", Scope.READ | Scope.ACCOUNT, HOUR)
        limited = await add_token(store, ann, "limited", options)
        at = limited.created_at
        expected = (options.label, options.scopes, at, None, at + HOUR)
        assert limited == Token(limited.id, digest("limited"), *expected)
        assert await store.tokens(ann) == [limited, plain]
        assert await store.sessions([digest("limited"), digest("plain")]) == [
            Session(ann, digest("limited"), limited.id, options.scopes.value, at + HOUR),
            Session(ann, digest("plain"), plain.id),
        ]

    @ensureDeferred
    async def test_tokens_are_encoded_as_everything_else_is(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        characters = "".join(map(chr, [*range(1, 0x100), 0x2028, 0x2029, 0xFFFD, 0x1F600]))
        labels = [*(characters[at : at + 64] for at in range(0, len(characters), 64)), None]
        labels += ['","last_used_at":', '},{"id":1', ',"expires_at":null', "%s :null ; '", "\\"]
        for number, label in enumerate(labels):
            lifetime = HOUR if number % 2 else None
            options = TokenOptions(label, Scope(number % 8), lifetime)
            await add_token(store, ann, f"{number}", options)
        await add_token(store, ann, "expired", TokenOptions(lifetime=0))
        used = 1_800_000_000_999_999
        await store.record_seen({}, {digest("1"): used, digest("3"): 1, digest("4"): used + 1})
        tokens = await store.tokens(ann)
        assert len(tokens) == len(labels)
        current = tokens[2].id
        for chosen in (current, None):
            shown = [
                TokenInfo(
                    each.id,
                    each.label,
                    scope_names(each.scopes),
                    timestamp(each.created_at),
                    None if each.last_used_at is None else timestamp(each.last_used_at),
                    None if each.expires_at is None else timestamp(each.expires_at),
                    each.id == chosen,
                )
                for each in tokens
            ]
            assert await store.encoded_tokens(ann, chosen) == EncodedTokens(
                len(tokens),
                msgspec.json.encode(shown).decode("utf-8"),
                [each.digest for each in tokens],
                [each.last_used_at for each in tokens],
            )
        assert await store.encoded_tokens(bob, current) == EncodedTokens(0, "[]", [], [])

    @ensureDeferred
    async def test_an_expired_token_is_unknown(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        expired = await add_token(store, ann, "expired", TokenOptions(lifetime=0))
        assert await owners(store, digest("expired")) == [None]
        assert await store.delete_token_by_id(ann, expired.id) is False
        assert await store.tokens(ann) == []

    @ensureDeferred
    async def test_a_user_has_a_limited_number_of_tokens(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(token_statements, "MAX_TOKENS", 3)
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await add_token(store, bob, "bob's")
        await add_token(store, ann, "expired", TokenOptions(lifetime=0))
        one, _, three = [await add_token(store, ann, f"{number}") for number in (1, 2, 3)]
        await store.record_seen({}, {digest("1"): three.created_at + HOUR})
        # Of those that are valid, the one that was used longest ago, or created if it never was.
        four = await store.add_token(ann, digest("4"))
        assert four is not None
        assert four.displaced
        assert await store.tokens(ann) == [
            four.token,
            three,
            structs.replace(one, last_used_at=three.created_at + HOUR),
        ]
        names = ["1", "2", "3", "4", "bob's"]
        digests = [digest(name) for name in names]
        assert await owners(store, *digests) == [ann, None, ann, ann, bob]
        # A new one is kept, even if the others are from the future.
        await store.record_seen({}, dict.fromkeys(digests, four.token.created_at + HOUR))
        five = await add_token(store, ann, "5")
        assert five in await store.tokens(ann)
        assert len(await store.tokens(ann)) == 3

    @ensureDeferred
    async def test_a_refused_token_displaces_none(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(token_statements, "MAX_TOKENS", 2)
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        for name, displaced in (("1", False), ("2", True)):
            added = await store.add_token(ann, digest(name))
            assert added is not None
            assert added.displaced is displaced
        assert await store.add_token(ann, digest("3"), verified="another hash") is None
        assert await owners(store, digest("1"), digest("2")) == [ann, ann]

    @ensureDeferred
    async def test_tokens_that_are_added_at_once_are_limited_too(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(token_statements, "MAX_TOKENS", 4)
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        digests = [digest(f"{number}") for number in range(9)]
        await gatherResults([store.add_token(ann, each) for each in digests])
        assert [owner for owner in await owners(store, *digests) if owner is not None] == [ann] * 4

    @ensureDeferred
    async def test_thousands_of_tokens_of_older_versions_are_removed_little_by_little(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        for number in range(7):
            await add_token(store, ann, f"{number}")
        monkeypatch.setattr(token_statements, "MAX_TOKENS", 2)
        digests = [digest(f"{number}") for number in range(9)]
        await add_token(store, ann, "7")
        assert await owners(store, *digests) == [None] * 3 + [ann] * 5 + [None]

    @ensureDeferred
    async def test_ids_are_never_reused(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        ids = []
        for number in range(4):
            token = await add_token(store, ann, f"{number}")
            ids.append(token.id)
            assert await store.delete_token_by_id(ann, token.id) is True
        assert ids == sorted(set(ids))

    @ensureDeferred
    async def test_a_token_is_revoked_by_its_id(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        one, two = [await add_token(store, ann, name) for name in ("1", "2")]
        assert await store.delete_token_by_id(bob, one.id) is False
        assert await store.delete_token_by_id(ann, MAX_INTEGER) is False
        assert await store.delete_token_by_id(ann, one.id) is True
        assert await store.delete_token_by_id(ann, one.id) is False
        assert await store.tokens(ann) == [two]

    @ensureDeferred
    async def test_all_tokens_but_one_are_revoked(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        for name in ("1", "2", "3"):
            await add_token(store, ann, name)
        await add_token(store, bob, "bob's")
        digests = [digest(name) for name in ("1", "2", "3", "bob's")]
        await store.delete_other_tokens(ann, digest("2"))
        assert await owners(store, *digests) == [None, ann, None, bob]
        await store.delete_other_tokens(ann, digest("bob's"))
        await store.delete_other_tokens(bob, None)
        assert await owners(store, *digests) == [None] * 4

    @ensureDeferred
    async def test_the_last_use_of_tokens_is_recorded(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        for number in range(20):
            await add_token(store, ann, f"{number}")
        used = {digest(f"{number}"): 1000 + number for number in range(1, 20)}
        await store.record_seen({bob: 5}, {**used, digest("unknown"): 7})
        found = {token.digest: token.last_used_at for token in await store.tokens(ann)}
        assert found == {**used, digest("0"): None}
        account = await store.account(bob)
        assert account is not None
        assert account.last_seen_at == 5
        for at, expected in ((999, 1001), (1002, 1002)):
            await store.record_seen({}, {digest("1"): at})
            [one] = [token for token in await store.tokens(ann) if token.digest == digest("1")]
            assert one.last_used_at == expected

    @ensureDeferred
    async def test_a_token_is_added_for_the_verified_password_only(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        for verified, added in (("hash of ann", True), ("another hash", False)):
            token = await store.add_token(ann, digest(verified), TokenOptions(), verified)
            assert (token is not None) is added
        assert len(await store.tokens(ann)) == 1


class ChangeContract:
    """Changes of passwords and email addresses."""

    @ensureDeferred
    async def test_email_and_password_are_changed(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        before = await store.account(ann)
        assert before is not None
        changed = await store.change_account(AccountChange(ann, "hash of ann", email="new@x"))
        assert changed == await store.account(ann)
        assert changed is not None
        assert (changed.username, changed.email) == (before.username, "new@x")
        assert await store.credentials("ann") == Credentials(ann, "hash of ann")
        await store.record_seen({ann: 7}, {})
        changed = await store.change_account(AccountChange(ann, "hash of ann", "new hash"))
        assert changed == await store.account(ann)
        assert changed is not None
        assert (changed.email, changed.last_seen_at) == ("new@x", 7)
        assert await store.password_hashes([ann, bob, MAX_INTEGER]) == {
            ann: "new hash",
            bob: "hash of bob",
        }

    @ensureDeferred
    async def test_nothing_is_changed_unless_the_password_was_verified(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await add_token(store, ann, "1")
        await store.delete_account(bob)
        for user_id, verified in ((ann, "wrong"), (bob, "hash of bob"), (MAX_INTEGER, "hash")):
            change = AccountChange(user_id, verified, "new hash", "new@x")
            assert await store.change_account(change) is None
        assert await store.password_hashes([ann, bob]) == {ann: "hash of ann"}
        assert await owners(store, digest("1")) == [ann]

    @ensureDeferred
    async def test_a_new_password_revokes_other_tokens(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        for name in ("1", "2"):
            await add_token(store, ann, name)
        await add_token(store, bob, "bob's")
        digests = [digest("1"), digest("2"), digest("bob's")]
        await store.change_account(AccountChange(ann, "hash of ann", email="x@y"))
        assert await owners(store, *digests) == [ann, ann, bob]
        await store.change_account(AccountChange(ann, "hash of ann", "2nd", kept=digest("2")))
        assert await owners(store, *digests) == [None, ann, bob]
        await store.change_account(AccountChange(ann, "2nd", "3rd"))
        assert await owners(store, *digests) == [None, None, bob]

    @ensureDeferred
    async def test_of_concurrent_changes_only_one_succeeds(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        changes = [AccountChange(ann, "hash of ann", f"{number}") for number in range(5)]
        results = await gatherResults([store.change_account(change) for change in changes])
        [winner] = [number for number, result in enumerate(results) if result is not None]
        assert await store.credentials("ann") == Credentials(ann, f"{winner}")

    @ensureDeferred
    async def test_tokens_of_the_old_password_do_not_survive_its_change(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ids = await add_accounts(store, *(f"user{number}" for number in range(8)))
        calls: list[Deferred[Any]] = []
        for number, user_id in enumerate(ids):
            old = f"hash of user{number}"
            calls += [
                store.add_token(user_id, digest(f"a{user_id}"), TokenOptions(), old),
                store.change_account(AccountChange(user_id, old, f"new hash {number}")),
                store.add_token(user_id, digest(f"b{user_id}"), TokenOptions(), old),
            ]
        await gatherResults(calls)
        digests = [digest(f"{which}{user_id}") for user_id in ids for which in "ab"]
        assert await owners(store, *digests) == [None] * 16


class DirectoryContract:
    """Users by the beginning of their names."""

    @ensureDeferred
    async def test_users_are_found_in_order_of_their_names(self, open_store: OpenStore) -> None:
        store = await open_store()
        names = ["anna", "Ann", "b", "AN", "an.x", "an_x", "an-x", "an9", "zoe", "a", "ao"]
        ids = dict(zip(names, await add_accounts(store, *names), strict=True))
        expected = ["AN", "an-x", "an.x", "an9", "an_x", "Ann", "anna"]
        users = [UserName(ids[name], name) for name in expected]
        for prefix in ("an", "AN", "aN"):
            assert await store.find_users(prefix, 100) == users
        assert await store.find_users("an", 3) == users[:3]
        for prefix, found in (("an_", ["an_x"]), ("z", ["zoe"]), ("anna", ["anna"]), ("y", [])):
            users = [UserName(ids[each], each) for each in found]
            assert await store.find_users(prefix, 9) == users

    @ensureDeferred
    async def test_deleted_users_are_not_found(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, _ = await add_accounts(store, "ann", "anna")
        await store.delete_account(ann)
        assert [user.username for user in await store.find_users("ann", 1)] == ["anna"]
