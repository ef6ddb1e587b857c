"""The hosts of a node: one keeper process for each service, started, watched, restarted after a crash, ended.

A keeper ends by itself when the node ends (its standard input is a pipe of the node's), so a crashed node leaves none
behind for long; a new node waits for the old keeper, kills it if need be, and only then starts another on the same
store (PROTOCOL.md §1).

Which hosts are to run is the LMSF's to know: it asks for each again after a restart of the node. Files of a service,
in `services/SERVICE`: `keeper.json` (what the keeper is told; it holds a key, so mode 0600), `keeper.pid` (the
process), `data/` (the context store; the keeper's own), `lost-N/` (what was left of a lost store).

A keeper is told how far its store was seen (`Stores`, which the LMSF keeps), and says how far it is: when it is ready,
now and then, and when it ends. One whose store is behind that, or gone, serves nothing and is not started again.
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

from outrider.core import limits
from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf.ports import Host, HostFailed, HostSpec, StoreLost, Stores
from outrider.host.config import STORE_FILE, KeeperConfig
from outrider.network.files import PRIVATE, write_atomic
from outrider.network.processes import end_child, end_leftover, mark
from outrider.store.files import sync
from outrider.store.image import StoreFacts, save
from outrider.store.port import StoreMark

READY_LIMIT_S = 60.0
"""A keeper says that it is ready by then; opening a store of a million contexts takes a few seconds."""

STARTING = max(2, 2 * len(os.sched_getaffinity(0)))
"""Keepers that start at a time. A start is half a second of processor time: of a hundred at once each would be ready
only when all are, and on a small machine none within its limit."""

STOP_LIMIT_S = 8.0
"""A keeper that was told to stop is killed after so long; nothing is lost by it."""

LEFTOVER_LIMIT_S = 3.0
"""How long a keeper of a crashed node may take to notice."""

LAST_WORD_LIMIT_S = 1.0
"""How long the output of a keeper that has ended is waited for."""

RESTART_MIN_S = 0.05
RESTART_MAX_S = 5.0
"""Pauses before a restart, doubled each time that the keeper did not live for `STEADY_S`."""

STEADY_S = 10.0
LOG_LINES = 8
"""Lines of its log that the report of a keeper that did not start carries."""

_MEMORY = {"MIMALLOC_ALLOW_THP": "0"}
"""granian's allocator asks for huge pages, of which each keeper would touch five and need a few KB in each: 9 MB."""

_SERVICE = re.compile(r"^[a-z0-9][a-z0-9._-]{0,62}$")
_log = structlog.get_logger(__name__)


class _Said(msgspec.Struct, frozen=True, rename="camel"):
    """A line of a keeper: that it is ready, or will not be; or how far its store is."""

    ready: bool | None = None
    port: int = 0
    pid: int = 0
    store: StoreMark | None = None
    refusal: Refusal | None = None


_LINE_BYTES = 16 * 1024
"""A longer line of a keeper is none that the node knows."""


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
    stores: Stores
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
        self._lost: dict[str, Refusal] = {}
        """Hosts that are to run, and do not because of their store."""
        self._locks: dict[str, asyncio.Lock] = {}
        self._places = asyncio.Semaphore(STARTING)

    async def start(self, spec: HostSpec, stores: Stores) -> Host:
        """Run the host unless it runs already with this spec; `HostFailed` if it does not come up.

        Refused (NO_ROOM) if it was not here before and the machine has too little memory left for what runs already.
        """
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
            self._lost.pop(spec.service, None)
            new = not self._store(spec.service).exists()
            try:
                started = await self._spawn(spec, stores, self._last_port(folder), new=new)
            except StoreLost as lost:
                self._lost[spec.service] = lost.refusal
                raise
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
        self._lost.pop(service, None)
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

    async def set_aside(self, service: str) -> Path | None:
        """Move what is left of a lost store out of the way; where it lies then."""
        async with self._locks.setdefault(service, asyncio.Lock()):
            data = self._store(service).parent
            if service in self._running or not data.exists():
                return None
            await self._end_leftover(data.parent, service)
            number = 1 + sum(1 for _ in data.parent.glob("lost-*"))
            aside = data.with_name(f"lost-{number}")
            await asyncio.to_thread(data.rename, aside)
            sync(aside.parent)
            return aside

    def _store(self, service: str) -> Path:
        return self._dir / service / "data" / STORE_FILE

    async def close(self) -> None:
        """End every keeper, all at once; their files stay."""
        await asyncio.gather(*(self._end(service) for service in list(self._running)))

    def status(self) -> list[dict[str, object]]:
        """Each host: where it is, its process, how often it had to be restarted."""
        running = [
            _status(
                r.host.service,
                root=r.host.api_root,
                pid=r.host.pid,
                alive=r.process.returncode is None,
                restarts=r.restarts,
                store_id=r.host.store_id,
            )
            for r in self._running.values()
        ]
        return running + [_status(service, refusal=refusal) for service, refusal in self._lost.items()]

    # ------------------------------------------------------------------------------------------------ processes

    async def _spawn(self, spec: HostSpec, stores: Stores, port: int, *, new: bool = False) -> _Running:
        """Start a keeper when there is a place, and wait until it is ready and its store noted; else `HostFailed`."""
        async with self._places:
            if new and (refusal := no_memory(spec.service, available_bytes())) is not None:
                raise Refused(refusal)
            return await self._start_process(spec, stores, port)

    async def _start_process(self, spec: HostSpec, stores: Stores, port: int) -> _Running:
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
            known_stores=stores.known(spec.service),
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
                env={**os.environ, **_MEMORY},
            )
        started = mark(process.pid)
        if started is not None:
            write_atomic(folder / "keeper.pid", msgspec.json.encode(started))
        try:
            ready = await self._ready(process)
            if ready.store is not None:
                await stores.note(spec.service, ready.store)
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
        store_id = ready.store.store_id if ready.store is not None else ""
        host = Host(spec.service, settings.host, ready.port, ready.pid, store_id)
        running = _Running(spec, stores, host, process)
        self._drain(running)
        _log.info("host.ready", service=spec.service, pid=process.pid, port=ready.port)
        return running

    async def _ready(self, process: asyncio.subprocess.Process) -> _Said:
        assert process.stdout is not None
        async with asyncio.timeout(READY_LIMIT_S):
            while line := await process.stdout.readline():
                if line.startswith(b"{"):
                    said = msgspec.json.decode(line, type=_Said)
                    if said.refusal is not None:
                        raise StoreLost(said.refusal)
                    return said
            raise EOFError("it ended before it was ready")

    def _drain(self, running: _Running) -> None:
        """Read on: how far the store is; whatever else a keeper writes must not block it."""

        async def read(stream: asyncio.StreamReader) -> None:
            rest = b""
            while data := await stream.read(65536):
                *lines, rest = (rest + data).split(b"\n")
                rest = rest[-_LINE_BYTES:]
                for line in lines:
                    await self._heard(running, line)

        assert running.process.stdout is not None
        task = asyncio.create_task(read(running.process.stdout))
        running.drains.add(task)
        task.add_done_callback(running.drains.discard)

    async def _heard(self, running: _Running, line: bytes) -> None:
        try:
            mark = msgspec.json.decode(line, type=_Said).store
        except msgspec.DecodeError:
            return
        try:
            if mark is not None:
                await running.stores.note(running.spec.service, mark)
        except Exception:  # the older mark stands; reading must go on
            _log.exception("host.store-not-noted", service=running.spec.service)

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
                fresh = await self._spawn(running.spec, running.stores, running.host.port)
            except StoreLost as lost:
                await self._store_lost(running, lost.refusal)
                return
            except Exception as error:  # also of the journal that notes the store: its disk may be full for a while
                _log.error("host.restart-failed", service=running.spec.service, why=str(error))
                continue  # `wait` returns at once for the ended process, so this tries again after the pause
            running.process, running.drains = fresh.process, fresh.drains
            running.host = replace(running.host, pid=fresh.host.pid, store_id=fresh.host.store_id)
            running.restarts += 1

    async def _store_lost(self, running: _Running, refusal: Refusal) -> None:
        """The keeper died, and what it would be started on is not its store: it stays down."""
        service = running.spec.service
        _log.error("host.store-lost", service=service, why=str(refusal))
        self._running.pop(service, None)
        self._lost[service] = refusal
        if self._registry is not None:
            await self._registry.down(running.spec.keeper_instance_id)
        await running.stores.lost(service, refusal)

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
        if running.drains:  # its last word of its store; a pipe that a grandchild holds open is not waited for
            _, open_still = await asyncio.wait(running.drains, timeout=LAST_WORD_LIMIT_S)
            for drain in open_still:
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


def available_bytes() -> int | None:
    """Memory that can be had without swapping, as the kernel estimates it; None where it does not say."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:")))
    return None


def no_memory(service: str, available: int | None) -> Refusal | None:
    """Why a host that was not here before is not started beside those that are."""
    if available is None or available >= limits.HOST_MEMORY_BYTES:
        return None
    return Refusal(
        "NO_ROOM",
        f"{available} bytes of memory are available; the host of {service} is started with "
        f"{limits.HOST_MEMORY_BYTES} at least, so that what runs already goes on.",
        {"availableBytes": str(available), "neededBytes": str(limits.HOST_MEMORY_BYTES)},
        "Remove or return a service here, or give the machine more memory.",
    )


def _status(
    service: str,
    *,
    root: str = "",
    pid: int = 0,
    alive: bool = False,
    restarts: int = 0,
    store_id: str = "",
    refusal: Refusal | None = None,
) -> dict[str, object]:
    """How a host is; `refusal` is why it does not run though it should."""
    return {
        "service": service,
        "root": root,
        "pid": pid,
        "alive": alive,
        "restarts": restarts,
        "storeId": store_id,
        "refusal": refusal,
    }


def _why(service: str, error: BaseException, code: int | None, log_file: Path, begin: int) -> str:
    with open(log_file, "rb") as log:
        log.seek(begin)
        lines = log.read().decode(errors="replace").splitlines()[-LOG_LINES:]
    what = "it was not ready in time" if isinstance(error, TimeoutError) else str(error)
    said = "; its log ends: " + " | ".join(lines) if lines else ""
    return f"The keeper of {service} did not start: {what} (exit code {code}){said}. See {log_file}."
