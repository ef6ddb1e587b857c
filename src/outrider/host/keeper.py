"""A keeper process: opens the store, listens, starts the worker beside that, and says that it is ready.

It takes and gives keys without a worker; requests wait for one. So a keeper that is started again answers its peers at
once, and goes on trying where the worker does not start. Only where the package's software has never been loaded is it
ready no sooner than that: whoever deploys it learns so whether it can be.

It opens no store that is behind what its node knows of it (`own_store`): it says why, and ends.

Started by the node as `python -m outrider.host.keeper CONFIG.json`. It ends when the node ends (its standard input is
a pipe of the node's), on SIGTERM, and on any fault: everything that it must know is durable, so ending is always safe.
"""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # structlog loads rich where it is installed, to paint tracebacks: 5 MB for each keeper
    sys.modules["rich"] = None  # type: ignore[assignment]

import msgspec
import structlog
import uvloop

from outrider.core import limits
from outrider.core.ids import NetworkId
from outrider.core.manifest import Manifest
from outrider.core.refusal import Refused
from outrider.functions.nrf.client import NrfClient
from outrider.host import config as configs
from outrider.host.arrivals import Arrivals
from outrider.host.bootstrap import first_rows
from outrider.host.front import Front
from outrider.host.host import Host
from outrider.host.link import Link
from outrider.host.own_store import admission
from outrider.host.workers import Worker
from outrider.sbi.assertion import CcaSigner
from outrider.sbi.client import SbiClient
from outrider.sbi.server import SbiServer
from outrider.sbi.tokens import TokenSource, TokenVerifier
from outrider.store.bulk_process import BulkProcess
from outrider.store.committer import GroupCommitter
from outrider.store.port import SetValue
from outrider.store.sqlite import SqliteStore

log = structlog.get_logger()

LOADED = "worker-loaded"
"""Name of the value that notes which software has been loaded in which store; a restored store is another one."""

STORE_LOST = 5
"""Exit code of a keeper whose store is not the one that its node knows."""

COLLECT_AFTER = 50_000
"""So many new objects, and the collector looks at them; some 10 MB."""


async def run(config: configs.KeeperConfig) -> int:
    """Run a keeper until it is told to stop; returns its exit code."""
    stopping = asyncio.Event()
    faults: list[str] = []

    def on_fault(sentence: str) -> None:
        faults.append(sentence)
        stopping.set()

    manifest = msgspec.json.decode((Path(config.package_dir) / "manifest.json").read_bytes(), type=Manifest)
    config.data.mkdir(parents=True, exist_ok=True)
    digest_key = bytes.fromhex(config.digest_key) if config.digest_key else None
    try:
        store = SqliteStore.open(config.data / configs.STORE_FILE, digest_key=digest_key, admit=admission(config))
    except Refused as refused:
        log.error("store.lost", service=config.service, why=str(refused))
        _say({"ready": False, "refusal": refused.refusal})
        return STORE_LOST
    committer = GroupCommitter(store, on_fault=lambda fault: on_fault(str(fault)))
    await first_rows(store, committer, config)
    worker = Worker(
        Path(config.package_dir),
        manifest,
        scratch=config.data / "scratch",
        network=NetworkId.parse(config.network_id).plmn_id(),
        instances=config.nf_instance_ids,
        on_log=lambda level, text: log.info("worker", level=level, text=text),
        require_isolation=config.require_isolation,
    )
    client = SbiClient(timeout_s=limits.REQUEST_LIMIT_MS / 1000)
    tokens = TokenSource(
        client,
        config.nrf_root,
        config.keeper_instance_id,
        "LMSF",
        CcaSigner(config.internal_key, config.keeper_instance_id),
    )
    link = Link(config.service, config.network_id, config.border_root, client, tokens)
    host = Host(
        config,
        manifest,
        store,
        committer,
        worker,
        link,
        client,
        on_fault=on_fault,
        bulk=lambda: BulkProcess(store.path),
    )
    host.worker_starting = True
    verifier = TokenVerifier(config.nrf_keys)
    nrf = NrfClient(client, config.nrf_root)
    arrivals = Arrivals(host, client, nrf, tokens)
    front = Front(host, verifier, arrivals)
    server = SbiServer(
        front,
        host=config.host,
        port=config.port,
        bulk=True,
        body_limit_bytes=limits.FRAME_BYTES,
        refuse=front.refuse,
    )
    await server.start()
    await host.start()
    arrivals.start(f"http://{config.host}:{server.port}")
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    loop.add_reader(sys.stdin.fileno(), _watch_parent, stopping)
    software = f"{store.identity.store_id} {manifest.service} {manifest.version}".encode()
    starting = asyncio.create_task(_start(worker, host, software), name="the start of the worker")
    host.keep(starting)
    stop = asyncio.create_task(stopping.wait())
    if store.value(LOADED) != software:
        await asyncio.wait({starting, stop}, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.is_set():
        _spare_the_collector()
        _say({"ready": True, "port": server.port, "pid": os.getpid(), "store": store.mark})
        host.keep(asyncio.create_task(_note(store, on_fault), name="note the store"))
        log.info("keeper.ready", service=config.service, network=config.network_id, port=server.port)
    await stop
    log.info("keeper.stops", faults=faults)
    if faults:
        return 4  # nothing more is written: what is durable is the truth
    await arrivals.close()
    await nrf.close()
    await server.stop()
    await host.close()
    await worker.stop()
    await committer.close()
    _say({"store": store.mark})
    store.close()
    await client.close()
    return 0


def _say(value: object) -> None:
    """A line to the node; one that has ended reads none."""
    with contextlib.suppress(BrokenPipeError):
        print(msgspec.json.encode(value).decode(), flush=True)


async def _note(store: SqliteStore, on_fault: Callable[[str], None]) -> None:
    """Tell the node now and then how far the store is; and end where the file is not the store any more."""
    said = store.mark
    while True:
        await asyncio.sleep(limits.STORE_NOTE_MS / 1000)
        if store.replaced():
            on_fault(f"{store.path} was deleted, or another file is in its place")
            return
        if store.mark != said:
            said = store.mark
            await asyncio.to_thread(_say, {"store": said})


async def _start(worker: Worker, host: Host, software: bytes) -> None:
    """Start the worker. Software that has been loaded here is tried until it is again; other software may be unfit."""
    pause_ms = limits.WORKER_RESTART_MIN_MS
    loaded_before = host.store.value(LOADED) == software
    while True:
        try:
            await worker.start()
            break
        except (Refused, OSError) as error:
            if not loaded_before:
                raise
            log.error("worker.not-started", why=str(error), pause_ms=pause_ms)
        await asyncio.sleep(pause_ms / 1000)
        pause_ms = min(2 * pause_ms, limits.WORKER_RESTART_MAX_MS)
    if not loaded_before:
        await host.committer.submit(SetValue(LOADED, software))
    host.worker_started()


def _spare_the_collector() -> None:
    """What is loaded now stays. What requests make is nearly never a cycle, and hundreds of them are open at a time:
    with Python's threshold of 700 the collector took an eighth of a busy keeper's time and found nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)


def _watch_parent(stopping: asyncio.Event) -> None:
    """The node's end of standard input is closed: it has ended."""
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())  # it would be readable for ever
        stopping.set()


SWITCH_INTERVAL_S = 0.0005
"""How long one thread may keep Python's lock from another. Each point read of the event loop gives it up and wants it
back; with the usual 5 ms a busy committer made a read of 20 µs take as long, and forwarded requests five times longer.
"""


def main() -> None:
    """Entry point."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if len(sys.argv) != 2:
        sys.exit("usage: python -m outrider.host.keeper CONFIG.json")
    config = configs.load(Path(sys.argv[1]))
    stream = open(config.log_file, "a", buffering=1, encoding="utf-8") if config.log_file else sys.stderr  # noqa: SIM115
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(
                serializer=lambda value, **_: msgspec.json.encode(value, enc_hook=repr).decode()
            ),
        ],
        logger_factory=structlog.WriteLoggerFactory(stream),
    )
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(uvloop.run(run(config)))


if __name__ == "__main__":
    main()
