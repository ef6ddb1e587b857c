"""The worker process: serves the worker protocol for the NF services that a manifest names.

Started with the descriptor of its socket in `OUTRIDER_SOCKET` and the manifest's path as its only argument, inside
the sandbox and with nothing on `sys.path` but the standard library and the package, which brings this SDK. It needs no
file, no network and no clock of its own. When the keeper closes the socket it shuts its apps down and ends.
"""

import asyncio
import contextlib
import faulthandler
import gc
import importlib
import io
import logging
import os
import socket
import sys
import threading
import time
import traceback
from typing import Any, cast

import msgspec

from outrider.sdk import wire
from outrider.sdk.engine import Engine
from outrider.sdk.service import NfService, as_service
from outrider.sdk.writer import Writer

LOG_LINES_PER_S = 200
"""More are dropped and counted, so that a talkative handler does not make the keeper stop its worker."""

LOG_LINE_CHARACTERS = 8_000
STUCK_UNITS = 32
"""So many cancelled units that do not end (threads cannot be stopped) and the worker gives up, to be started afresh."""

COLLECT_AFTER = 20_000
"""So many new objects, and the collector looks at them. Units make few cycles, and many are open at a time."""

STOP_LIMIT_S = 2.0
EXIT_LOAD_FAILED, EXIT_STUCK, EXIT_BROKEN = 3, 4, 5


class _NfServiceSpec(msgspec.Struct, rename="camel"):
    name: str
    app: str


class _Manifest(msgspec.Struct, rename="camel"):
    nf_services: list[_NfServiceSpec]


class Logs:
    """Sends log lines to the keeper, at a bounded rate, from any thread; keeps them until the worker has said hello."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: Writer | None = None
        self._early: list[wire.Log] = []
        self._lock = threading.Lock()
        self._window_end = 0.0
        self._lines = 0
        self._dropped = 0

    def open(self, writer: Writer) -> None:
        """From now on lines go out; first those that came early."""
        with self._lock:
            self._loop, self._writer = asyncio.get_running_loop(), writer
            early, self._early = self._early, []
        for line in early:
            self._write(line)

    def line(self, level: str, text: str) -> None:
        """One line, or one text of several."""
        lines: list[wire.Log] = []
        with self._lock:
            now = time.monotonic()
            if now >= self._window_end:
                self._window_end = now + 1.0
                self._lines = 0
                if self._dropped:
                    lines.append(wire.Log("warning", f"{self._dropped} log lines were dropped: too many at once."))
                    self._dropped = 0
            self._lines += 1
            if self._lines > LOG_LINES_PER_S:
                self._dropped += 1
                return
            lines.append(wire.Log(level, text[:LOG_LINE_CHARACTERS]))
            if self._loop is None:
                self._early += lines
                return
            loop = self._loop
        for log in lines:
            if threading.current_thread() is threading.main_thread():
                self._write(log)
            else:
                loop.call_soon_threadsafe(self._write, log)

    def _write(self, log: wire.Log) -> None:
        if self._writer is not None:
            self._writer.write(wire.frame(log))


class LogStream(io.TextIOBase):
    """Stands in for `sys.stdout` and `sys.stderr`: what is printed becomes log lines."""

    def __init__(self, logs: Logs, level: str) -> None:
        self._logs = logs
        self._level = level
        self._rest = threading.local()

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Keep what is no whole line yet, per thread."""
        *lines, rest = (getattr(self._rest, "text", "") + text).split("\n")
        if len(rest) > LOG_LINE_CHARACTERS:
            lines.append(rest)
            rest = ""
        self._rest.text = rest
        for line in lines:
            if line:
                self._logs.line(self._level, line)
        return len(text)


class _LogHandler(logging.Handler):
    def __init__(self, logs: Logs) -> None:
        super().__init__(logging.INFO)
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        self._logs.line(record.levelname.lower(), self.format(record))


class Worker(asyncio.Protocol):
    """The worker's end of the socket."""

    def __init__(self, engine: Engine, logs: Logs) -> None:
        self._loop = asyncio.get_running_loop()
        self.closed = self._loop.create_future()
        self._engine = engine
        self._logs = logs
        self._frames = wire.Frames()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._stuck: set[asyncio.Task[None]] = set()
        self._reads: dict[int, asyncio.Future[list[tuple[str, str, bytes]]]] = {}
        self._calls = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self._writer = Writer(cast(asyncio.WriteTransport, transport))
        hello = wire.Hello(
            wire.PROTOCOL_VERSION,
            list(self._engine.services),
            self._engine.handlers("timer"),
            self._engine.handlers("message"),
        )
        self._writer.write(wire.frame(hello))
        self._logs.open(self._writer)

    def data_received(self, data: bytes) -> None:
        """Act on each whole frame."""
        for body in self._frames.feed(data):
            match wire.to_worker.decode(body):
                case wire.Run() as run:
                    self._tasks[run.unit] = self._loop.create_task(self._run(run))
                case wire.Value() as value:
                    if (waiting := self._reads.pop(value.call, None)) is not None and not waiting.done():
                        waiting.set_result(value.records)
                case wire.Cancel(unit=unit):
                    self._cancel(unit)

    def connection_lost(self, exc: Exception | None) -> None:
        """The keeper is gone or done with us; or this end cannot go on, as where there is no memory for a frame."""
        if exc is not None and not isinstance(exc, ConnectionError):
            # There is no connection any more that would carry a log line.
            os.write(2, f"the connection to the keeper broke: {exc!r}\n".encode())
            os._exit(EXIT_BROKEN)
        if not self.closed.done():
            self.closed.set_result(None)

    async def _run(self, run: wire.Run) -> None:
        async def read(shared: str) -> list[tuple[str, str, bytes]]:
            self._calls += 1
            call = self._calls
            self._reads[call] = asyncio.get_running_loop().create_future()
            try:
                self._writer.write(wire.frame(wire.Read(run.unit, call, shared)))
                return await self._reads[call]
            finally:
                self._reads.pop(call, None)

        result = await self._engine.run(run, read)
        # A cancelled unit was answered then; it is not in the table any more.
        if self._tasks.pop(run.unit, None) is not None:
            self._answer(result)

    def _answer(self, result: wire.Proposal | wire.Failure) -> None:
        try:
            self._writer.write(wire.frame(result))
        except wire.FrameTooLong as error:
            self._writer.write(wire.frame(wire.Failure(result.unit, f"the proposal is too long: {error}")))

    def _cancel(self, unit: int) -> None:
        if (task := self._tasks.pop(unit, None)) is None:
            return
        self._answer(wire.Failure(unit, "the unit was cancelled: its time was up"))
        self._stuck.add(task)
        task.add_done_callback(self._stuck.discard)
        task.cancel()
        if len(self._stuck) > STUCK_UNITS:
            os.write(2, f"{len(self._stuck)} cancelled units do not end; giving up\n".encode())
            os._exit(EXIT_STUCK)


def load(manifest_path: str) -> dict[str, NfService]:
    """Import the NF services of a manifest."""
    with open(manifest_path, "rb") as file:
        manifest = msgspec.json.decode(file.read(), type=_Manifest)
    return {spec.name: as_service(_attribute(spec.app)) for spec in manifest.nf_services}


def _attribute(where: str) -> Any:
    module, _, path = where.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


async def _serve(services: dict[str, NfService], logs: Logs, descriptor: int) -> None:
    engine = Engine(services, logs.line)
    await engine.start()
    # What is loaded now stays; the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    connection = socket.socket(fileno=descriptor)
    _, worker = await asyncio.get_running_loop().create_unix_connection(lambda: Worker(engine, logs), sock=connection)
    await worker.closed
    with contextlib.suppress(TimeoutError, Exception):
        await asyncio.wait_for(engine.stop(), STOP_LIMIT_S)


def main() -> None:
    """Load the package, serve until the keeper closes the socket, end."""
    faulthandler.enable()
    descriptor = int(os.environ.pop("OUTRIDER_SOCKET"))
    logs = Logs()
    stdout, stderr = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = LogStream(logs, "info"), LogStream(logs, "error")
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", handlers=[_LogHandler(logs)])
    try:
        asyncio.run(_serve(load(sys.argv[1]), logs, descriptor))
    except BaseException:
        # Nobody reads log lines of a worker that does not start; the keeper shows the end of this stream instead.
        sys.stdout, sys.stderr = stdout, stderr
        traceback.print_exc(limit=-6)
        stderr.flush()
        os._exit(EXIT_LOAD_FAILED)
    # Threads of handlers that do not end would keep the process alive.
    os._exit(0)
