"""Takes one mechanism out of the processes of a node (`outrider.bench.ablation`); the keeper's own code knows nothing.

What it changes are names inside modules, so a change of those breaks it: `tests/bench/test_ablation.py` sees that.
"""

import asyncio
import os
import sys
from typing import Any

_FASTEST = -(1 << 17)
"""The level at which zstd does nothing but to put content into a frame."""


def _compression() -> None:
    from outrider.core import compress

    compress._LEVEL = _FASTEST


def _holds() -> None:
    from outrider.core import limits
    from outrider.core.ids import PARTITIONS

    limits.FLIPS = limits.FLIPS_HELD = PARTITIONS
    limits.HOLD_LIMIT_MS = 60_000  # a freeze lasts as long as it lasts


def _shadow() -> None:
    from outrider.host.shadow import Shadow

    async def run(self: Any) -> None:
        await asyncio.Future()

    Shadow._run = run  # type: ignore[method-assign]


def _log() -> None:
    from outrider.core.ids import partition_key, partition_range
    from outrider.host.copying import Copy
    from outrider.protocol.ownership import Ownership

    async def rounds(self: Any) -> None:
        """What has changed since is sent whole, when the first pass is over; grants carry what is newer."""
        await self._drain()
        if self._scanning.locked() or not self.unsent:
            return
        changed, self.unsent = self.unsent, []
        number = self.lane.through
        for partition in sorted({e.key[1] for e in changed if e.key[:1] == b"u"}):
            if self._host.store.row(partition_key(partition)).state is Ownership.OWNED:
                number = await self._chunks(*partition_range(partition))
        self._numbers[number] = changed[-1].lsn

    Copy._follow = rounds  # type: ignore[method-assign]


_OF_KEEPERS = {"holds": _holds, "shadow": _shadow, "log": _log}

_without = os.environ.get("OUTRIDER_BENCH_WITHOUT", "")
if _without == "compression":
    _compression()
elif _without in _OF_KEEPERS and "outrider.host.keeper" in sys.orig_argv:
    _OF_KEEPERS[_without]()
