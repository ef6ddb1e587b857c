"""Seeds what production code draws from the system, and makes its key space small, while a world runs."""

import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from unittest import mock

from outrider.core import ids
from outrider.host import failpoints

PARTITIONS = 4
"""A rule speaks of one partition: so many show what 256 do, and a sweep over them is sixty times shorter."""

_ROOM = shutil._ntuple_diskusage(1 << 40, 0, 1 << 40)
"""What is free on every disk, wherever a world runs; full disks are a fault of their own."""

_UID_BYTES = 16
"""Of a UE key (`core.ids.ue_key`), whose first byte is its partition."""


@contextmanager
def seeded(seed: str) -> Iterator[None]:
    """`os.urandom` and `secrets` draw from this seed, and UE keys fall into the partitions that there are."""
    chance = Random(f"{seed}/system")

    def urandom(size: int) -> bytes:
        drawn = bytearray(chance.randbytes(size))
        if size == _UID_BYTES:
            drawn[0] %= PARTITIONS
        return bytes(drawn)

    with (
        mock.patch.object(os, "urandom", urandom),
        mock.patch.object(secrets, "token_bytes", lambda size=32: chance.randbytes(size)),
        mock.patch.object(secrets, "token_hex", lambda size=32: chance.randbytes(size).hex()),
        mock.patch.object(shutil, "disk_usage", return_value=_ROOM),
        few_partitions(),
    ):
        yield


@contextmanager
def at_failpoints(reached: Callable[[str], None]) -> Iterator[None]:
    """Be told of every fail-point that production code passes."""
    reach = failpoints.reach
    with ExitStack() as stack:
        for _, module in sorted(sys.modules.items()):
            if module.__name__.startswith("outrider.host.") and getattr(module, "reach", None) is reach:
                stack.enter_context(mock.patch.object(module, "reach", reached))
        yield


@contextmanager
def few_partitions() -> Iterator[None]:
    """All loaded modules of Outrider see `PARTITIONS` partitions."""
    every = ids.PARTITIONS
    named = [m for name, m in sorted(sys.modules.items()) if name.startswith("outrider.") and hasattr(m, "PARTITIONS")]
    changed = [module for module in named if every == module.PARTITIONS]
    for module in changed:
        vars(module)["PARTITIONS"] = PARTITIONS
    try:
        yield
    finally:
        for module in changed:
            vars(module)["PARTITIONS"] = every
