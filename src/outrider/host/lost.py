"""Partners' stores that are lost (PROTOCOL.md §9): noticed by what they say, declared by an operator of home.

A store that comes back under another id, or in an older state, knows nothing of what was decided since: it is answered
STORE_LOST and nothing else. Its keys stay where they were, because the store may still be found, until an operator of
home says that it will not. Then home bans the store durably, hears nothing of it any more, and only after that takes
back every key that it had given to it. What the store did and home's shadow does not have is lost: `Loss` says of which
keys that may be. A store that was declared lost and lives learns it with home's first answer, and serves no more.
"""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import structlog

from outrider.core import limits
from outrider.core.ids import SHARED_STAR, key_text, partition_range
from outrider.core.loss import Loss, LostKey, Shadow
from outrider.core.refusal import Refusal
from outrider.host.migrations import HostMigration
from outrider.protocol import messages, ownership
from outrider.protocol.ownership import Ownership, Row
from outrider.store.port import ContextStore, SetValue

if TYPE_CHECKING:
    from outrider.host.host import Host

log = structlog.get_logger()

CAUSE = "STORE_LOST"
_BANNED = "lost-store:"
_SHADOWED = "shadowed-lsn:"
_PAUSE_S = 0.005


class LostStores:
    """What this host knows of its peers' stores that are not the ones that it knew."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._noticed: dict[str, str] = {}
        """Why a store counts as lost, by the store."""
        self._shadowed = {
            name.removeprefix(_SHADOWED): int(value) for name, value in host.store.values(_SHADOWED).items()
        }
        """Up to which lsn of its log home has a store's commits, by store; kept now and then."""
        self._kept = dict(self._shadowed)
        self._behind: set[bytes] = set()
        """Keys whose whole context was asked for, because an entry of them did not fit, and has not come."""
        self._banned = {
            name.removeprefix(_BANNED): msgspec.json.decode(value, type=Loss)
            for name, value in host.store.values(_BANNED).items()
        }

    # ---------------------------------------------------------------------------------------- noticing

    def notice(self, peer: str, why: str) -> None:
        """A peer's store is not the one that was known, or this one is not: no traffic until an operator has decided.

        `why` is a sentence, or the problem that the peer answered.
        """
        host, said = self._host, _problem(why)
        if host.migrations.open_with(peer):
            known = host.migrations.peer_store(peer) or ""
            if known not in self._noticed:
                log.error("store.lost", peer=peer, why=said.detail)
            self._noticed[known] = said.detail
            host.progress.news()
        else:  # nothing is at stake with the store before: it has been erased, and the next migration has another
            log.info("store.other", peer=peer, why=said.detail)
        if said.cause == "STORE_DECLARED_LOST" and peer == host.config.home_id and host.permitted:
            log.error("store.declared-lost", store=host.store.identity.store_id, by=peer)
            host.keep(asyncio.create_task(host.permit(False), name="stop serving"))

    def why(self, m: HostMigration) -> str:
        """Why the store that a migration is with counts as lost; empty if it does not, or is declared so already."""
        declared = m.peer_store_id in self._banned
        return "" if declared or m.finished else self._noticed.get(m.peer_store_id or "", "")

    def banned(self, store_id: str | None) -> bool:
        """Whether a store was declared lost here: it is never spoken with again."""
        return store_id in self._banned

    def shadow_came(self, peer: str, lsn: int, need: list[bytes]) -> None:
        """Entries of a peer's log are durable here, up to an lsn, but for keys that are needed whole."""
        store_id = self._host.peers.heard(peer).store_id
        if store_id is not None:
            self._shadowed[store_id] = max(lsn, self._shadowed.get(store_id, 0))
        self._behind.update(need)

    def whole_came(self, key: bytes) -> None:
        """The whole context of a key has come."""
        self._behind.discard(key)

    async def look(self) -> None:
        """Now and then: say something where nothing is under way, because the answer tells whose store it is; and keep
        how far the shadows are, so that a restart does not forget what is missing."""
        for m in self._host.migrations.all:
            if m.finished or self.banned(m.peer_store_id):
                continue
            lane = self._host.peers.lane(m.peer)
            if lane.connected and self._noticed.pop(m.peer_store_id or "", None) is not None:
                log.info("store.found", peer=m.peer, store=m.peer_store_id)
                self._host.progress.news()
            if not lane.waiting:
                lane.send(messages.Void())
        for store_id, lsn in list(self._shadowed.items()):
            if self._kept.get(store_id) != lsn:
                self._kept[store_id] = lsn
                await self._host.committer.submit(SetValue(_SHADOWED + store_id, str(lsn).encode()))

    # --------------------------------------------------------------------------------------- declaring

    async def why_not(self, m: HostMigration, store_id: str) -> Refusal | None:
        """Why a store may not be declared lost; it is asked once more whether it is."""
        refusal = self._not_ours(m, store_id)
        if refusal is not None or self.banned(store_id):
            return refusal
        if store_id not in self._noticed and await self._answers(m.peer):
            facts = {"peer": m.peer, "store": store_id}
            sentence = f"Store {store_id} of {m.peer} answers: nothing is lost."
            return Refusal("STORE_ANSWERS", sentence, facts, "`outrider migration return` brings the UEs back.", 409)
        return None

    async def declare(self, m: HostMigration, store_id: str) -> Loss | Refusal:
        """Ban a store for ever and take back what it had; the same again goes on where that was interrupted."""
        refusal = self._not_ours(m, store_id)
        if refusal is not None:
            return refusal
        loss = self._banned.get(store_id)
        if loss is None:
            await self._host.abort(m.migration_id, CAUSE)
            loss = await self._loss(m, store_id)
            self._banned[store_id] = loss
            await self._host.committer.submit(SetValue(_BANNED + store_id, msgspec.json.encode(loss)))
            log.warning("store.declared-lost", store=store_id, peer=m.peer, ues=loss.ues, shadow=loss.shadow)
        await self._host.peers.part(m.peer)
        self._behind.clear()
        await self._take_back(m.peer)
        return loss

    def _not_ours(self, m: HostMigration, store_id: str) -> Refusal | None:
        facts = {"peer": m.peer, "store": store_id}
        if not self._host.config.is_home:
            sentence = f"{self._host.me} hosts this service only: what its copies are worth is home's to say."
            return Refusal("NOT_HOME", sentence, facts | {"home": self._host.config.home_id}, status=409)
        if store_id != m.peer_store_id:
            sentence = f"The migration is not with store {store_id}."
            return Refusal("STORE_UNKNOWN", sentence, facts | {"known": m.peer_store_id or ""}, status=409)
        return None

    async def _answers(self, peer: str) -> bool:
        """Whether the store that was known takes a message now."""
        lane = self._host.peers.lane(peer)
        try:
            async with asyncio.timeout(limits.STORE_PROBE_MS / 1000):
                await lane.taken(lane.send(messages.Void()))
        except TimeoutError:
            return False
        return True

    async def _loss(self, m: HostMigration, store_id: str) -> Loss:
        host, peer = self._host, m.peer
        rows = await host.reading(lambda store: _rows_at(store, peer))
        ues = await host.reading(lambda store: _ues(store, rows))
        heard = host.peers.heard(peer).high_lsn
        shadowed = self._shadowed.get(store_id)
        behind = max(0, heard - shadowed) if shadowed is not None else None if heard else 0

        def shadow(key: bytes, row: Row) -> Shadow:
            if key in self._behind:
                return "behind"
            return "followed" if row.state is Ownership.FOREIGN and behind == 0 else "unknown"

        keys = [LostKey(key_text(k), ues[k], row.epoch, shadow(k, row)) for k, row in rows.items() if k != SHARED_STAR]
        counts = Counter(k.shadow for k in keys)
        keys.sort(key=lambda k: ("behind", "unknown", "followed").index(k.shadow))
        return Loss(
            store_id=store_id,
            peer=peer,
            declared_ms=host.utc_ms(),
            ues=sum(ues.values()),
            shared=sum(k[:1] == b"s" for k in rows),
            shadow={name: counts[name] for name in ("unknown", "behind", "followed")},
            behind_entries=behind,
            keys=keys[: limits.LOST_KEYS],
            more_keys=max(0, len(keys) - limits.LOST_KEYS),
        )

    async def _take_back(self, peer: str) -> None:
        host = self._host
        while rows := await host.reading(lambda store: _rows_at(store, peer)):
            keys = list(rows)
            for start in range(0, len(keys), limits.GRANT_BATCH_KEYS):
                left = keys[start : start + limits.GRANT_BATCH_KEYS]
                for key in left:
                    host.actor(key).event(ownership.DeclaredLost(peer))
                while left := [key for key in left if host.store.row(key).peer == peer]:
                    await asyncio.sleep(_PAUSE_S)
        host.outbox.start()


class _Problem(msgspec.Struct):
    detail: str
    cause: str = ""


def _problem(text: str) -> _Problem:
    try:
        return msgspec.json.decode(text, type=_Problem)
    except msgspec.DecodeError:
        return _Problem(text)


def _rows_at(store: ContextStore, peer: str) -> dict[bytes, Row]:
    """The rows of keys that a peer owns or was given."""
    rows = store.rows_in(Ownership.GRANTED) | store.rows_in(Ownership.FOREIGN)
    return {key: row for key, row in rows.items() if row.peer == peer}


def _ues(store: ContextStore, rows: dict[bytes, Row]) -> dict[bytes, int]:
    """How many UEs each of these rows is about, as far as there are copies here."""
    found = {}
    for key in rows:
        if key[:1] == b"u":
            found[key] = 1
        elif key[:1] == b"p" and key != SHARED_STAR:
            start, stop = partition_range(key[1])
            found[key] = max(0, store.copy_count(start, stop) - len(store.own_rows(start, stop)))
        else:
            found[key] = 0
    return found
