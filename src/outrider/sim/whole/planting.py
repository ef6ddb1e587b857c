"""What a planted fault is; those of hosts are in `planted`, those of LMSFs in `planted_lmsf`."""

from collections.abc import Callable
from typing import Any, NamedTuple

Put = Callable[[Any, str, Any], None]
"""Puts a twin in the place of what a module or class has under a name."""


class Planted(NamedTuple):
    """A rule taken out: what goes wrong, and which clause of PROTOCOL.md, or of DESIGN, forbids it."""

    sentence: str
    clause: str
    plant: Callable[[Put], None]
    lmsfs: bool = False
    """It is in an LMSF, so only worlds that have some can catch it."""
