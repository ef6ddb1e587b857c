"""Whether the store that a keeper finds is the one that its node knows (PROTOCOL.md §9, ADR 0010).

A store that is gone, or an older copy of it, knows nothing of what was decided since. Peers notice that (`lost`), but a
home that began anew would serve, as their owner, UEs that a partner owns. So the node keeps, away from the store, how
far each store of a service was, and a keeper opens none that is behind it.
"""

from collections.abc import Callable, Sequence

from outrider.core.refusal import Refusal, Refused
from outrider.host.config import KeeperConfig
from outrider.store.port import StoreMark

CAUSE = "STORE_LOST"


def admission(config: KeeperConfig) -> Callable[[StoreMark | None], None]:
    """What the opening of the store asks: raises `Refused` (STORE_LOST) unless it may be served from."""

    def admit(found: StoreMark | None) -> None:
        why = why_not(config.known_stores, found, home=config.is_home)
        if why is not None:
            raise Refused(_lost(config, why, found))

    return admit


def why_not(known: Sequence[StoreMark], found: StoreMark | None, *, home: bool) -> str | None:
    """Why the store that is found is not served from, as a sentence; None if it may be. The last known is the newest.

    A host that is not home begins with nothing in a new store, and its partners tell it from the lost one; so only an
    older copy of a store that it had is refused there. (A partner cannot: what an older copy says looks like late
    frames of the newest, until it has been started more often than that.)
    """
    if not known:
        return None
    newest = known[-1]
    if found is None:
        return f"There is no store; the last one here was {newest.store_id}." if home else None
    same = next((mark for mark in known if mark.store_id == found.store_id), None)
    if same is None or (home and same != newest):
        return f"The store is {found.store_id}; the last one here was {newest.store_id}." if home else None
    if found.incarnation < same.incarnation:
        return f"The store is an older copy: it was opened {found.incarnation} times, and {same.incarnation} were seen."
    if found.changes < same.changes:
        return f"The store is an older copy: it ends at change {found.changes}, and {same.changes} were seen."
    return None


def _lost(config: KeeperConfig, why: str, found: StoreMark | None) -> Refusal:
    newest = config.known_stores[-1]
    facts = {"known": newest.store_id, "incarnation": str(newest.incarnation), "changes": str(newest.changes)}
    if found is not None:
        facts |= {"found": found.store_id, "foundIncarnation": str(found.incarnation)}
        facts |= {"foundChanges": str(found.changes)}
    remedy = f"Put the newest files of {config.data} back, all of them, and start the node again."
    if config.is_home:
        remedy += (
            " If they are gone for good and no UE can be elsewhere, `outrider service restore` or"
            f" `outrider service begin-anew {config.service}` brings the service back without them."
        )
    else:
        remedy += f" If they are gone for good, the operator of {config.home_id} declares the store lost."
    return Refusal(CAUSE, f"{why} Nothing of {config.service} is served here.", facts, remedy, status=503)
