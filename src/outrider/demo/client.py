"""The UEs of the demo, and the application function that speaks for them: one process, open loop.

Started with a JSON config file, it takes orders on stdin (`open`, `load`, `travel`, `stop`, `read`, `close`, `end`) and
reports on stdout, one JSON object per line; what happened goes to the history file, for the checker. See `member` for a
UE. `{"do": "travel", "untilS": 30}` stops the track's clock there, until the next `travel`.
"""

import argparse
import asyncio
import contextlib
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from outrider.core.refusal import Refused
from outrider.demo import histories
from outrider.demo.access import Access, NetworkAt, NoProducer, Sent, Try, producers
from outrider.demo.histories import Discovered, Subscribed
from outrider.demo.member import PRESENCE, SESSION, Load, Member
from outrider.demo.orders import orders, say
from outrider.demo.population import Ue, population
from outrider.demo.quantiles import quantiles
from outrider.demo.track import Move, read_track
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.tokens import TokenSource

AT_ONCE = 32
"""Sessions opened, and final states read, at the same time: this is not the load."""

IDLE_VALIDITY_MS = 3_600_000
"""How long the policy grant of an idle UE lasts; longer than any run."""

RECENT = 2_000
"""Latencies that the progress report looks back on."""

PROGRESS_S = 0.5


class Unserved(Exception):
    """Something that the run cannot do without was refused."""


class Config(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What the process is told."""

    networks: list[NetworkAt]
    home: str
    ues: int
    track: str
    history: str
    nf_instance_id: str
    load: Load = Load()
    group_size: int = 25
    discover_every_s: float = 0.5
    callback_uri: str | None = None
    idle: int = 0
    """UEs beside the group that have a session and send nothing: they only are contexts."""
    series: int = 0
    """Runs one after the other with the same service have different series: each has UEs and groups of its own."""


class Group:
    """All UEs, what they send, and what they saw."""

    def __init__(self, config: Config, history: histories.Writer, client: SbiClient, moves: list[Move]) -> None:
        self.config = config
        self.history = history
        self.client = client
        self.moves = moves
        self.load_of = config.load
        self.home = config.home
        self.counted: Counter[str] = Counter()
        self.recent_ms: deque[float] = deque(maxlen=RECENT)
        self.access = {n.id: self._access(n) for n in config.networks}
        ues = population(config.ues, group_size=config.group_size, home=config.home, series=config.series)
        self.members = {ue.number: Member(self, ue) for ue in ues}
        self._running: list[asyncio.Task[None]] = []
        self._known: list[asyncio.Task[None]] = []
        self._clock_s = 0.0
        self._subscribed: list[tuple[str, str]] = []
        self.stopping = asyncio.Event()

    async def enter(self) -> None:
        """Become known to the NRF of each network, and stay known."""
        for access in self.access.values():
            interval_s = await access.register()
            self._known.append(asyncio.create_task(self._stay(access, interval_s)))

    async def leave(self) -> None:
        """Be known no more."""
        for task in self._known:
            task.cancel()
        for access in self.access.values():
            await access.deregister()

    @staticmethod
    async def _stay(access: Access, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s / 3)
            with contextlib.suppress(Unreachable, Refused):
                await access.register()

    def _access(self, network: NetworkAt) -> Access:
        tokens = TokenSource(self.client, network.nrf_root, self.config.nf_instance_id, "AF")
        return Access(self.client, network, tokens, self.config.nf_instance_id)

    async def open(self) -> dict[str, int]:
        """Subscribe to the groups' presence, register every UE at home, and open its session."""
        if self.config.callback_uri is not None:
            for group in sorted({m.ue.group for m in self.members.values()}):
                await self._subscribe(group, self.config.callback_uri)
        await _all(AT_ONCE, (m.open() for m in self.members.values()))
        await _all(AT_ONCE, (self._open_idle(ue) for ue in self._idle()))
        wanted = len(self.members) + self.config.idle
        return {"opened": self.counted["opened"], "failed": wanted - self.counted["opened"]}

    def _idle(self) -> list[Ue]:
        """The UEs that only have a session; their numbers follow those of the group."""
        config, ues = self.config, self.config.ues
        more = population(ues + config.idle, group_size=config.group_size, home=config.home, series=config.series)
        return [ue._replace(group=f"idle-{ue.group}") for ue in more[ues:]]

    async def _open_idle(self, ue: Ue) -> None:
        """Open a session as any UE does, with a grant that is renewed rarely: it is no load."""
        body = {"supi": ue.supi, "groupId": ue.group, "dnn": SESSION.dnn, "qos": {"validityMs": IDLE_VALIDITY_MS}}
        request = Try(SESSION, "POST", "/nsmf-groupsession/v1/ue-sessions", body, idem=f"idle-{ue.name}-open")
        answer = await self.send(request, lambda: self.config.home)
        self.counted["opened"] += answer.outcome == "ok"

    async def _subscribe(self, group: str, callback_uri: str) -> None:
        sent = time.monotonic()
        path = f"/namf-grouppresence/v1/groups/{group}/subscriptions"
        request = Try(PRESENCE, "POST", path, {"callbackUri": callback_uri}, idem=f"subscribe-{group}")
        answer = await self.send(request, lambda: self.config.home)
        if answer.outcome != "ok" or answer.response is None:
            raise Unserved(f"the subscription to {group} was answered {answer.status} {answer.cause}")
        subscription_id = answer.response.json()["subscriptionId"]
        self._subscribed.append((group, subscription_id))
        self.history.write(Subscribed(group, subscription_id, sent, time.monotonic()))

    async def send(self, request: Try, network: Callable[[], str]) -> Sent:
        """Try a request, in the network where its sender is at each try, until its outcome is certain or time is up."""
        give_up_s = time.monotonic() + request.retry_limit_s
        while True:
            response = await request.once(self.access[network()])
            if (sent := request.judged(response)) is not None:
                return sent
            pause_s = request.pause_s(response)
            if time.monotonic() + pause_s > give_up_s:
                return request.given_up(response)
            self.counted["retried"] += 1
            await asyncio.sleep(pause_s)

    def load(self) -> None:
        """Begin to send."""
        start = time.monotonic()
        for member in self.members.values():
            self._run(member.transact(start))
            self._run(member.renew(start))
        for access in self.access.values():
            self._run(self._watch(access))

    def travel(self, until_s: float = inf, without: str = "") -> asyncio.Task[None]:
        """The group sets out, or goes on: the track's time runs until that instant.

        `without` is a network to which nobody goes although the track says so: there is nothing for them there.
        """
        moves = [m for m in self.moves if self._clock_s <= m.time_s < until_s and m.network != without]
        start, self._clock_s = time.monotonic() - self._clock_s, until_s
        return asyncio.create_task(self._travel(moves, start))

    async def _travel(self, moves: list[Move], start: float) -> None:
        async with asyncio.TaskGroup() as arriving:
            for move in moves:
                await asyncio.sleep(start + move.time_s - time.monotonic())
                if self.members[move.ue].network != move.network:
                    arriving.create_task(self.members[move.ue].arrive(move.network, start + move.time_s))

    async def stop(self) -> None:
        """Begin nothing new, and wait for what is on its way."""
        self.stopping.set()
        await asyncio.gather(*self._running)

    async def read(self) -> int:
        """Read the state of every UE; how many could be read whole."""
        await _all(AT_ONCE, (m.read() for m in self.members.values()))
        return self.counted["read"]

    async def close(self) -> dict[str, int]:
        """Close every session and end the subscriptions: nothing is left that would be load for those who follow."""
        await _all(AT_ONCE, (m.close() for m in self.members.values()))
        for group, subscription in self._subscribed:
            path = f"/namf-grouppresence/v1/groups/{group}/subscriptions/{subscription}"
            request = Try(PRESENCE, "DELETE", path, idem=f"unsubscribe-{group}")
            self.counted["unsubscribed"] += (await self.send(request, lambda: self.config.home)).outcome == "ok"
        wanted = len(self.members) + len(self._subscribed)
        return {"failed": wanted - self.counted["closed"] - self.counted["unsubscribed"]}

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._running.append(asyncio.create_task(work))

    async def _watch(self, access: Access) -> None:
        """Note how many instances of the service the network's NRF names."""
        while not await self.stopped_by(time.monotonic() + self.config.discover_every_s):
            with contextlib.suppress(Unreachable, Refused, NoProducer):
                response = await access.discover(SESSION)
                if response.status == 200:
                    instances = len(producers(response.json(), SESSION.name))
                    self.history.write(Discovered(access.network.id, time.monotonic(), instances))

    async def stopped_by(self, at_s: float) -> bool:
        """Wait until an instant; True, at once, if the load is to end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + at_s - time.monotonic()):
                await self.stopping.wait()
        return self.stopping.is_set()

    def progress(self) -> dict[str, Any]:
        """Where the group stands, for a live view."""
        where = Counter(m.network for m in self.members.values())
        return {
            **{name: self.counted[name] for name in ("sent", "ok", "refused", "failed", "unknown", "retried", "basic")},
            "basicFailed": self.counted["basicFailed"],
            "inNetwork": {n.id: where[n.id] for n in self.config.networks},
            "servedBy": {n.id: self.counted[f"by {n.id}"] for n in self.config.networks},
            "latencyMs": quantiles(self.recent_ms),
        }


async def _all(at_once: int, work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all, so many at the same time."""
    places = asyncio.Semaphore(at_once)

    async def one(each: Coroutine[Any, Any, None]) -> None:
        async with places:
            await each

    await asyncio.gather(*(one(each) for each in work))


# ------------------------------------------------------------------------------------------- as a process


async def _report(group: Group) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        say({"progress": group.progress()})


async def _obey(group: Group) -> None:
    travelling: list[asyncio.Task[None]] = []
    async for order in orders():
        match order.get("do"):
            case "open":
                say({"done": "open", **await group.open()})
            case "load":
                group.load()
                say({"done": "load", "atS": time.monotonic()})
            case "travel":
                travelling.append(group.travel(order.get("untilS", inf), order.get("without", "")))
                travelling[-1].add_done_callback(lambda _: say({"done": "travelled", "atS": time.monotonic()}))
                say({"done": "travel", "atS": time.monotonic()})
            case "stop":
                await asyncio.gather(*travelling)
                await group.stop()
                say({"done": "stop", "progress": group.progress()})
            case "read":
                say({"done": "read", "read": await group.read()})
            case "close":
                say({"done": "close", **await group.close()})
            case "end":
                return
            case other:
                say({"error": f"{other!r} is not an order"})


async def _main(config: Config) -> int:
    networks = [n.id for n in config.networks]
    moves = read_track(Path(config.track), ues=config.ues, networks=networks, home=config.home)
    with histories.Writer(Path(config.history)) as history:
        async with SbiClient() as client:
            group = Group(config, history, client, moves)
            try:
                await group.enter()
                reporting = asyncio.create_task(_report(group))
                say({"ready": True})
                await _obey(group)
                reporting.cancel()
                await group.leave()
            except (Unreachable, Refused, Unserved) as e:
                say({"error": str(e)})
                return 1
    return 0


def main() -> None:
    """Run the UEs until stdin ends or `end` is ordered."""
    parser = argparse.ArgumentParser(prog="outrider.demo.client", description="The UEs of the demo.")
    parser.add_argument("config", type=Path, help="a JSON file")
    options = parser.parse_args()
    config = msgspec.json.decode(options.config.read_bytes(), type=Config)
    sys.exit(uvloop.run(_main(config)))


if __name__ == "__main__":
    main()
