"""Ending processes for certain: also one that an earlier, crashed node left behind."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import NamedTuple

import msgspec


class Mark(msgspec.Struct, frozen=True):
    """Which process was started: its id, and the start time that tells it from a later one with the same id."""

    pid: int
    start_ticks: int


class Ended(NamedTuple):
    """How a process was ended."""

    killed: bool
    """It did not end by itself in time."""


def mark(pid: int) -> Mark | None:
    """The mark of a running process; None if there is none with this id, or it only waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before may hold anything
    return None if fields[0] in (b"Z", b"X") else Mark(pid, int(fields[19]))


async def end_leftover(file: Path, patience_s: float) -> Ended | None:
    """End the process that a mark in a file names, if it still runs, and wait until it is gone.

    It is not our child: its parent, the crashed node, is gone, and init reaps it. It ends by itself when it notices
    that; after `patience_s` it is killed.
    """
    known = _read(file)
    if known is None:
        return None
    try:
        descriptor = os.pidfd_open(known.pid)
    except ProcessLookupError:
        return None
    try:
        if mark(known.pid) != known:  # checked after opening, so that it cannot be another process from here on
            return None
        killed = False
        if not await _gone(descriptor, patience_s):
            killed = True
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            await _gone(descriptor, None)
        return Ended(killed)
    finally:
        os.close(descriptor)


def _read(file: Path) -> Mark | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Mark)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


async def _gone(descriptor: int, patience_s: float | None) -> bool:
    """Wait until the process of a pidfd has ended."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, gone.set)
    try:
        async with asyncio.timeout(patience_s):
            await gone.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True


async def end_child(process: asyncio.subprocess.Process, patience_s: float) -> Ended:
    """Ask a child to end, kill it if it does not in time, and reap it."""
    killed = False
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(patience_s):
                await process.wait()
        except TimeoutError:
            killed = True
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    await process.wait()
    return Ended(killed)
