"""A memory limit that bites: a process may not grow any more, and is made to need more.

Its address space is limited to what it has (RLIMIT_AS), from outside and without root. A worker or a keeper then gets
many large requests, which the service refuses, so that they leave nothing behind; the process that does bulk work is
caught while it starts, and needs memory by itself. The fault has fired when the process is gone and its keeper's log
says that an allocation failed; what a process says that goes on after it counts as well.
"""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from outrider.core.refusal import Refused
from outrider.demo.access import Access, NetworkAt, NoProducer
from outrider.demo.fault import FIRE_LIMIT_S, NotFired
from outrider.demo.member import SESSION
from outrider.demo.stage import Operator, new_instance_id
from outrider.demo.usage import kind
from outrider.network.processes import mark
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.tokens import TokenSource

REQUESTS, BODY_BYTES = 48, 900_000
"""So many requests at a time, of that size: a request may have 1 MiB, and a heap has more than one of them to spare."""

STARTED_BYTES = 12 << 20
"""A process that has less is still being loaded, and would end without a word."""

PAUSE_S, BITE_LIMIT_S = 0.2, 8.0
SPOKEN_S = 3.0
"""What a process has said last is in the log by then."""

PROOFS = ("MemoryError", "memory allocation", "out of memory", "Cannot allocate memory", "failed to map segment")
"""What Python, Rust, SQLite, the system and its loader say of an allocation that failed."""


def children(pid: int) -> list[int]:
    """The processes that a process has started; none if it has ended."""
    try:
        tasks = [(task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []
    return [int(child) for text in tasks for child in text.split()]


def _size(pid: int) -> int:
    """The address space of a process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


async def no_more(operator: Operator, pid: int, what: str, log: Path, supis: Sequence[str]) -> str:
    """Let this keeper or worker have no more memory until it has run out of it; the proof.

    The requests are about UEs that are there: those of others would be run by another network's worker.
    """
    said, known = _Said(log), mark(pid)
    with _limited(pid) as limit:
        flood = asyncio.create_task(_flood(operator, supis))
        try:
            async with asyncio.timeout(BITE_LIMIT_S):
                while mark(pid) == known and not said.proof():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise NotFired(f"{what} {pid} had enough memory with {limit} bytes") from None
        finally:
            flood.cancel()
            await asyncio.gather(flood, return_exceptions=True)
        return await _told(said, what, pid, limit, mark(pid) != known)


async def no_bulk(keeper: int, log: Path) -> str:
    """Let the next process of this keeper that does bulk work have no more memory than it starts with; the proof."""
    said = _Said(log)
    try:
        async with asyncio.timeout(FIRE_LIMIT_S):
            while not (found := [c for c in children(keeper) if kind(c) == "bulk" and _size(c) > STARTED_BYTES]):
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise NotFired(f"keeper {keeper} has done no bulk work") from None
    [pid, *_] = found
    known = mark(pid)
    with _limited(pid) as limit:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BITE_LIMIT_S):
                while mark(pid) == known and not said.proof():
                    await asyncio.sleep(0.02)
        return await _told(said, "bulk process", pid, limit, mark(pid) != known)


async def _told(said: "_Said", what: str, pid: int, limit: int, ended: bool) -> str:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SPOKEN_S):
            while not said.proof():
                await asyncio.sleep(0.05)
    if not (proof := said.proof()):
        raise NotFired(f"{what} {pid} {'ended' if ended else 'went on'} with {limit} bytes, and said nothing of memory")
    return f"{what} {pid} {'ended' if ended else 'went on'} with no more than {limit >> 20} MiB: {proof}"


class _Said:
    """What comes into a log from now on."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._from = log.stat().st_size

    def proof(self) -> str:
        """The sentence that says that an allocation failed; empty if there is none."""
        with self._log.open("rb") as file:
            file.seek(self._from)
            text = file.read().decode(errors="replace")
        for line in text.splitlines():
            for proof in PROOFS:
                if (at := line.find(proof)) >= 0:
                    return line[at : at + 60]
        return ""


@contextlib.contextmanager
def _limited(pid: int) -> Iterator[int]:
    """No more address space than now; as before afterwards, if the process is still there."""
    try:
        known, size = mark(pid), _size(pid)
        before = resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (size, before[1]))
    except OSError:
        raise NotFired(f"process {pid} has ended before it was limited") from None
    try:
        yield size
    finally:
        if mark(pid) == known:
            with contextlib.suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_AS, before)


@contextlib.asynccontextmanager
async def _consumer(operator: Operator) -> AsyncIterator[Access]:
    async with SbiClient() as client:
        name = new_instance_id()
        network = NetworkAt(id=operator.id, nrf_root=operator.nrf_root, tac="000009")
        access = Access(client, network, TokenSource(client, operator.nrf_root, name, "AF"), name)
        await access.register()
        try:
            yield access
        finally:
            await access.deregister()


async def _flood(operator: Operator, supis: Sequence[str]) -> None:
    """Large requests until cancelled. Each is refused for its group, so no session is opened."""
    async with _consumer(operator) as access:

        async def send(supi: str) -> None:
            body = {"supi": supi, "groupId": 0, "more": "." * BODY_BYTES}
            while True:
                try:
                    await access.send(SESSION, "POST", "/nsmf-groupsession/v1/ue-sessions", json=body)
                except (Unreachable, NoProducer, Refused):
                    access.forget(SESSION)
                await asyncio.sleep(PAUSE_S)

        await asyncio.gather(*(send(supis[number % len(supis)]) for number in range(REQUESTS)))
