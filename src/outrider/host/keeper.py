"""A keeper process: opens the store, starts the worker, listens, and says that it is ready.

Started by the node as `python -m outrider.host.keeper CONFIG.json`. It ends when the node ends (its standard input is
a pipe of the node's), on SIGTERM, and on any fault: everything that it must know is durable, so ending is always safe.
"""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import msgspec
import structlog
import uvloop

from outrider.core import limits
from outrider.core.ids import NetworkId
from outrider.core.manifest import Manifest
from outrider.functions.nrf.client import NrfClient
from outrider.host import config as configs
from outrider.host.arrivals import Arrivals
from outrider.host.bootstrap import first_rows
from outrider.host.front import Front
from outrider.host.host import Host
from outrider.host.link import Link
from outrider.host.workers import Worker
from outrider.sbi.assertion import CcaSigner
from outrider.sbi.client import SbiClient
from outrider.sbi.server import SbiServer
from outrider.sbi.tokens import TokenSource, TokenVerifier
from outrider.store.bulk_process import BulkProcess
from outrider.store.committer import GroupCommitter
from outrider.store.sqlite import SqliteStore

log = structlog.get_logger()


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
    store = SqliteStore.open(config.data / configs.STORE_FILE, digest_key=digest_key)
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
    await worker.start()
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
    verifier = TokenVerifier(config.nrf_keys)
    nrf = NrfClient(client, config.nrf_root)
    arrivals = Arrivals(host, client, nrf, tokens)
    server = SbiServer(
        Front(host, verifier, arrivals),
        host=config.host,
        port=config.port,
        bulk=True,
        body_limit_bytes=limits.FRAME_BYTES,
    )
    await server.start()
    await host.start()
    arrivals.start(f"http://{config.host}:{server.port}")
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    loop.add_reader(sys.stdin.fileno(), _watch_parent, stopping)
    ready = {"ready": True, "port": server.port, "pid": os.getpid(), "storeId": store.identity.store_id}
    print(msgspec.json.encode(ready).decode(), flush=True)
    log.info("keeper.ready", service=config.service, network=config.network_id, port=server.port)
    await stopping.wait()
    log.info("keeper.stops", faults=faults)
    if faults:
        return 4  # nothing more is written: what is durable is the truth
    await arrivals.close()
    await nrf.close()
    await server.stop()
    await host.close()
    await worker.stop()
    await committer.close()
    store.close()
    await client.close()
    return 0


def _watch_parent(stopping: asyncio.Event) -> None:
    """The node's end of standard input is closed: it has ended."""
    if not os.read(sys.stdin.fileno(), 4096):
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
