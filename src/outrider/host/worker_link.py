"""The keeper's end of a worker's socket: units in flight, their time limits, and what ends the connection."""

import asyncio
import time
from collections.abc import Callable
from typing import Literal, NamedTuple, cast

import msgspec

from outrider.core import limits
from outrider.sdk import rules, wire
from outrider.sdk.writer import Writer

ReadShared = Callable[[str], list[tuple[str, str, bytes]]]
"""The records of a shared object by its name, as this network has them."""


_LOOK_S = 0.02
"""How late a unit's end may be noticed to be overdue."""

ERROR_CHARACTERS = 4_000
SENTENCE_CHARACTERS = 200


class WorkerFault(NamedTuple):
    """A unit that came to nothing, with no effect."""

    cause: Literal["WORKER_DIED", "UNIT_TIMEOUT", "HANDLER_FAILED", "PROPOSAL_REFUSED", "WORKER_BUSY"]
    sentence: str


class _Open:
    """A unit in flight."""

    __slots__ = ("limit_s", "outcome", "read_shared", "reads", "run", "until_s")

    def __init__(
        self,
        run: wire.Run,
        outcome: "asyncio.Future[wire.Proposal | WorkerFault]",
        read: ReadShared,
        limit_s: float,
        until_s: float,
    ) -> None:
        self.run = run
        self.outcome = outcome
        self.read_shared = read
        self.reads = 0
        self.limit_s = limit_s
        self.until_s = until_s


class Link(asyncio.Protocol):
    """One connection to one worker process; when it is lost it stays lost, and `reason` says why."""

    def __init__(self, nf_services: frozenset[str], on_log: Callable[[str, str], None]) -> None:
        self.reason = ""
        self._nf_services = nf_services
        self._on_log = on_log
        self._loop = asyncio.get_running_loop()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._hello: asyncio.Future[wire.Hello] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._writer: Writer
        self._frames = wire.Frames()
        self._open: dict[int, _Open] = {}
        self._cancelled: dict[int, asyncio.TimerHandle] = {}
        self._looking = False
        self._paused = False
        self._log_second = 0
        self._log_lines = 0

    @property
    def alive(self) -> bool:
        """Whether units can be run."""
        return self._transport is not None and not self._lost.done()

    async def greeted(self) -> wire.Hello:
        """Returns when the worker has loaded its NF services; `ConnectionError` if it ends before."""
        return await asyncio.shield(self._hello)

    async def lost(self) -> None:
        """Returns when the connection is gone, for whatever reason."""
        await asyncio.shield(self._lost)

    def close(self, reason: str) -> None:
        """End the connection; all units in flight end with WORKER_DIED at once."""
        self.reason = self.reason or reason
        if self._transport is not None:
            self._transport.abort()
        if not self._lost.done():
            self._lost.set_result(None)
        if not self._hello.done():
            self._hello.set_exception(ConnectionError(self.reason))
            # It may be that nobody waits for it any more.
            self._hello.exception()
        for handle in self._cancelled.values():
            handle.cancel()
        self._cancelled.clear()
        still_open, self._open = self._open, {}
        for unit in still_open.values():
            _settle(unit, WorkerFault("WORKER_DIED", f"The worker ended during the unit: {self.reason}"))

    async def run(self, run: wire.Run, limit_s: float, read_shared: ReadShared) -> wire.Proposal | WorkerFault:
        """Run one unit."""
        if self._transport is None or self._lost.done():
            return WorkerFault("WORKER_DIED", f"The worker is gone: {self.reason}")
        waiting = self._paused or self._writer.pending_bytes > limits.WORKER_BUFFER_BYTES
        if waiting or len(self._open) + len(self._cancelled) >= limits.WORKER_IN_FLIGHT:
            return WorkerFault("WORKER_BUSY", f"The worker has {len(self._open)} units in flight already.")
        if run.unit in self._open or run.unit in self._cancelled:
            raise ValueError(f"unit {run.unit} is in flight already")
        try:
            frame = wire.frame(run)
        except wire.FrameTooLong as error:
            return WorkerFault("HANDLER_FAILED", f"The unit is too large for a worker: {error}.")
        unit = _Open(run, self._loop.create_future(), read_shared, limit_s, self._loop.time() + limit_s)
        self._open[run.unit] = unit
        if not self._looking:
            self._look_later(limit_s)
        self._writer.write(frame)
        try:
            return await unit.outcome
        finally:
            if self._open.get(run.unit) is unit:
                # The caller gave up; the worker need not go on.
                self._cancel(run.unit)

    # ------------------------------------------------------------------------------------------- from the worker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected; the worker speaks first."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        if self._lost.done():
            self._transport.abort()
            return
        self._writer = Writer(self._transport)
        self._transport.set_write_buffer_limits(high=limits.WORKER_BUFFER_BYTES)

    def pause_writing(self) -> None:
        """The worker does not read as fast as it is written to."""
        self._paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker closed its end, or died."""
        self.close("It closed its connection." if exc is None else f"Its connection failed: {exc}.")

    def data_received(self, data: bytes) -> None:
        """Act on each whole frame; anything that is against the protocol ends the worker."""
        try:
            for body in self._frames.feed(data):
                self._act(wire.to_keeper.decode(body))
                if self._lost.done():
                    return
        except wire.FrameTooLong as error:
            self.close(f"It announced a frame of {error}; {wire.FRAME_LIMIT_BYTES} are allowed.")
        except msgspec.MsgspecError as error:
            self.close(f"It sent a frame that is no message: {error}.")

    def _act(self, message: wire.ToKeeper) -> None:
        match message:
            case wire.Proposal() | wire.Failure() if self._hello.done():
                self._answered(message)
            case wire.Log():
                self._log(message)
            case wire.Hello():
                self._greet(message)
            case _ if not self._hello.done():
                self.close("It did not say hello first.")
            case wire.Read():
                self._read(message)

    def _greet(self, hello: wire.Hello) -> None:
        if self._hello.done():
            self.close("It said hello twice.")
        elif hello.version != wire.PROTOCOL_VERSION:
            self.close(f"It speaks version {hello.version} of the worker protocol, not {wire.PROTOCOL_VERSION}.")
        elif frozenset(hello.nf_services) != self._nf_services:
            self.close("It runs other NF services than the manifest says.")
        else:
            self._hello.set_result(hello)

    def _answered(self, message: wire.Proposal | wire.Failure) -> None:
        if (unit := self._open.pop(message.unit, None)) is None:
            if (handle := self._cancelled.pop(message.unit, None)) is None:
                self.close(f"It answered unit {message.unit}, which it was not given.")
            else:
                handle.cancel()
        elif isinstance(message, wire.Failure):
            # The whole of it is for the service's log; whoever asked gets one line.
            self._on_log("error", f"A {unit.run.kind} of {unit.run.key} failed: {message.error[:ERROR_CHARACTERS]}")
            last = message.error.rstrip().rpartition("\n")[2][:SENTENCE_CHARACTERS]
            _settle(unit, WorkerFault("HANDLER_FAILED", f"The handler failed: {last}"))
        elif (wrong := rules.broken_rule(unit.run, message, self._hello.result())) is not None:
            _settle(unit, WorkerFault("PROPOSAL_REFUSED", wrong))
        else:
            _settle(unit, message)

    def _read(self, message: wire.Read) -> None:
        if (unit := self._open.get(message.unit)) is None:
            if message.unit not in self._cancelled:
                self.close(f"It read for unit {message.unit}, which it was not given.")
            return
        unit.reads += 1
        if unit.reads > limits.WORKER_READS_PER_UNIT:
            self.close(f"One unit read more than {limits.WORKER_READS_PER_UNIT} shared objects.")
            return
        records = unit.read_shared(message.shared)
        if rules.too_large(records):
            self._give_up(message.unit, WorkerFault("HANDLER_FAILED", "A shared object is too large for a worker."))
        elif self._transport is not None:
            self._writer.write(wire.frame(wire.Value(message.unit, message.call, records)))

    def _log(self, message: wire.Log) -> None:
        second = int(time.monotonic())
        if second != self._log_second:
            self._log_second, self._log_lines = second, 0
        self._log_lines += 1
        if self._log_lines > limits.WORKER_LOG_LINES_PER_S:
            self.close(f"It wrote more than {limits.WORKER_LOG_LINES_PER_S} log lines in a second.")
        else:
            self._on_log(message.level, message.text)

    # --------------------------------------------------------------------------------------------- time is up

    def _look_later(self, limit_s: float) -> None:
        self._looking = True
        self._loop.call_later(min(limit_s, _LOOK_S), self._look)

    def _look(self) -> None:
        """Look at all units, as long as there are any: a timer for each would cost more than its frame."""
        self._looking = False
        now_s = self._loop.time()
        for number, unit in list(self._open.items()):
            if unit.until_s <= now_s:
                sentence = f"The unit did not end within {unit.limit_s * 1000:.0f} ms; nothing of it happened."
                self._give_up(number, WorkerFault("UNIT_TIMEOUT", sentence))
        if self._open:
            self._look_later(_LOOK_S)

    def _give_up(self, number: int, fault: WorkerFault) -> None:
        if (unit := self._open.get(number)) is not None:
            self._cancel(number)
            _settle(unit, fault)

    def _cancel(self, number: int) -> None:
        """Tell the worker, which must answer: one that is silent hangs as a whole."""
        del self._open[number]
        if self._transport is None or self._lost.done():
            return
        self._writer.write(wire.frame(wire.Cancel(number)))
        wait_s = limits.WORKER_ANSWER_LIMIT_MS / 1000
        self._cancelled[number] = self._loop.call_later(
            wait_s, self.close, f"It hangs: no answer to a cancelled unit within {wait_s * 1000:.0f} ms."
        )


def _settle(unit: _Open, outcome: wire.Proposal | WorkerFault) -> None:
    if not unit.outcome.done():
        unit.outcome.set_result(outcome)
