"""How far the store of each service was seen: kept in the journal, away from the store itself.

A store that is gone, or an older copy of it, is told by this when its host starts (`host.own_store`, ADR 0010). A mark
that is a few seconds old is enough to know a copy that is older than that.
"""

from collections.abc import Awaitable, Callable

import msgspec

from outrider.core.refusal import Refusal
from outrider.functions.lmsf.journal import Journal
from outrider.store.port import StoreMark


class _Kept(msgspec.Struct, frozen=True, rename="camel"):
    service: str
    stores: tuple[StoreMark, ...]


class StoreMarks:
    """The stores that services have had here, the newest of each last (`ports.Stores`)."""

    def __init__(self, journal: Journal, on_lost: Callable[[str, Refusal], Awaitable[None]]) -> None:
        self._journal = journal
        self._on_lost = on_lost
        kept = [msgspec.json.decode(body, type=_Kept) for body in journal.all("store")]
        self._all = {k.service: k.stores for k in kept}

    def known(self, service: str) -> tuple[StoreMark, ...]:
        """The stores that the service has had here, each as far as it was seen; the newest last."""
        return self._all.get(service, ())

    async def note(self, service: str, mark: StoreMark) -> None:
        """Remember, durably, how far the store of a service is; what was seen before is never taken back."""
        known = self.known(service)
        before = next((m for m in known if m.store_id == mark.store_id), mark)
        most = StoreMark(
            mark.store_id, max(mark.incarnation, before.incarnation), max(mark.changes, before.changes)
        )  # fmt: skip
        await self._put(service, (*(m for m in known if m.store_id != mark.store_id), most))

    async def begin(self, service: str, store_id: str) -> None:
        """From now on the service has this store here, and no other."""
        await self._put(service, (StoreMark(store_id, 0, 0),))

    async def _put(self, service: str, stores: tuple[StoreMark, ...]) -> None:
        if stores != self.known(service):
            await self._journal.put("store", service, msgspec.json.encode(_Kept(service, stores)))
            self._all[service] = stores

    async def forget(self, service: str) -> None:
        """The service has no store here any more: the next one is its first."""
        await self._journal.drop("store", service)
        self._all.pop(service, None)

    async def lost(self, service: str, refusal: Refusal) -> None:
        """A host that ran is not started again: its store is lost."""
        await self._on_lost(service, refusal)
