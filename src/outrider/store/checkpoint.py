"""Moves what the write-ahead log holds into the file, beside the commits and not between them.

A checkpoint of a few thousand scattered pages takes tens of milliseconds, and a commit that makes it is that much
slower. So a thread makes it. The log can be begun anew only when a checkpoint has caught up with the last commit; the
thread comes close, and the writer does the small rest between two commits.
"""

import threading
from pathlib import Path

import apsw

from outrider.store.faults import OnFault, fault
from outrider.store.port import Durability
from outrider.store.schema import connect_writer

CHECKPOINT_PAGES = 1_000
"""Length of the write-ahead log, in pages, at which a checkpoint begins."""

REST_PAGES = 100
"""What the writer may do itself between two commits: a few milliseconds."""

BEHIND_PAGES = 16 * CHECKPOINT_PAGES
"""A log this long means that the disk cannot keep up; the writer waits for it then."""


class Checkpointer:
    """A thread with a connection of its own; `stop` ends it."""

    def __init__(self, path: Path, durability: Durability, on_fault: OnFault) -> None:
        self._path = path
        self._on_fault = on_fault
        self._db = connect_writer(path, durability)
        self._pages = 0
        self._wake = threading.Event()
        self._rest = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="checkpointer", daemon=True)
        self._thread.start()

    def grown(self, pages: int) -> None:
        """The writer's log has so many pages after a commit."""
        self._pages = pages
        if pages >= CHECKPOINT_PAGES and not self._wake.is_set():
            self._wake.set()

    def before_commit(self, writer: apsw.Connection) -> None:
        """Let the writer do the rest of a checkpoint, if there is one to do."""
        if self._rest.is_set() or self._pages >= BEHIND_PAGES:
            self._rest.clear()
            try:
                writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except apsw.BusyError:
                return  # the thread is at it

    def stop(self) -> None:
        """End the thread and close its connection."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self._db.close()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if self._stopping:
                return
            try:
                for _ in range(8):
                    _, moved = self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                    if self._pages - moved <= REST_PAGES:
                        break
                self._rest.set()
            except apsw.BusyError:
                pass  # the writer is at it
            except apsw.Error as error:
                self._on_fault(fault(self._path, "moving the write-ahead log into the file", error))
                return
            self._wake.clear()
            if self._stopping:  # asked while it was set already
                return
