"""Files around a store: the lock that one opener holds, and making names and bytes durable."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outrider.store.port import StoreFault

LOCK_LIMIT_S = 10.0
"""How long to wait for another process that is just opening, or exchanging, the file."""


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Hold the right to open the store or to exchange its file; no two processes do so at once.

    It is not held while the store is in use: a process that hangs must not keep its successor out. What keeps the
    hanging one out is the incarnation, which each commit checks.
    """
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreFault(
            f"{path}: the store cannot be opened: {error.strerror}. Check that {path.parent} exists and may be written."
        ) from error
    try:
        limit = time.monotonic() + LOCK_LIMIT_S
        while not _locked(lock):
            if time.monotonic() > limit:
                raise StoreFault(f"{path}: another process has been opening the store for {LOCK_LIMIT_S} s. End it.")
            time.sleep(0.01)
        yield
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sync(path: Path) -> None:
    """Make a closed file's bytes, or a directory's names, durable."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def staging_file(path: Path, name: str) -> Path:
    """The staging file of a copy, beside the live one."""
    return Path(f"{path}.staging-{name}")


def remove_staging(path: Path) -> None:
    """Delete the staging files of this store."""
    for left in path.parent.glob(f"{path.name}.staging-*"):
        left.unlink(missing_ok=True)
