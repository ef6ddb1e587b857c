"""Bulk work on a store's files: reading chunks of the live one, loading a staging file beside it.

Both take a processor for seconds, which requests wait for if it happens beside the event loop, whatever the thread:
Python's lock is one for all. So a keeper has it done by another process (`bulk_process`), at a lower priority. What
is done is the same wherever it is done: this class.
"""

from pathlib import Path
from typing import NamedTuple

from outrider.store.packed import pack_chunk, unpack_chunk, unpack_log
from outrider.store.port import Followed, StagingBroken, StoreFault
from outrider.store.reader import Reader
from outrider.store.staging import StagingFile


class Scanned(NamedTuple):
    """A chunk as it travels: where it ends, the lsn that it was read at, and how much is in it."""

    stop: bytes
    read_lsn: int
    ues: int
    body_bytes: int
    content: bytes


class Loaded(NamedTuple):
    """What came of a chunk: how many keys are in place, and those whose records do not add up to their head."""

    keys: int
    unproved: list[bytes]


class BulkWork:
    """Works for one thread. Raises `StoreFault` for the live file and `StagingBroken` for a staging file."""

    def __init__(self, live: Path) -> None:
        self._live = live
        self._reader = Reader(live)
        self._staging: StagingFile | None = None

    def scan(self, start: bytes, stop: bytes, limit: int) -> Scanned:
        """The chunk that begins at `start`; as `ContextStore.chunk`."""
        end, read_lsn, heads, records = self._reader.columns(start, stop, limit)
        ues = sum(1 for key, *_ in heads.rows() if key[:1] == b"u")
        return Scanned(end, read_lsn, ues, len(records.bodies), pack_chunk(heads, records))

    def stage(self, name: str, digest_key: bytes) -> None:
        """Load into this staging file from now on."""
        self._staging = StagingFile(self._live, name, digest_key, begun=True)

    def load(self, content: bytes) -> Loaded:
        """Load a chunk, whole or not at all; see `Staging.load`."""
        try:
            heads, records = unpack_chunk(content)
        except ValueError as error:
            raise StagingBroken(str(error)) from None
        unproved = self._staged().load(heads, records)
        return Loaded(0 if unproved else len(heads), unproved)

    def follow(self, content: bytes) -> Followed:
        """Apply log entries to what is loaded; see `Staging.follow`."""
        try:
            entries = unpack_log(content)
        except ValueError as error:
            raise StagingBroken(str(error)) from None
        return self._staged().follow(entries)

    def flush(self) -> None:
        """Give what is loaded to the disk, so that adopting it has little left to do."""
        self._staged().flush()

    def close(self) -> None:
        """Close the files."""
        self._reader.close()
        if self._staging is not None:
            self._staging.release()
            self._staging = None

    def _staged(self) -> StagingFile:
        if self._staging is None:
            raise StagingBroken("there is no staging file")
        return self._staging


FAULTS: tuple[type[Exception], ...] = (StagingBroken, StoreFault)
"""What `BulkWork` raises, and what a process that does it for another one reports by name."""
