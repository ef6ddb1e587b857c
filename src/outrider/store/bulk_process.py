"""Bulk work in a process of its own, so that it shares neither Python's lock nor an equal claim to a processor.

The keeper's half starts the other half, and asks for one thing at a time over pipes: frames of msgpack, each with its
length before it. The process ends with its keeper, because its input then ends. If it ends before (out of memory,
killed), what it was reading is read again by another one, and what it was loading is broken.
"""

import asyncio
import contextlib
import fcntl
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec

from outrider.store.bulk_work import FAULTS, BulkWork, Loaded, Scanned
from outrider.store.port import Followed, StagingBroken, StoreFault

NICE = 10
"""Served requests come first; on an idle machine this costs the copy nothing."""

_PIPE_BYTES = 1024 * 1024
"""What a pipe holds; with the usual 64 KB a chunk would be handed over in twenty turns of the event loop."""

_LENGTH_BYTES = 8
_STOP_LIMIT_S = 10.0
_SCAN_ATTEMPTS = 3


class _Lost(Exception):
    """The process has ended before it answered."""


class Bulk(Protocol):
    """Bulk work for one copy; see `BulkWork` for what each does and raises. One call at a time."""

    async def scan(self, start: bytes, stop: bytes, limit: int) -> Scanned:
        """The chunk that begins at `start`."""

    async def stage(self, name: str, digest_key: bytes) -> None:
        """Load into this staging file from now on."""

    async def load(self, content: bytes) -> Loaded:
        """Load a chunk."""

    async def follow(self, content: bytes) -> Followed:
        """Apply log entries to what is loaded."""

    async def flush(self) -> None:
        """Give what is loaded to the disk."""

    async def close(self) -> None:
        """Close the files."""


class BulkBeside:
    """`Bulk` in a thread of this process; the files are opened when there is something to do."""

    def __init__(self, live: Path) -> None:
        self._live = live
        self._opened: BulkWork | None = None

    @property
    def _work(self) -> BulkWork:
        if self._opened is None:
            self._opened = BulkWork(self._live)
        return self._opened

    async def scan(self, start: bytes, stop: bytes, limit: int) -> Scanned:
        """See `Bulk`."""
        return await asyncio.to_thread(self._work.scan, start, stop, limit)

    async def stage(self, name: str, digest_key: bytes) -> None:
        """See `Bulk`."""
        await asyncio.to_thread(self._work.stage, name, digest_key)

    async def load(self, content: bytes) -> Loaded:
        """See `Bulk`."""
        return await asyncio.to_thread(self._work.load, content)

    async def follow(self, content: bytes) -> Followed:
        """See `Bulk`."""
        return await asyncio.to_thread(self._work.follow, content)

    async def flush(self) -> None:
        """See `Bulk`."""
        await asyncio.to_thread(self._work.flush)

    async def close(self) -> None:
        """See `Bulk`."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await asyncio.to_thread(opened.close)


class BulkProcess:
    """`Bulk` in a process of its own, which is started when there is something to do."""

    def __init__(self, live: Path) -> None:
        self._live = live
        self._process: asyncio.subprocess.Process | None = None
        self._loads = False
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int:
        """The process, while there is one; 0 otherwise."""
        return 0 if self._process is None else self._process.pid

    async def scan(self, start: bytes, stop: bytes, limit: int) -> Scanned:
        """See `Bulk`."""
        for _ in range(_SCAN_ATTEMPTS):
            with contextlib.suppress(_Lost):
                scanned: Scanned = await self._ask("scan", (start, stop, limit), Scanned)
                return scanned
        raise StoreFault(f"{self._live}: a process that reads it ended {_SCAN_ATTEMPTS} times. Look at its messages.")

    async def stage(self, name: str, digest_key: bytes) -> None:
        """See `Bulk`."""
        self._loads = True
        await self._loading("stage", (name, digest_key), None)

    async def load(self, content: bytes) -> Loaded:
        """See `Bulk`."""
        loaded: Loaded = await self._loading("load", (content,), Loaded)
        return loaded

    async def follow(self, content: bytes) -> Followed:
        """See `Bulk`."""
        followed: Followed = await self._loading("follow", (content,), Followed)
        return followed

    async def flush(self) -> None:
        """See `Bulk`."""
        await self._loading("flush", (), None)

    async def close(self) -> None:
        """Close the files and end the process."""
        async with self._turn:
            process = self._process
            if process is None or process.stdin is None:
                return
            process.stdin.close()
            try:
                async with asyncio.timeout(_STOP_LIMIT_S):
                    code = await process.wait()
            finally:
                await self._drop()
        if code and self._loads:
            raise StagingBroken(f"{self._live}: the process that does the bulk work ended with {code}.")

    async def _loading(self, name: str, arguments: Sequence[Any], answer: Any) -> Any:
        try:
            return await self._ask(name, arguments, answer)
        except _Lost as lost:
            raise StagingBroken(f"{self._live}: the process that loads its copy has ended: {lost}") from lost

    async def _ask(self, name: str, arguments: Sequence[Any], answer: Any) -> Any:
        async with self._turn:
            try:
                if self._process is None:
                    self._process = await self._start()
                fault, value = await _exchange(self._process, name, arguments)
            except (OSError, asyncio.IncompleteReadError) as error:
                await self._drop()
                raise _Lost(str(error)) from error
            except asyncio.CancelledError:  # its answer would be taken for that of the next question
                await self._drop()
                raise
        if fault is not None:
            raise next(kind for kind in FAULTS if kind.__name__ == fault)(str(value))
        return msgspec.convert(value, answer)

    async def _drop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "outrider.store.bulk_process",
            str(self._live),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_PIPE_BYTES,
        )


_encode = msgspec.msgpack.Encoder().encode
_order = msgspec.msgpack.Decoder(tuple[str, list[Any]])
_reply = msgspec.msgpack.Decoder(tuple[str | None, Any])


async def _exchange(process: asyncio.subprocess.Process, name: str, arguments: Sequence[Any]) -> tuple[str | None, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    body = _encode((name, arguments))
    process.stdin.write(len(body).to_bytes(_LENGTH_BYTES, "big"))
    process.stdin.write(body)
    await process.stdin.drain()
    length = int.from_bytes(await process.stdout.readexactly(_LENGTH_BYTES), "big")
    return _reply.decode(await process.stdout.readexactly(length))


def serve(work: BulkWork, orders: BinaryIO, answers: BinaryIO) -> None:
    """Do what is asked for until nobody asks any more."""
    while len(length := orders.read(_LENGTH_BYTES)) == _LENGTH_BYTES:
        name, arguments = _order.decode(orders.read(int.from_bytes(length, "big")))
        try:
            reply: tuple[str | None, Any] = None, getattr(work, name)(*arguments)
        except FAULTS as fault:
            reply = type(fault).__name__, str(fault)
        body = _encode(reply)
        answers.write(len(body).to_bytes(_LENGTH_BYTES, "big"))
        answers.write(body)
        answers.flush()
    work.close()


def main() -> None:
    """Entry point: `python -m outrider.store.bulk_process STORE`."""
    os.nice(NICE)
    for pipe in (sys.stdin, sys.stdout):
        with contextlib.suppress(OSError):  # a system with smaller pipes is slower, not wrong
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    # Of an unbuffered standard output (PYTHONUNBUFFERED) a write that a signal interrupts writes a part, and says so.
    answers = open(sys.stdout.fileno(), "wb", closefd=False)  # noqa: SIM115
    try:
        serve(BulkWork(Path(sys.argv[1])), sys.stdin.buffer, answers)
    except BrokenPipeError:  # the keeper has ended while its question was answered; nobody is left to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
