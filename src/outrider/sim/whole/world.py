"""One world: networks, ways, UEs, operators and faults of a scenario, from the first row to the last check.

Operators ask hosts here; where they ask LMSFs, some of it is done otherwise (`nodes_world`).
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from random import Random

import msgspec

from outrider.core import limits
from outrider.core.ids import key_text, shared_key
from outrider.protocol.ownership import Ownership
from outrider.sim.whole import verdict
from outrider.sim.whole.consumer import Consumer
from outrider.sim.whole.disk import Disk
from outrider.sim.whole.faults import Breaker
from outrider.sim.whole.keeper import Down, Keeper
from outrider.sim.whole.ledger import Ledger
from outrider.sim.whole.link import Door, Wires
from outrider.sim.whole.loop import BEGIN_S, VirtualLoop
from outrider.sim.whole.node import Node
from outrider.sim.whole.operators import Operators
from outrider.sim.whole.scenario import HOME, Act, Plan, UePlan
from outrider.sim.whole.service import GROUP, Heard, read_book, read_group
from outrider.sim.whole.sink import Sink
from outrider.sim.whole.trace import Event, Trace, Violation
from outrider.store.port import StoreFault

REST_LIMIT_S = 90.0
"""When nothing is broken any more, everything comes to its end within so many virtual seconds."""

_LOOK_S = 0.25
_HOLD_SLACK_S = 0.5
_DIGEST_KEY = bytes(range(32)).hex()


class Result(msgspec.Struct, frozen=True, rename="camel"):
    """What came of a scenario."""

    seed: str
    scenario: str
    violations: list[Violation]
    hash: str
    virtual_s: float
    steps: int
    commits: int
    operations: int
    lmsfs: bool = False
    events: list[Event] = []

    @property
    def title(self) -> str:
        """The scenario, and which kind of world it was."""
        return f"{self.scenario} with LMSFs" if self.lmsfs else self.scenario


class World:
    """See the module; `play` runs one."""

    def __init__(self, plan: Plan, loop: VirtualLoop, directory: Path) -> None:
        self.trace = Trace()
        self._plan = plan
        self._loop = loop
        self._ledger = Ledger(self.trace)
        self._wires = Wires(loop, plan.seed, self.trace)
        self._sink = Sink(plan.seed, self.trace)
        self._keepers = {n: self._keeper(n, directory / n) for n in plan.networks}
        self._nodes: Mapping[str, Node] = {}
        self._prepare(directory)
        self._breaker = Breaker(loop, self._keepers, self._nodes, self._wires, self.trace)
        doors = self._doors()
        self._consumers = [Consumer(ue, HOME, doors, plan.seed, self.trace) for ue in plan.ues]
        self._held_since_s: dict[tuple[str, bytes], float] = {}
        self._gone: set[str] = set()
        """Networks whose disk was lost: no UE goes there any more."""
        self._excused: set[bytes] = set()
        """Keys whose owner's disk was lost: what it had answered may be lost with it (async mode)."""

    # What a world with LMSFs does otherwise (`nodes_world`).

    def _prepare(self, directory: Path) -> None:
        """Whoever is there besides hosts and UEs."""
        self._operators = Operators(self._keepers, self.trace)

    def _doors(self) -> Mapping[str, Door]:
        """Where consumers of each network ask."""
        return self._keepers

    async def _begin(self) -> None:
        """Bring up what is there before anything happens."""
        for keeper in self._keepers.values():
            keeper.start()
        while not all(keeper.up for keeper in self._keepers.values()):
            await asyncio.sleep(0.001)

    async def _act(self, act: Act) -> None:
        """Do what the scenario says."""
        match act.deed:
            case "lose":
                self._lose(act)
            case "reborn":
                self._keepers[act.target].wanted = True
                self._keepers[act.target].start()
            case _:
                await self._operators.do(act)

    async def _mend(self) -> None:
        """Let every host serve that is to."""
        for keeper in self._keepers.values():
            if keeper.wanted:
                keeper.start()
                while True:
                    try:
                        await keeper.ask(lambda host: host.permit(True))
                        break
                    except (Down, StoreFault):
                        await asyncio.sleep(0.1)

    def _doing(self) -> str:
        """What operators wait for."""
        return self._operators.doing

    def _all_home(self) -> bool:
        """Whether home is to own every key."""
        return self._operators.home_whole

    def _judge_networks(self) -> list[Violation]:
        """What else is to be so at the end."""
        return []

    # ---------------------------------------------------------------------------------------------------

    def _keeper(self, network: str, directory: Path) -> Keeper:
        disk = Disk(network, Random(f"{self._plan.seed}/{network}/disk"), self._ledger)
        directory.mkdir()
        keeper = Keeper(network, HOME, directory, self._plan.seed, disk, self._wires, self._sink, self.trace)
        keeper.config = msgspec.structs.replace(keeper.config, digest_key=_DIGEST_KEY)
        keeper.on_up = lambda store: self._ledger.opened(network, store)
        return keeper

    def reached(self, place: str) -> None:
        """Production code has come to a fail-point."""
        self._breaker.reached(place)

    def result(self, *, story: bool) -> Result:
        """What came of it."""
        return Result(
            self._plan.seed,
            self._plan.name,
            list(self.trace.violations),
            self.trace.hash,
            round(self._loop.time() - BEGIN_S, 3),
            self._loop.steps,
            self._ledger.commits,
            sum(len(c.history) for c in self._consumers),
            self._plan.lmsfs,
            self.trace.events if story else [],
        )

    def close(self) -> None:
        """Let go of the files."""
        for keeper in self._keepers.values():
            keeper.close()

    # ------------------------------------------------------------------------------------------ the run

    async def run(self) -> None:
        """Everything, or until something is wrong."""
        self._loop.set_exception_handler(self._unhandled)
        everything = asyncio.create_task(self._everything())
        wrong = asyncio.create_task(self.trace.violated.wait())
        done, _ = await asyncio.wait({everything, wrong}, return_when=asyncio.FIRST_COMPLETED)
        if everything in done:
            await everything

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, said: dict[str, object]) -> None:
        if "handle" in said:  # the rest is said when Python collects something, which is no instant of this world
            self.trace.violation("fault", f"{said.get('message')}: {said.get('exception')!r}")

    async def _everything(self) -> None:
        await self._begin()
        self._ledger.begun = True
        tasks = [
            asyncio.create_task(self._acts()),
            *(asyncio.create_task(self._fault(i)) for i in range(len(self._plan.faults))),
            *(asyncio.create_task(self._moves(ue)) for ue in self._plan.ues),
            *(asyncio.create_task(consumer.run()) for consumer in self._consumers),
        ]
        watch = asyncio.create_task(self._watch())
        await self._until(self._plan.end_s)
        await self._heal()
        await self._rest(tasks)
        watch.cancel()
        if not self.trace.violations:
            self._judge()

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, BEGIN_S + at_s - self._loop.time()))

    async def _acts(self) -> None:
        for act in self._plan.acts:
            await self._until(act.at_s)
            await self._act(act)

    def _lose(self, act: Act) -> None:
        self._gone.add(act.target)
        self._keepers[act.target].wanted = False
        self._keepers[act.target].lose()
        self._ledger.lost(act.target)
        self._excused |= self._ledger.adrift

    async def _fault(self, i: int) -> None:
        fault = self._plan.faults[i]
        await self._until(fault.at_s)
        with suppress(Down, StoreFault):
            await self._breaker.do(fault)

    async def _moves(self, ue: UePlan) -> None:
        consumer = next(c for c in self._consumers if c.supi == ue.supi)
        for move in ue.moves:
            await self._until(move.at_s)
            if move.network not in self._gone:
                consumer.network = move.network
                self.trace.say(ue.supi, f"is in {move.network} now")
                if move.heard:
                    await self._register(ue.supi, move.network)

    async def _register(self, supi: str, network: str) -> None:
        async def registered(host: object) -> None:
            keeper = self._keepers[network]
            if keeper.host is not None:
                keeper.host.identities.registered(supi)

        with suppress(Down, StoreFault):
            await self._keepers[network].ask(registered)

    async def _heal(self) -> None:
        self.trace.say("world", "nothing breaks any more")
        self._wires.heal()
        self._breaker.heal()
        self._sink.trouble = 0.0
        for consumer in self._consumers:
            if consumer.network in self._gone:
                consumer.network = HOME
        for keeper in self._keepers.values():
            keeper.disk.full = keeper.disk.broken = False
            keeper.disk.slow = 1.0
            keeper.worker.hangs = keeper.worker.dead = False
        await self._mend()

    # --------------------------------------------------------------------------------- while it runs

    async def _watch(self) -> None:
        """I8: no key is held for longer than the bound."""
        while True:
            await asyncio.sleep(0.1)
            held = {
                (n, key)
                for n, keeper in self._keepers.items()
                if keeper.host is not None
                for key, actor in keeper.host.actors.items()
                if actor.vol.held is not None
            }
            now_s = self._loop.time()
            self._held_since_s = {k: self._held_since_s.get(k, now_s) for k in sorted(held)}
            if self._breaker.disturbed:
                continue
            for (network, key), since_s in self._held_since_s.items():
                if now_s - since_s > limits.HOLD_LIMIT_MS / 1000 + _HOLD_SLACK_S:
                    self.trace.violation("I8", f"{network} holds {key_text(key)} since {since_s - BEGIN_S:.3f} s")
                    return

    # ------------------------------------------------------------------------------------------- its end

    async def _rest(self, tasks: list[asyncio.Task[None]]) -> None:
        """I9: with everything whole, everything ends."""
        until_s = self._loop.time() + REST_LIMIT_S
        while (left := self._unfinished(tasks)) and self._loop.time() < until_s:
            await asyncio.sleep(_LOOK_S)
        if left:
            self.trace.violation("I9", f"{REST_LIMIT_S:.0f} s after all is whole again: {left}")
        for task in tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                raise task.exception() or AssertionError

    def _unfinished(self, tasks: list[asyncio.Task[None]]) -> str:
        if not all(task.done() for task in tasks):
            return f"operators: {self._doing()}" if not tasks[0].done() else "a UE waits for its answer"
        if granted := self._ledger.granted():
            return f"in doubt: {', '.join(f'{key_text(key)} at {network}' for network, key in granted)}"
        for key in sorted(self._ledger.keys):
            owner = self._owner(key)
            if owner is None or owner.store is None:
                return f"nobody serves {key_text(key)}"
            kinds = {record.kind for record in owner.store.context(key).records}
            if kinds & {2, 3}:
                return f"{key_text(key)} at {owner.network} has timers or messages"
        return ""

    def _owner(self, key: bytes) -> Keeper | None:
        owners = self._ledger.owners(key)
        return self._keepers[owners[0]] if len(owners) == 1 else None

    def _judge(self) -> None:
        found: list[Violation] = []
        group_key = shared_key(GROUP)
        group_at = self._owner(group_key)
        assert group_at is not None
        assert group_at.store is not None
        group = read_group(_data(group_at, group_key))
        for consumer in self._consumers:
            found += self._judge_ue(consumer, group)
        for network, keeper in self._keepers.items():
            if keeper.store is None:
                continue
            found += [Violation("store", f"{network}: {sentence}") for sentence in keeper.store.check()]
            if self._all_home() and network != HOME:
                rows = self._ledger.rows[network].items()
                kept = [key_text(key) for key, row in rows if row.state is not Ownership.FOREIGN]
                found += [Violation("I10", f"{network} has {kept} after the way back")] if kept else []
        found += self._judge_networks()
        for violation in found:
            self.trace.violation(*violation)

    def _judge_ue(self, consumer: Consumer, group: dict[str, Heard]) -> list[Violation]:
        home = self._keepers[HOME].store
        assert home is not None
        key = home.key_of(consumer.supi)
        late = (
            [] if self._breaker.disturbed else [Violation("I8", f"no answer in time: {said}") for said in consumer.late]
        )
        if key is None:
            answered = any(o.outcome == "ok" for o in consumer.history)
            return [*late, Violation("I3", f"home does not know {consumer.supi}")] if answered else late
        owner = self._owner(key)
        if owner is None or owner.store is None:
            return [Violation("I1", f"nobody owns {key_text(key)} of {consumer.supi} at the end")]
        if key in self._excused:
            return late
        book = read_book(_data(owner, key))
        return [
            *late,
            *verdict.judge_history(consumer.supi, consumer.history, book),
            *verdict.judge_chain(consumer.supi, consumer.history, book),
            *verdict.judge_timer(consumer.supi, book),
            *verdict.judge_notifications(key, book, self._sink.received),
            *verdict.judge_messages(key, book, group),
        ]


def _data(keeper: Keeper, key: bytes) -> list[tuple[str, str, bytes]]:
    assert keeper.store is not None
    return [(r.nf, r.id, r.body) for r in keeper.store.context(key).data()]
