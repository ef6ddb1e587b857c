"""Two or three whole hosts in one process, over real stores, joined by a link that a test can cut, delay or repeat."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from outrider.core.compress import decompress
from outrider.core.manifest import KeyRule, Manifest, NfServiceSpec
from outrider.host.bootstrap import first_rows
from outrider.host.config import KeeperConfig
from outrider.host.front import Front
from outrider.host.host import Host
from outrider.host.jobs import Elsewhere, Job
from outrider.host.migrations import HostMigration
from outrider.protocol.messages import Answer, Carried, bulk_batch, lane_batch
from outrider.sbi.client import Unreachable
from outrider.sbi.http import Response
from outrider.sdk import wire
from outrider.store.committer import GroupCommitter
from outrider.store.sqlite import SqliteStore

A, B, C = "999-70", "999-71", "999-72"

MANIFEST = Manifest(
    service="counter",
    version="1",
    vendor="tests",
    nf_services=[
        NfServiceSpec(
            name="nsmf-counter",
            nf_type="SMF",
            app="counter:app",
            keys=[
                KeyRule(path="/nsmf-counter/v1/ues", at="body:/supi", methods=["POST"], creates=True),
                KeyRule(path="/nsmf-counter/v1/ues/{supi}{/rest*}", at="path:supi"),
            ],
        )
    ],
)


class CounterWorker:
    """Stands where the worker process stands: counts, arms timers, sends messages, as the path says."""

    def __init__(self) -> None:
        self.arrivals: list[str] = []
        self.fired: list[tuple[str, str]] = []
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()
        self.limits_ms: list[float] = []

    async def run(self, run: wire.Run, *, limit_ms: float, read_shared: object) -> wire.Proposal:
        records = {name: body for _, name, body in run.records}
        self.limits_ms.append(limit_ms)
        if run.kind == "arrival":
            self.arrivals.append(run.key)
            return wire.Proposal(run.unit, records=[("nsmf-counter", "place", msgspec.json.encode(run.network))])
        if run.kind == "timer":
            self.fired.append((run.key, run.entry_id))
            return wire.Proposal(run.unit, timers=[("nsmf-counter", "tick", 50, b"")])
        if run.kind == "message":
            count = int(records.get("heard", b"0")) + 1
            return wire.Proposal(run.unit, status=204, records=[("nsmf-counter", "heard", str(count).encode())])
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        count = int(records.get("count", b"0"))
        if run.method == "GET" and not run.path.endswith("/writes"):
            return wire.Proposal(run.unit, body=str(count).encode())
        sends = [wire.Send("nsmf-counter", "heard", b"", shared="group:g")] if run.path.endswith("/tell") else []
        timers = [("nsmf-counter", "tick", 50, b"")] if run.path.endswith("/tick") else []
        size = int(run.query or 0)
        extra = [("nsmf-counter", "big", bytes(size))] if size else []
        return wire.Proposal(
            run.unit,
            body=str(count + 1).encode(),
            records=[("nsmf-counter", "count", str(count + 1).encode()), *extra],
            sends=sends,
            timers=timers,
        )

    def status(self) -> dict[str, bool]:
        return {"alive": True}


@dataclass
class Net:
    """The hosts by network, and what happens to frames between them."""

    hosts: dict[str, Host] = field(default_factory=dict)
    fronts: dict[str, Front] = field(default_factory=dict)
    workers: dict[str, CounterWorker] = field(default_factory=dict)
    dirs: dict[str, Path] = field(default_factory=dict)
    cut: set[tuple[str, str]] = field(default_factory=set)
    """What may have arrived, for all that the sender knows."""
    refused: set[tuple[str, str]] = field(default_factory=set)
    """No connection: what certainly has not left."""
    lost_answers: set[tuple[str, str]] = field(default_factory=set)
    delay_s: float = 0.0
    faults: list[str] = field(default_factory=list)
    stores: dict[str, tuple[SqliteStore, GroupCommitter]] = field(default_factory=dict)

    async def start(self, network: str, directory: Path, *, home: str = A, digest_key: str | None = None) -> Host:
        config = KeeperConfig(
            service="counter", network_id=network, home_id=home, data_dir=str(directory), package_dir="",
            border_root="", nrf_root="", nrf_keys={}, internal_key="", nf_instance_ids={"nsmf-counter": "i-" + network},
            keeper_instance_id="k-" + network, digest_key=digest_key,
        )  # fmt: skip
        directory.mkdir(parents=True, exist_ok=True)
        key = bytes.fromhex(digest_key) if digest_key else None
        store = SqliteStore.open(directory / "contexts.db", digest_key=key)
        committer = GroupCommitter(store, on_fault=lambda fault: self.faults.append(str(fault)))
        await first_rows(store, committer, config)
        worker = CounterWorker()
        link = _Link(self, network)
        host = Host(
            config, MANIFEST, store, committer, worker, link, None, on_fault=self.faults.append  # type: ignore[arg-type]
        )  # fmt: skip
        self.hosts[network], self.workers[network] = host, worker
        self.dirs[network], self.stores[network] = directory, (store, committer)
        self.fronts[network] = Front(host, None)  # type: ignore[arg-type]
        await host.start()
        return host

    async def stop(self, network: str) -> None:
        host = self.hosts.pop(network)
        await host.close()
        store, committer = self.stores.pop(network)
        await committer.close()
        store.close()

    async def restart(self, network: str) -> Host:
        """As a crash and a new start: nothing volatile survives."""
        await self.stop(network)
        return await self.start(network, self.dirs[network])

    async def begin(self, mig: str, source: str, target: str, *, relocate: bool = True, sweep: str = "arrived") -> None:
        ids = {n: self.hosts[n].store.identity.store_id for n in (source, target)}
        target_side = HostMigration(migration_id=mig, role="target", peer=source, home=A, peer_store_id=ids[source])
        source_side = HostMigration(migration_id=mig, role="source", peer=target, home=A, peer_store_id=ids[target])
        await self.hosts[target].begin(target_side)
        await self.hosts[source].begin(source_side)
        if relocate:
            await self.relocate(mig, source, sweep=sweep)

    async def relocate(self, mig: str, source: str, *, sweep: str = "arrived") -> None:
        changed = await self.hosts[source].migrations.change(mig, relocating=True, sweep=sweep)
        self.hosts[source].mover.start(changed)  # type: ignore[arg-type]

    def post(
        self, network: str, supi: str, *, tail: str = "/add", method: str = "POST", key: str | None = None,
        query: str = "", create: bool = False, limit_s: float = 5.0, kind: str = "request",
    ) -> "asyncio.Future[Answer | Elsewhere]":  # fmt: skip
        """One consumer request at a network."""
        host = self.hosts[network]
        now_s = host.now_s()
        answer_id = f"c/{key}" if key else f"n/{now_s}/{id(host)}"
        path = f"/nsmf-counter/v1/ues/{supi}{tail}"
        carried = Carried(method, path, query, [], b"", answer_id, "c", kind=kind, nf="nsmf-counter")
        reply: asyncio.Future[Answer | Elsewhere] = asyncio.get_running_loop().create_future()
        job = Job(carried, now_s + limit_s, reply, now_s, identity=supi, creates=create, keep_answer=key is not None)
        host.submit(job)
        return reply

    async def add(self, network: str, supi: str, **how: object) -> int:
        """Count up once; returns the count after it. Retries 503 and 504 with the same key, as a consumer does."""
        how.setdefault("key", f"{supi}-{id(how)}-{asyncio.get_running_loop().time()}")
        while True:
            answer = await self.post(network, supi, **how)  # type: ignore[arg-type]
            assert isinstance(answer, Answer)
            if answer.status in (503, 504):
                await asyncio.sleep(0.02)
                continue
            assert answer.status == 200, answer
            return int(answer.body)

    async def create(self, supi: str, network: str = A) -> bytes:
        await self.add(network, supi, create=True)
        key = self.hosts[network].store.key_of(supi)
        assert key is not None
        self.workers[network].entered.clear()
        return key

    def stayed(self) -> None:
        """Let every context have been where it is for long enough to go on."""
        for host in self.hosts.values():
            host._taken_s.clear()

    async def until(self, condition: Callable[[], object], what: str = "the condition") -> None:
        """Wait for something to become true; the test's own timeout bounds it."""
        for _ in range(4000):
            if condition():
                return
            assert not self.faults, self.faults
            await asyncio.sleep(0.005)
        raise AssertionError(f"{what} did not come")


class _Link:
    """The way between keepers, in process."""

    def __init__(self, net: Net, network: str) -> None:
        self._net, self._network = net, network
        self.bytes_sent = self.bulk_bytes_sent = 0

    async def post(self, peer: str, body: bytes, *, bulk: bool) -> Response:
        net, pair = self._net, (self._network, peer)
        await asyncio.sleep(net.delay_s / 2)
        if pair in net.refused:
            raise Unreachable("no connection", not_sent=True)
        if pair in net.cut or peer not in net.hosts:
            raise Unreachable("cut", not_sent=False)
        batch = bulk_batch.decode(body) if bulk else lane_batch.decode(decompress(body))
        try:
            response = await net.fronts[peer]._take(self._network, batch, bulk)
        except RuntimeError as error:  # a host that was taken away under the request; its server would answer 500
            raise Unreachable(str(error), not_sent=False) from None
        await asyncio.sleep(net.delay_s / 2)
        if pair in net.lost_answers or (peer, self._network) in net.cut:
            raise Unreachable("answer lost", not_sent=False)
        self.bytes_sent += len(body)
        return response

    async def close(self) -> None:
        pass


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[Net]:
    """Home A and target B, started."""
    net = Net()
    home = await net.start(A, tmp_path / "a")
    await net.start(B, tmp_path / "b", digest_key=home.store.identity.digest_key.hex())
    yield net
    for network in list(net.hosts):
        await net.stop(network)
    assert not net.faults, net.faults
