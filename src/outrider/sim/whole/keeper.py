"""One network's keeper over its starts and its deaths: the production host on this network's disk, link and clocks."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any, TypeVar, cast

from outrider.core.refusal import Refusal, Refused
from outrider.host.bootstrap import first_rows
from outrider.host.config import STORE_FILE, KeeperConfig
from outrider.host.front import Front
from outrider.host.host import Host
from outrider.host.own_store import admission
from outrider.sbi.http import Handler, Request, Response
from outrider.sbi.tokens import Claims
from outrider.sim.whole.clock import WallClock
from outrider.sim.whole.disk import Disk, DiskStore, VirtualCommitter
from outrider.sim.whole.link import VirtualLink, Wires, plmn
from outrider.sim.whole.loop import VirtualLoop, context
from outrider.sim.whole.port import Port
from outrider.sim.whole.service import MANIFEST, NF, VirtualWorker
from outrider.sim.whole.sink import Sink, VirtualClient
from outrider.sim.whole.trace import Trace
from outrider.store.port import StoreMark

T = TypeVar("T")

_RESTART_S = (0.2, 2.0)
"""How long a network's node takes to start a keeper that has ended by itself."""


class Down(Exception):
    """The keeper is not there, or has ended before it answered."""


class Verifier:
    """Stands where the token verifier stands: a token is the name of its bearer, and it is true."""

    def verify(self, authorization: str, *, audience: set[str], scope: str) -> Claims:
        """What the token says: `NAME NETWORK`."""
        name, _, network = authorization.partition(" ")
        return Claims(iss="sim", sub=name, aud="sim", scope=scope, exp=0, consumer_plmn_id=plmn(network))


class Keeper:
    """See the module."""

    def __init__(
        self, network: str, home: str, directory: Path, seed: str, disk: Disk, wires: Wires, sink: Sink, trace: Trace
    ) -> None:
        self.network = network
        self.disk = disk
        self.clock = WallClock(Random(f"{seed}/{network}/clock").randint(-400, 400))
        self.worker = VirtualWorker(Random(f"{seed}/{network}/worker"))
        self.store: DiskStore | None = None
        self.host: Host | None = None
        self.on_up: Callable[[DiskStore], None] = lambda _: None
        self.on_ready: Callable[[StoreMark], None] = lambda _: None
        """Is told each time that the process serves."""
        self._chance = Random(f"{seed}/{network}/keeper")
        self._directory = directory
        self._wires = wires
        self._sink = sink
        self._trace = trace
        self._loop = cast(VirtualLoop, asyncio.get_running_loop())
        self._outside = context("")
        self._starts = 0
        self._running = False
        self._port = Port(self._task, lambda sentence: trace.say(network, sentence))
        self._committer: VirtualCommitter | None = None
        self._asked: set[asyncio.Future[Any]] = set()
        self._launched: asyncio.Future[StoreMark] | None = None
        self.config = KeeperConfig(
            service=MANIFEST.service, network_id=network, home_id=home, data_dir="", package_dir="",
            border_root="", nrf_root="", nrf_keys={}, internal_key="", nf_instance_ids={NF: f"i-{network}"},
            keeper_instance_id=f"k-{network}",
        )  # fmt: skip
        """What the process that is started next is told."""
        self.up_since_s = 0.0
        self.wanted = True
        wires.doors[network] = self

    @property
    def process(self) -> str:
        """The name of the process that runs now, or ran last."""
        return f"{self.network}#{self._starts}"

    @property
    def up(self) -> bool:
        """Whether it serves."""
        return self.host is not None

    # --------------------------------------------------------------------------------------- life cycle

    def start(self) -> None:
        """Start a process on what is on the disk."""
        if self._running:
            return
        self._running = True
        self._starts += 1
        self._loop.create_task(self._run(self.process), context=context(self.process))

    def launch(self) -> "asyncio.Future[StoreMark]":
        """Start a process for its node. The future gets how far its store is when it serves, or why it does not:
        `StoreLost`, or `ChildProcessError` where it has ended before.
        """
        self.wanted = True
        self._launched = launched = self._loop.create_future()
        self.start()
        return launched

    async def _run(self, process: str) -> None:
        config = self.config
        digest_key = bytes.fromhex(config.digest_key) if config.digest_key else None
        self._place.mkdir(parents=True, exist_ok=True)
        try:
            opened = DiskStore.open(self._place / STORE_FILE, digest_key=digest_key, admit=admission(config))
        except Refused as refused:
            self._store_lost(refused.refusal)
            return
        store = cast(DiskStore, opened)
        store.disk = self.disk
        self.store = store
        self._committer = committer = VirtualCommitter(store, on_fault=lambda fault: self._ended(process, str(fault)))
        await first_rows(store, committer, config)
        self.on_up(store)
        link, client = (
            VirtualLink(self._wires, self.network, self.disk.watcher.sent),
            VirtualClient(self._sink, self.network),
        )
        host = Host(
            config,
            MANIFEST,
            store,
            committer,
            cast(Any, self.worker),
            cast(Any, link),
            cast(Any, client),
            on_fault=lambda sentence: self._ended(process, sentence),
        )
        host.utc_ms = self.clock.utc_ms  # type: ignore[method-assign]
        host.worker_starting = True
        self._port.listen(_serving(Front(host, cast(Any, Verifier()))))
        self.host = host
        await host.start()
        self._trace.say(self.network, f"is up for the {self._starts}. time, with store {store.identity.store_id[:6]}")
        self._loop.call_later(self._chance.uniform(0.02, 1.0), host.worker_started)
        self.up_since_s = self._loop.time()
        self.on_ready(store.mark)
        if self._launched is not None and not self._launched.done():
            self._launched.set_result(store.mark)

    def _store_lost(self, refusal: Refusal) -> None:
        self._trace.violation("store", f"{self.network} serves nothing: {refusal.sentence}")

    @property
    def _place(self) -> Path:
        return self._directory / str(self._starts)

    def kill(self, why: str) -> None:
        """The machine goes down in the middle of whatever it does."""
        if not self._running:
            return
        self._running = False
        self._loop.kill(self.process)
        now, after = self._place, self._directory / str(self._starts + 1)
        if self._committer is None:  # it had not opened its store yet
            if now.exists():
                now.rename(after)
            write = "none"
        else:
            write = self._committer.crash(after)
            shutil.rmtree(now)
        self._trace.say(self.network, f"goes down ({why}; the write under way: {write})")
        self._gone()

    def stop(self, why: str) -> None:
        """Its node ends it, and starts it no more."""
        self.wanted = False
        self.on_ready = lambda _: None
        self.kill(why)

    def orphan(self) -> None:
        """Its node has ended: the process that runs now notices that a moment later."""
        self.wanted = False
        self.on_ready = lambda _: None
        self._loop.call_later(self._chance.random() * 0.05, self._end, self.process, context=self._outside)

    def remove(self) -> None:
        """Delete the store of a process that has ended."""
        shutil.rmtree(self._place, ignore_errors=True)
        shutil.rmtree(self._directory / str(self._starts + 1), ignore_errors=True)

    def kill_here(self, why: str) -> None:
        """End the process in the middle of the callback that runs: nothing that it does from now on leaves it."""
        self._loop.kill(self.process)
        self._loop.call_soon(self.kill, why, context=self._outside)

    def close(self) -> None:
        """Let go of the files, at the end of the world."""
        self._running = False
        self._loop.kill(self.process)
        if self.store is not None:
            self.store.close()

    def lose(self) -> None:
        """The machine goes down, and its disk with it."""
        self.kill("its disk is gone")
        shutil.rmtree(self._directory / str(self._starts + 1), ignore_errors=True)

    def _gone(self) -> None:
        self.store = self.host = self._committer = None
        self._port.gone()
        for asked in self._asked:
            if not asked.done():
                asked.set_exception(Down(self.network))
        self._asked.clear()
        if self._launched is not None and not self._launched.done():
            self._launched.set_exception(ChildProcessError("it has ended before it was ready"))

    def _ended(self, process: str, sentence: str) -> None:
        """The process has found a fault and ends; its node starts another one."""
        if process != self.process or not self._running:
            return
        if f"the disk of {self.network}" not in sentence:
            self._trace.violation("fault", f"the keeper of {self.network} stops: {sentence}")
        self._loop.call_later(self._chance.random() * 0.005, self._end, process, context=self._outside)

    def _end(self, process: str) -> None:
        if process == self.process and self._running:
            self.kill("a fault" if self.wanted else "its node has ended")
            if self.wanted:
                self._loop.call_later(self._chance.uniform(*_RESTART_S), self.again)

    def again(self) -> None:
        """Start it again, unless nobody wants it any more."""
        if self.wanted:
            self.start()

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        """A task of the process; of one that is ended already, nothing."""
        if self._loop.killed(self.process):
            work.close()
        else:
            self._loop.create_task(work, context=context(self.process))

    # -------------------------------------------------------------------------------------- being asked

    def take(self, request: Request, answered: Callable[[Response | None], None]) -> bool:
        """A request has come to the keeper's port."""
        return self._port.take(request, answered)

    async def ask(self, do: Callable[[Host], Awaitable[T]]) -> T:
        """Let the own LMSF ask something of the host; `Down` if it is not there long enough to answer."""
        host = self.host
        if host is None:
            raise Down(self.network)
        asked: asyncio.Future[T] = self._loop.create_future()
        self._asked.add(asked)

        async def work() -> None:
            try:
                result = await do(host)
            except Exception as error:
                if not asked.done():
                    asked.set_exception(error)
            else:
                if not asked.done():
                    asked.set_result(result)

        self._task(work())
        try:
            return await asked
        finally:
            self._asked.discard(asked)


def _serving(front: Front) -> Handler:
    """What listens at a keeper's port: it turns away what there is no room for, unread."""

    async def serve(request: Request) -> Response:
        return front.refuse(request.path, request.headers.get) or await front(request)

    return serve
