"""What no implementation on this machine and link can be faster than, measured beside the runs and drawn with them."""

import os
import statistics
import tempfile
import time
from pathlib import Path

import msgspec

from outrider.bench.options import Link

PIECE_BYTES = 32 << 20
PIECES = 3


class Bound(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The state has to cross the link, and has to be durable at the target."""

    disk_bytes_per_s: float
    """Written in a row and synced, where the stores are."""
    link: Link

    def seconds(self, state_bytes: float, wire_bytes: float) -> float:
        """For so much state that becomes so many bytes on the wire; both may go on at the same time."""
        link_s = 0.0 if self.link.mbit is None else wire_bytes * 8 / (self.link.mbit * 1e6)
        return max(state_bytes / self.disk_bytes_per_s, link_s) + self.link.rtt_ms / 2000


def bound(link: Link, directory: Path | None = None) -> Bound:
    """Measure the disk below the directory, or where stores are put by default."""
    with tempfile.TemporaryDirectory(prefix="outrider-bound-", dir=directory) as place:
        rates = [_written(Path(place) / str(number)) for number in range(PIECES)]
    return Bound(disk_bytes_per_s=round(statistics.median(rates)), link=link)


def _written(path: Path) -> float:
    """Bytes a second of one file."""
    piece = os.urandom(PIECE_BYTES)
    started = time.monotonic()
    with path.open("wb") as file:
        file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return PIECE_BYTES / (time.monotonic() - started)
