"""The hosts of a node: one keeper process for each service, started, watched, restarted after a crash, ended.

A keeper ends by itself when the node ends (its standard input is a pipe of the node's), so a crashed node leaves none
behind for long; a new node waits for the old keeper, kills it if need be, and only then starts another on the same
store (PROTOCOL.md §1).

Which hosts are to run is the LMSF's to know: it asks for each again after a restart of the node. Files of a service,
in `services/SERVICE`: `keeper.json` (what the keeper is told; it holds a key, so mode 0600), `keeper.pid` (the
process), `data/` (the context store; the keeper's own).
"""

import asyncio
import contextlib
import os
import re
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf.ports import Host, HostFailed, HostSpec
from outrider.host.config import STORE_FILE, KeeperConfig
from outrider.network.files import PRIVATE, write_atomic
from outrider.network.processes import end_child, end_leftover, mark
from outrider.store.files import sync
from outrider.store.image import StoreFacts, save

READY_LIMIT_S = 60.0
"""A keeper says that it is ready by then; opening a store of a million contexts takes a few seconds."""

STOP_LIMIT_S = 8.0
"""A keeper that was told to stop is killed after so long; nothing is lost by it."""

LEFTOVER_LIMIT_S = 3.0
"""How long a keeper of a crashed node may take to notice."""

RESTART_MIN_S = 0.05
RESTART_MAX_S = 5.0
"""Pauses before a restart, doubled each time that the keeper did not live for `STEADY_S`."""

STEADY_S = 10.0
LOG_LINES = 8
"""Lines of its log that the report of a keeper that did not start carries."""

_SERVICE = re.compile(r"^[a-z0-9][a-z0-9._-]{0,62}$")
_log = structlog.get_logger(__name__)


class _Ready(msgspec.Struct, frozen=True, rename="camel"):
    ready: bool
    port: int
    pid: int
    store_id: str


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What every keeper of this node is told."""

    network_id: str
    border_root: str
    nrf_root: str
    nrf_keys: dict[str, str]
    internal_key: str
    host: str = "127.0.0.1"
    require_isolation: bool = True
    command: Sequence[str] = (sys.executable, "-m", "outrider.host.keeper")


@dataclass(slots=True)
class _Running:
    spec: HostSpec
    host: Host
    process: asyncio.subprocess.Process
    watcher: asyncio.Task[None] | None = None
    restarts: int = 0
    drains: set[asyncio.Task[None]] = field(default_factory=set)


class Registry(Protocol):
    """Who is told that a keeper has come or gone."""

    async def up(self, instance_id: str, host: Host) -> None:
        """A keeper is there."""

    async def down(self, instance_id: str) -> None:
        """A keeper is gone for good."""


class NodeHosts:
    """Implements the LMSF's `Hosts` with child processes of this node."""

    def __init__(
        self, services_dir: Path, log_dir: Path, settings: HostSettings, registry: Registry | None = None
    ) -> None:
        self._registry = registry
        self._dir = services_dir
        self._log_dir = log_dir
        self._settings = settings
        self._running: dict[str, _Running] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def start(self, spec: HostSpec) -> Host:
        """Run the host unless it runs already with this spec; `HostFailed` if it does not come up."""
        if not _SERVICE.match(spec.service):
            raise HostFailed(f"{spec.service!r} is no name of a service: lower-case letters, digits, dots and dashes")
        async with self._locks.setdefault(spec.service, asyncio.Lock()):
            running = self._running.get(spec.service)
            if running is not None and running.spec == spec:
                return running.host
            if running is not None:
                await self._end(spec.service)
            folder = self._dir / spec.service
            folder.mkdir(parents=True, exist_ok=True)
            self._log_dir.mkdir(parents=True, exist_ok=True)
            await self._end_leftover(folder, spec.service)
            started = await self._spawn(spec, self._last_port(folder))
            self._running[spec.service] = started
            started.watcher = asyncio.create_task(self._watch(started), name=f"watch {spec.service}")
            if self._registry is not None:
                await self._registry.up(spec.keeper_instance_id, started.host)
            return started.host

    def get(self, service: str) -> Host | None:
        """The host, if it is to run: also while its keeper is being restarted."""
        running = self._running.get(service)
        return None if running is None else running.host

    def root(self, service: str) -> str | None:
        """The apiRoot of a service's keeper, for the border."""
        running = self._running.get(service)
        return None if running is None else running.host.api_root

    async def stop(self, service: str) -> None:
        """End the host's processes and reap them; its files stay."""
        if not _SERVICE.match(service):
            return
        async with self._locks.setdefault(service, asyncio.Lock()):
            running = self._running.get(service)
            await self._end(service)
            if running is not None and self._registry is not None:
                await self._registry.down(running.spec.keeper_instance_id)

    async def remove(self, service: str) -> None:
        """End the host and delete all its files."""
        await self.stop(service)
        if _SERVICE.match(service):
            await asyncio.to_thread(shutil.rmtree, self._dir / service, ignore_errors=True)
            (self._log_dir / f"keeper-{service}.log").unlink(missing_ok=True)

    async def save(self, service: str, into: Path) -> StoreFacts:
        """Copy the store of a host, which runs on, into a file."""
        return await asyncio.to_thread(save, self._store(service), into)

    async def restore(self, service: str, store: Path) -> None:
        """Move a store to where a host that is started next finds it."""
        async with self._locks.setdefault(service, asyncio.Lock()):
            if service in self._running or not _SERVICE.match(service):
                sentence = f"A host of {service} runs."
                raise Refused(Refusal("SERVICE_EXISTS", sentence, {"service": service}, status=409))
            await self._end_leftover(self._dir / service, service)

            def place() -> None:
                target = self._store(service)
                shutil.rmtree(target.parent, ignore_errors=True)  # what a restoration that crashed has left
                target.parent.mkdir(parents=True)
                os.replace(store, target)
                sync(target.parent)

            await asyncio.to_thread(place)

    def _store(self, service: str) -> Path:
        return self._dir / service / "data" / STORE_FILE

    async def close(self) -> None:
        """End every keeper, all at once; their files stay."""
        await asyncio.gather(*(self._end(service) for service in list(self._running)))

    def status(self) -> list[dict[str, object]]:
        """Each host: where it is, its process, how often it had to be restarted."""
        return [
            {
                "service": r.host.service,
                "root": r.host.api_root,
                "pid": r.host.pid,
                "alive": r.process.returncode is None,
                "restarts": r.restarts,
                "storeId": r.host.store_id,
            }
            for r in self._running.values()
        ]

    # ------------------------------------------------------------------------------------------------ processes

    async def _spawn(self, spec: HostSpec, port: int) -> _Running:
        """Start a keeper and wait until it is ready; `HostFailed` with the end of its log otherwise."""
        folder = self._dir / spec.service
        log_file = self._log_dir / f"keeper-{spec.service}.log"
        settings = self._settings
        config = KeeperConfig(
            service=spec.service,
            network_id=settings.network_id,
            home_id=spec.home,
            host=settings.host,
            port=port,
            data_dir=str(folder / "data"),
            package_dir=str(spec.package_dir),
            border_root=settings.border_root,
            nrf_root=settings.nrf_root,
            nrf_keys=settings.nrf_keys,
            internal_key=settings.internal_key,
            nf_instance_ids=dict(spec.nf_instance_ids),
            keeper_instance_id=spec.keeper_instance_id,
            digest_key=spec.digest_key,
            log_file=str(log_file),
            require_isolation=settings.require_isolation,
        )
        config_file = folder / "keeper.json"
        write_atomic(config_file, msgspec.json.encode(config), PRIVATE)
        with log_file.open("ab") as log:
            begin = log.tell()
            process = await asyncio.create_subprocess_exec(
                *settings.command,
                str(config_file),
                stdin=asyncio.subprocess.PIPE,  # stays open as long as this node lives: that is how the keeper knows
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        started = mark(process.pid)
        if started is not None:
            write_atomic(folder / "keeper.pid", msgspec.json.encode(started))
        try:
            ready = await self._ready(process)
        except BaseException as error:
            if isinstance(error, EOFError):  # it is ending: signalling it now would lose its exit code
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), STOP_LIMIT_S)
            await end_child(process, STOP_LIMIT_S)
            (folder / "keeper.pid").unlink(missing_ok=True)
            if isinstance(error, (TimeoutError, msgspec.DecodeError, EOFError)):
                raise HostFailed(_why(spec.service, error, process.returncode, log_file, begin)) from None
            raise
        if ready.port != port:
            write_atomic(config_file, msgspec.json.encode(msgspec.structs.replace(config, port=ready.port)), PRIVATE)
        host = Host(spec.service, settings.host, ready.port, ready.pid, ready.store_id)
        running = _Running(spec, host, process)
        self._drain(running)
        _log.info("host.ready", service=spec.service, pid=process.pid, port=ready.port)
        return running

    async def _ready(self, process: asyncio.subprocess.Process) -> _Ready:
        assert process.stdout is not None
        async with asyncio.timeout(READY_LIMIT_S):
            while line := await process.stdout.readline():
                if line.startswith(b"{"):
                    return msgspec.json.decode(line, type=_Ready)
            raise EOFError("it ended before it was ready")

    def _drain(self, running: _Running) -> None:
        """Read on, so that a keeper that writes more to its standard output never blocks."""

        async def read(stream: asyncio.StreamReader) -> None:
            while await stream.read(65536):
                pass

        assert running.process.stdout is not None
        task = asyncio.create_task(read(running.process.stdout))
        running.drains.add(task)
        task.add_done_callback(running.drains.discard)

    async def _watch(self, running: _Running) -> None:
        """Restart the keeper whenever it ends; `wait` has reaped the old process before a new one starts."""
        loop = asyncio.get_running_loop()
        pause_s = RESTART_MIN_S
        born_s = loop.time()
        while True:
            code = await running.process.wait()
            if loop.time() - born_s >= STEADY_S:
                pause_s = RESTART_MIN_S
            _log.warning("host.died", service=running.spec.service, pid=running.process.pid, code=code, pause_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RESTART_MAX_S)
            born_s = loop.time()
            try:
                fresh = await self._spawn(running.spec, running.host.port)
            except (HostFailed, OSError) as error:
                _log.error("host.restart-failed", service=running.spec.service, why=str(error))
                continue  # `wait` returns at once for the ended process, so this tries again after the pause
            running.process, running.drains = fresh.process, fresh.drains
            running.host = replace(running.host, pid=fresh.host.pid, store_id=fresh.host.store_id)
            running.restarts += 1

    async def _end(self, service: str) -> None:
        running = self._running.pop(service, None)
        if running is None:
            return
        if running.watcher is not None:
            running.watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running.watcher
        ended = await end_child(running.process, STOP_LIMIT_S)
        (self._dir / service / "keeper.pid").unlink(missing_ok=True)
        for drain in list(running.drains):
            drain.cancel()
        _log.info("host.ended", service=service, killed=ended.killed, code=running.process.returncode)

    async def _end_leftover(self, folder: Path, service: str) -> None:
        ended = await end_leftover(folder / "keeper.pid", LEFTOVER_LIMIT_S)
        if ended is not None:
            _log.info("host.leftover-ended", service=service, killed=ended.killed)

    def _last_port(self, folder: Path) -> int:
        """The port that the keeper had before, so that consumers who know it need not ask the NRF again.

        0 if it had none, or if somebody else has taken it since.
        """
        try:
            port = msgspec.json.decode((folder / "keeper.json").read_bytes(), type=KeeperConfig).port
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((self._settings.host, port))
        except (FileNotFoundError, msgspec.DecodeError, OSError):
            return 0
        return port


def _why(service: str, error: BaseException, code: int | None, log_file: Path, begin: int) -> str:
    with open(log_file, "rb") as log:
        log.seek(begin)
        lines = log.read().decode(errors="replace").splitlines()[-LOG_LINES:]
    what = "it was not ready in time" if isinstance(error, TimeoutError) else str(error)
    said = "; its log ends: " + " | ".join(lines) if lines else ""
    return f"The keeper of {service} did not start: {what} (exit code {code}){said}. See {log_file}."
