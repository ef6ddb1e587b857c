"""The worlds that are searched, by name. Each asks one question; together they cover the table."""

from typing import Any

from outrider.sim.copying import CopyBounds, CopyWorld
from outrider.sim.effects import EffectBounds, EffectWorld
from outrider.sim.model import Driver
from outrider.sim.requests import RequestBounds, RequestWorld
from outrider.sim.space import Space
from outrider.sim.sync import SyncBounds, SyncWorld
from outrider.sim.values import Bounds
from outrider.sim.world import World

WORLDS = {
    # One UE, three networks: relocation, onward, return, recalls and refusals, every message old and new.
    "one-ue": Bounds(networks=3, epochs=5, writes=2),
    # Holds and open units as steps of their own: what a unit meets when the key goes away under it.
    "units": Bounds(epochs=4, writes=2, units=True),
    # Frames of the copy and log entries come late and twice, also to a network that owns or has granted the key.
    "late-copies": Bounds(epochs=4, writes=2, stream=True),
    # An abort at any moment, told or not told.
    "abort": Bounds(networks=3, epochs=4, writes=1, aborts=True),
    "abort-units": Bounds(epochs=4, writes=1, units=True, aborts=True),
    # B loses its disk and is reborn: no second owner comes of it.
    "lost-disk": Bounds(networks=3, epochs=4, writes=1, losses=True),
    "lost-disk-star": Bounds(networks=3, star=True, epochs=3, writes=0, losses=True, forget=True),
    # Home loses its disk: it serves nothing until the disk is put back, or begins anew where all was home.
    "lost-home": Bounds(networks=3, epochs=4, writes=1, home_losses=True),
    "lost-home-star": Bounds(star=True, epochs=4, writes=1, home_losses=True, forget=True),
    # And home's operator declares it lost, at any time after that: home owns everything again, and goes on.
    "declared": Bounds(networks=3, epochs=4, writes=2, losses=True, declares=True),
    "declared-shadow": Bounds(epochs=3, writes=2, stream=True, losses=True, declares=True),
    "declared-star": Bounds(star=True, epochs=4, writes=1, losses=True, declares=True, forget=True),
    # `*p` and one UE that stays, goes alone, or goes with the rest; every message old and new.
    "star": Bounds(star=True, epochs=4, writes=1),
    "star-units": Bounds(star=True, epochs=3, writes=1, units=True, forget=True),
    "star-three": Bounds(networks=3, star=True, epochs=4, writes=0, forget=True),
    "star-two-ues": Bounds(ues=2, star=True, epochs=3, writes=1, forget=True),
    "star-all": Bounds(networks=3, ues=2, star=True, epochs=3, writes=0, forget=True, recalls=False, refusals=False),
}
"""Searched to their end in CI, in about a minute on one slow core."""

SYNC = {
    "sync-writes": SyncBounds(epochs=3, writes=2),
    "sync-returns": SyncBounds(epochs=4, writes=1),
    "sync-long": SyncBounds(epochs=6, writes=2, forget=True),
}
"""The worlds of `sync` mode, also in CI."""

REQUESTS = {
    # A request at the owner and two at the target, while the key goes there and back.
    "requests": RequestBounds("ABB", epochs=3),
    # Waits for a grant that end without one, and grants that are refused: what waits goes elsewhere, and comes back.
    "requests-impatient": RequestBounds("BB", impatience=2),
    "requests-refused": RequestBounds("AAB", epochs=3, refusals=True),
    # A forward whose receiver does not wait for the grant that it belongs to; three networks, and stale routes.
    "requests-told": RequestBounds("AAB", gives_up=True),
    "requests-three": RequestBounds("B", networks=3, epochs=3, gives_up=True),
    # Units, and reads while the key is held, as steps of their own.
    "requests-units": RequestBounds("ABB", units=True),
    "requests-reads": RequestBounds("AAB", reads="r--", epochs=3, units=True),
    # Crashes and deadlines; a consumer tries again with the same key.
    "requests-crash": RequestBounds("B", expiries=1, crashes=1),
    "requests-retry": RequestBounds("BB", keys="aa", expiries=1, crashes=1),
}
"""The worlds of requests, also in CI."""

EFFECTS = {
    # Units with two entries and with one, deliveries without an answer, a crash.
    "outbox": EffectBounds(entries="21", timeouts=1, crashes=1),
    # A timer that is armed anew each time it fires, while its key goes to and fro.
    "timers": EffectBounds(firings=2, crashes=1),
}
"""Outbox and timers, also in CI."""

COPYING = {
    # Two UEs are copied while they are written to; each may go alone before the rest goes with `*p`.
    "copy": CopyBounds(writes=1, crashes=0),
    # One that has gone alone comes back, and may go again.
    "copy-returns": CopyBounds(writes=1, crashes=0, returns=1),
    # The source or the target restarts in the middle of it.
    "copy-crash": CopyBounds(writes=2, early=False),
    # The target has copies of an earlier visit, and one too many: there is no staging file.
    "copy-again": CopyBounds(writes=1, visited=True, crashes=0),
}
"""The copy, also in CI."""

AnyBounds = Bounds | SyncBounds | RequestBounds | EffectBounds | CopyBounds

IN_CI: dict[str, AnyBounds] = {**WORLDS, **SYNC, **REQUESTS, **EFFECTS, **COPYING}
"""Everything that CI searches."""

LARGE: dict[str, AnyBounds] = {
    "large-one-ue": Bounds(networks=3, epochs=6, writes=3),
    "large-star": Bounds(star=True, epochs=5, writes=2, forget=True),
    "large-star-two-ues": Bounds(ues=2, star=True, epochs=4, writes=1, forget=True),
    "large-star-three": Bounds(networks=3, star=True, epochs=4, writes=1, forget=True),
    "large-star-all": Bounds(networks=3, ues=2, star=True, epochs=3, writes=0, forget=True),
    "large-sync": SyncBounds(epochs=7, writes=3, forget=True),
    "large-requests": RequestBounds("AAB", epochs=3, refusals=True, impatience=1),
    "large-requests-three": RequestBounds("AB", networks=3, epochs=4),
    "large-requests-crash": RequestBounds("AB", expiries=1, crashes=1),
    "large-outbox": EffectBounds(epochs=4, entries="121", timeouts=2, crashes=1),
    "large-copy": CopyBounds(writes=1),
}
"""By command line: minutes and gigabytes."""


def open_world(bounds: AnyBounds) -> Space[Any]:
    """The world with these bounds, with no rule removed."""
    match bounds:
        case Bounds():
            return World(Driver(bounds))
        case SyncBounds():
            return SyncWorld(bounds)
        case RequestBounds():
            return RequestWorld(bounds)
        case EffectBounds():
            return EffectWorld(bounds)
        case CopyBounds():
            return CopyWorld(bounds)
