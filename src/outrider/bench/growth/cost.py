"""What processes hold at a moment, from /proc: memory of their own and shared, open files, threads, CPU seconds."""

import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from outrider.demo import usage


class Cost(msgspec.Struct, frozen=True, rename="camel"):
    """Of some processes together."""

    processes: int = 0
    pss_mb: float = 0.0
    """Resident memory, each shared page divided among those that share it: what they cost the machine together."""
    rss_mb: float = 0.0
    open_files: int = 0
    threads: int = 0
    cpu_s: float = 0.0
    """Since each of them began."""

    def __add__(self, other: "Cost") -> "Cost":
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return Cost(*(round(a + b, 3) for a, b in pairs))


def of(pid: int) -> Cost:
    """What one process holds; nothing if it has ended."""
    used = usage.used(pid)
    try:
        rollup = _fields(Path(f"/proc/{pid}/smaps_rollup").read_text())
        status = _fields(Path(f"/proc/{pid}/status").read_text())
        files = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return Cost()
    if used is None:
        return Cost()
    mb = 1024
    return Cost(1, rollup["Pss"] / mb, rollup["Rss"] / mb, files, status["Threads"], used.cpu_s)


def _fields(text: str) -> dict[str, int]:
    """The numbers of a file of lines `Name: 12 kB`."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        word = value.split()[0] if value.split() else ""
        if word.isdigit():
            found[name] = int(word)
    return found


def by_kind(roots: Iterable[int]) -> dict[str, Cost]:
    """What processes and their descendants hold, by what they are: node, keeper, worker, bulk."""
    found: dict[str, Cost] = {}
    for root in roots:
        for pid in usage.family(root):
            kind = usage.kind(pid)
            found[kind] = found.get(kind, Cost()) + of(pid)
    return found


async def idle_cpu(roots: Iterable[int], seconds: float) -> dict[str, float]:
    """The share of one processor that each kind uses while nobody asks anything."""
    before, since_s = by_kind(roots), time.monotonic()
    await asyncio.sleep(seconds)
    after, took_s = by_kind(roots), time.monotonic() - since_s
    return {kind: round((after[kind].cpu_s - before.get(kind, Cost()).cpu_s) / took_s, 4) for kind in after}
