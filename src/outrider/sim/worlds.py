"""The worlds that are searched, by name. Each asks one question; together they cover the table."""

from typing import Any

from outrider.sim.model import Driver
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

LARGE: dict[str, Bounds | SyncBounds] = {
    "large-one-ue": Bounds(networks=3, epochs=6, writes=3),
    "large-star": Bounds(star=True, epochs=5, writes=2, forget=True),
    "large-star-two-ues": Bounds(ues=2, star=True, epochs=4, writes=1, forget=True),
    "large-star-three": Bounds(networks=3, star=True, epochs=4, writes=1, forget=True),
    "large-star-all": Bounds(networks=3, ues=2, star=True, epochs=3, writes=0, forget=True),
    "large-sync": SyncBounds(epochs=7, writes=3, forget=True),
}
"""By command line: minutes and gigabytes."""


def open_world(bounds: Bounds | SyncBounds) -> Space[Any]:
    """The world with these bounds, with no rule removed."""
    return SyncWorld(bounds) if isinstance(bounds, SyncBounds) else World(Driver(bounds))
