"""Faults of the disk as sentences: which file, what happened, what to do."""

from collections.abc import Callable
from pathlib import Path

import apsw

from outrider.store.port import StoreFault

OnFault = Callable[[StoreFault], None]

_WHAT: tuple[tuple[type[apsw.Error], str, str], ...] = (
    (apsw.FullError, "the disk is full", "Free space on it, then start again."),
    (
        apsw.CorruptError,
        "the file is damaged",
        "Set it aside with its -wal file; a fresh store gets its contexts from the other network or a saved image.",
    ),
    (
        apsw.NotADBError,
        "the file is not a context store, or its beginning is destroyed",
        "Check the path; if it is the right file, set it aside and start with a fresh one.",
    ),
    (apsw.ReadOnlyError, "the file cannot be written", "Check its permissions and how the disk is mounted."),
    (apsw.PermissionsError, "the file may not be opened", "Check its permissions."),
    (apsw.CantOpenError, "the file cannot be opened", "Check that its directory exists and may be written."),
    (apsw.BusyError, "another process holds the file", "End that process, then start again."),
    (apsw.LockedError, "another process holds the file", "End that process, then start again."),
    (apsw.ConnectionClosedError, "the store has been closed", "Open it again."),
    (apsw.IOError, "the disk failed", "Look into the system's log; replace the disk if it reports errors."),
    (apsw.NoMemError, "there is no memory left", "Give the process more memory, then start again."),
)


def fault(path: Path, doing: str, error: Exception) -> StoreFault:
    """The fault that this error is, while doing something with this file."""
    what, remedy = "it failed", "Look into the system's log."
    for kind, words, advice in _WHAT:
        if isinstance(error, kind):
            what, remedy = words, advice
            break
    code = getattr(error, "extendedresult", 0)
    name = apsw.mapping_extended_result_codes.get(code) or apsw.mapping_result_codes.get(code)
    detail = f"{name}: {error}" if name else str(error)
    return StoreFault(f"{path}: {doing}: {what} ({detail}). {remedy}")
