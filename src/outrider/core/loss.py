"""What is lost with a store: told by the host that declares it lost, kept by the LMSF, shown to people."""

from typing import Literal

import msgspec

Shadow = Literal["unknown", "behind", "followed"]
"""unknown: what the store did with a key is not known. behind: home lacks something that it did for certain. followed:
home has all that the store had said that it did; only what it did after its last word is not there."""


class LostKey(msgspec.Struct, frozen=True, rename="camel"):
    """A key that a lost store owned or was given; `*p` stands for the UEs of a partition without a row of their own."""

    key: str
    ues: int
    epoch: int
    shadow: Shadow


class Loss(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What was taken back from a store that was declared lost, and what may be lost of it."""

    store_id: str
    peer: str
    declared_ms: int
    ues: int
    """UEs that the store owned or was given."""
    shared: int
    shadow: dict[str, int]
    """How many rows are `unknown`, `behind`, `followed`."""
    behind_entries: int | None
    """Commits that the store had told of and home does not have, of whichever keys; None if that is not known."""
    keys: list[LostKey]
    """Those that may have lost most first; only so many."""
    more_keys: int
