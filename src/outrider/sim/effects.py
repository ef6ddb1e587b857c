"""The same search for what an owner does of its own accord: outbox and timers (PROTOCOL.md §5, §6).

Two networks run the ownership table for one UE. Its context is a count of units, the outbox and one timer, all of which
move with it; the receiver drops entries whose id is not above the last one that it has seen. What `host.outbox`,
`host.units` and `store.timers` do is written down again here, rule by rule, for it lives in code that does I/O.

Ownership messages stay in a set, as in `sim.model`, until they cannot matter any more; that is searched too. A
delivery travels alone: it arrives or not, its 2xx comes or not, and one that was given up may still arrive later.
The timer re-arms itself each time it fires.

What must hold:

- I1 and the alarms, as elsewhere.
- I6: first occurrences of entries come in order and without a gap, and only of units that were committed; an entry
  leaves the outbox after it has been received; each generation of a timer fires at most once, and not before it is due.
- §5: without a fault nothing is sent twice; an armed timer is never lost, and an overdue one is found by its owner.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from outrider.protocol import ownership as o
from outrider.protocol.ownership import NO_VOL, OWNERSHIP, Ownership, Row, Vol
from outrider.protocol.table import Step, Table
from outrider.sim.space import Edge
from outrider.sim.values import NAMES, put, row_text

M = "m"


@dataclass(frozen=True)
class EffectBounds:
    """How large the world is and which faults it has."""

    epochs: int = 3
    entries: str = ""
    """Number of outbox entries of each unit; empty: no outbox."""
    firings: int = 0
    """How often the timer becomes due; 0: no timer."""
    timeouts: int = 0
    """So many deliveries have no answer in time."""
    crashes: int = 0
    forget: bool = True
    """Drop messages that cannot matter any more (`EffectWorld.alive`)."""


class Entry(NamedTuple):
    """An outbox entry: its id as the receiver sees it, and what it says: which entry of all it is."""

    id: tuple[int, int]
    what: int


class Content(NamedTuple):
    """What moves with the UE."""

    n: int = 0
    outbox: tuple[Entry, ...] = ()
    timer: int = 0
    """Generation of the armed timer."""


NOTHING = Content()


class Delivery(NamedTuple):
    """A delivery under way, and whether the receiver has it."""

    entry: Entry
    arrived: bool = False


class Net(NamedTuple):
    """One network: `row` and `content` are on the disk."""

    row: Row
    content: Content = NOTHING
    vol: Vol = NO_VOL
    delivery: Delivery | None = None
    firing: int = 0
    """Generation of a timer that is about to fire."""
    passed: bool = False
    """The look for due timers has passed this one over, for the key was not owned here."""


class Msg(NamedTuple):
    """A message of the ownership protocol."""

    kind: str
    to: int
    x: int
    content: Content = NOTHING

    def __str__(self) -> str:
        return f"{self.kind}@{self.x}"


class State(NamedTuple):
    """Both networks, the receiver, and what has happened so far."""

    nets: tuple[Net, ...]
    last: tuple[int, int] = (0, 0)
    """Id of the last entry that the receiver has taken."""
    taken: int = 0
    made: int = 0
    """How many entries were committed, and how many of them the receiver has."""
    late: frozenset[Entry] = frozenset()
    due: int = 0
    """The highest generation that is due, and those that have fired."""
    fired: int = 0
    msgs: frozenset[Msg] = frozenset()
    timeouts: int = 0
    crashes: int = 0
    fault: str | None = None


class EffectWorld:
    """All states that outbox and timer can reach. Twins override single methods."""

    table: Table[Row, Vol] = OWNERSHIP
    blind: tuple[str, ...] = ()
    """Beginnings of predicates that a twin is not judged by."""

    def __init__(self, bounds: EffectBounds) -> None:
        self.bounds = bounds
        self.fired: set[str] = set()
        """Ids of the rules that were used so far."""
        self.step = cache(self._step)

    def _step(self, row: Row, vol: Vol, event: object) -> Step[Row, Vol]:
        rule = self.table.rule(row, vol, event)
        if rule is not None:
            self.fired.add(rule.id)
        return self.table.step(row, vol, event)

    def initial(self) -> State:
        """Home owns the UE; its timer, if there is one, is armed."""
        content = Content(timer=1 if self.bounds.firings else 0)
        return State((Net(Row(Ownership.OWNED, 1), content), Net(Row(Ownership.FOREIGN, 0, NAMES[0]))))

    # ------------------------------------------------------------- rules around the table, for twins to break

    def may_drain(self, net: Net) -> bool:
        """A delivery under way is open work."""
        return net.delivery is None

    def one_under_way(self) -> bool:
        """The next entry leaves when the one before it has been answered."""
        return True

    def received(self, content: Content) -> Content:
        """What comes with the UE: everything, as it was."""
        return content

    def leaves_after_commit(self) -> bool:
        """An entry leaves after its unit is durable."""
        return True

    def deleted_after_answer(self) -> bool:
        """An entry is deleted when it was answered."""
        return True

    def drops(self, s: State, entry: Entry) -> bool:
        """The receiver drops what is not above the last id that it has seen."""
        return entry.id <= s.last

    def remembers(self) -> bool:
        """The receiver's last id is durable with what the entry has done there."""
        return True

    def may_fire(self, row: Row) -> bool:
        """Timers are live at the owner only."""
        return row.state is Ownership.OWNED

    def is_current(self, net: Net) -> bool:
        """The generation about to fire is the one that is armed."""
        return net.content.timer == net.firing

    def rearms_in_commit(self) -> bool:
        """The commit of a firing deletes its timer or arms it anew."""
        return True

    def notes_arrival(self) -> bool:
        """When a key becomes owned, its timers are looked at again."""
        return True

    # --------------------------------------------------------------------------------------------- steps

    def next(self, state: State) -> Iterator[Edge[State]]:
        """Every step that the world may take from here."""
        for label, after in self._steps(state):
            fault, after = after.fault, after._replace(fault=None)
            if fault is not None and fault.startswith(self.blind):
                fault = None
            if after != state or fault:
                yield Edge(after, label, fault)

    def _steps(self, s: State) -> Iterator[tuple[str, State]]:
        for i, net in enumerate(s.nets):
            yield from self._own(s, i, net)
            if self.bounds.entries:
                yield from self._delivers(s, i, net)
            if self.bounds.firings:
                yield from self._fires(s, i, net)
            if s.crashes < self.bounds.crashes:
                again = self._with(s._replace(crashes=s.crashes + 1), i, *_restarted(net))
                if net.delivery is not None and not net.delivery.arrived:
                    again = again._replace(late=again.late | {net.delivery.entry})
                yield f"{NAMES[i]} crashes and restarts", again
        if not self.remembers() and s.crashes < self.bounds.crashes:
            yield "the receiver restarts", s._replace(last=(0, 0), crashes=s.crashes + 1)
        for entry in s.late:
            yield f"entry {entry.what} arrives late", self._arrives(s._replace(late=s.late - {entry}), entry)
        for m in s.msgs:
            yield from self._hear(s, m)
        armed = max(net.content.timer for net in s.nets)
        if self.bounds.firings and s.due < min(armed, self.bounds.firings):
            a, b = (n._replace(passed=n.passed or n.row.state is not Ownership.OWNED) for n in s.nets)
            yield f"generation {s.due + 1} of the timer is due", s._replace(due=s.due + 1, nets=(a, b))

    def _own(self, s: State, i: int, net: Net) -> Iterator[tuple[str, State]]:
        me, peer = NAMES[i], NAMES[1 - i]
        row = net.row
        if row.state is Ownership.OWNED:
            if net.vol.held is None and row.epoch < self.bounds.epochs:
                yield self._event(s, i, o.Want(peer, M), f"{peer} wants the key of {me}")
            elif net.vol.held is not None:
                if self.may_drain(net):
                    yield self._event(s, i, o.Drained(in_time=True), f"{me} gives the key to {peer}")
                yield self._event(s, i, o.HoldEnded(), f"{me} ends its hold")
        elif row.state is Ownership.GRANTED:
            yield self._event(s, i, o.Resend(), f"{me} repeats its grant")
        if self._free(net) and net.content.n < 9 and self._units_left(s):
            yield from self._commits(s, i, net)

    def _units_left(self, s: State) -> str:
        """Entries of the units that are still to be committed."""
        done, left = 0, self.bounds.entries
        while left and done < s.made:
            done, left = done + int(left[0]), left[1:]
        return left

    def _commits(self, s: State, i: int, net: Net) -> Iterator[tuple[str, State]]:
        n = net.content.n + 1
        entries = tuple(Entry((n, k), s.made + k) for k in range(1, int(self._units_left(s)[0]) + 1))
        if not self.leaves_after_commit() and s.crashes < self.bounds.crashes:
            unmade = {e._replace(what=-e.what) for e in entries}
            lost = s._replace(late=s.late | unmade, crashes=s.crashes + 1)
            yield f"{NAMES[i]} sends entries of a unit, and crashes before its commit", lost
        content = net.content._replace(n=n, outbox=(*net.content.outbox, *entries))
        after = self._with(s, i, net._replace(content=content))
        yield f"{NAMES[i]} commits a unit with {len(entries)} entries", after._replace(made=s.made + len(entries))

    @staticmethod
    def _free(net: Net) -> bool:
        return net.row.state is Ownership.OWNED and net.vol.held is None

    # -------------------------------------------------------------------------------------------- outbox

    def _delivers(self, s: State, i: int, net: Net) -> Iterator[tuple[str, State]]:
        me, d, content = NAMES[i], net.delivery, net.content
        if d is None:
            if self._free(net) and content.outbox:
                yield self._begins(s, i, net, content.outbox[0])
            return
        if not d.arrived:
            arrived = self._with(s, i, net._replace(delivery=d._replace(arrived=True)))
            yield f"entry {d.entry.what} of {me} arrives", self._arrives(arrived, d.entry)
        else:
            rest = tuple(e for e in content.outbox if e != d.entry)
            if net.row.state is Ownership.OWNED:
                content = content._replace(n=content.n + 1, outbox=rest)
            yield (
                f"{me} hears 2xx for entry {d.entry.what}",
                self._with(s, i, net._replace(content=content, delivery=None)),
            )
        if s.timeouts < self.bounds.timeouts:
            given_up = self._with(s, i, net._replace(delivery=None))._replace(timeouts=s.timeouts + 1)
            if not d.arrived:
                given_up = given_up._replace(late=given_up.late | {d.entry})
            yield f"{me} has no answer for entry {d.entry.what} in time", given_up
        after = [e for e in content.outbox if e > d.entry]
        if not self.one_under_way() and self._free(net) and after and not d.arrived:
            yield self._begins(s._replace(late=s.late | {d.entry}), i, net, after[0])

    def _begins(self, s: State, i: int, net: Net, entry: Entry) -> tuple[str, State]:
        net = net._replace(delivery=Delivery(entry))
        if not self.deleted_after_answer():
            rest = tuple(e for e in net.content.outbox if e != entry)
            net = net._replace(content=net.content._replace(n=net.content.n + 1, outbox=rest))
        return f"{NAMES[i]} sends entry {entry.what}", self._with(s, i, net)

    def _arrives(self, s: State, entry: Entry) -> State:
        """The receiver takes an entry, or drops it as one that it has had."""
        fault = None
        if self.drops(s, entry):
            if not s.timeouts and not s.crashes:
                fault = f"§5: entry {entry.what} is sent twice, though nothing has failed"
            return s._replace(fault=s.fault or fault)
        if entry.what != s.taken + 1:
            fault = f"I6: entry {entry.what} is taken after entry {s.taken}"
        return s._replace(last=entry.id, taken=max(s.taken, entry.what), fault=s.fault or fault)

    # -------------------------------------------------------------------------------------------- timer

    def _fires(self, s: State, i: int, net: Net) -> Iterator[tuple[str, State]]:
        me, timer = NAMES[i], net.content.timer
        if not net.firing:
            if timer and timer <= s.due and not net.passed and self.may_fire(net.row):
                yield f"{me} is about to fire generation {timer}", self._with(s, i, net._replace(firing=timer))
            return
        if net.vol.held is not None:
            return
        ended = net._replace(firing=0)
        if not self.may_fire(net.row) or not self.is_current(net):
            yield f"{me} drops the firing of generation {net.firing}", self._with(s, i, ended)
            return
        fault = None
        if s.fired >> timer & 1:
            fault = f"I6: generation {timer} fires twice"
        elif timer > s.due:
            fault = f"I6: generation {timer} fires before it is due"
        content = net.content._replace(n=net.content.n + 1, timer=timer + 1)
        after = self._with(s, i, ended._replace(content=content))
        after = after._replace(fired=s.fired | 1 << timer, fault=s.fault or fault)
        yield f"{me} fires generation {timer} and arms the next", after
        if not self.rearms_in_commit() and s.crashes < self.bounds.crashes:
            lost = self._with(after, i, *_restarted(ended._replace(content=content._replace(timer=0))))
            yield f"{me} fires generation {timer}, and crashes before it arms the next", lost

    # ----------------------------------------------------------------------------------------- messages

    def _hear(self, s: State, m: Msg) -> Iterator[tuple[str, State]]:
        i, peer, label = m.to, NAMES[1 - m.to], f"{NAMES[m.to]} hears {m}"
        match m.kind:
            case "GRANT":
                for admitted in (True, False):
                    yield self._event(s, i, o.Grant(peer, m.x, M, admitted=admitted), label, m.content)
            case "ACCEPTED":
                yield self._event(s, i, o.Accepted(peer, m.x), label)
            case "REFUSED":
                yield self._event(s, i, o.Refused(peer, m.x), label)

    def _event(self, s: State, i: int, event: Any, label: str, content: Content = NOTHING) -> tuple[str, State]:
        net = s.nets[i]
        step = self.step(net.row, net.vol, event)
        net = net._replace(row=step.row, vol=step.vol)
        sent, fault = set[Msg](), s.fault
        for c in step.commands:
            match c:
                case o.SendGrant(_, x):
                    sent.add(Msg("GRANT", 1 - i, x, net.content))
                case o.SendAccepted(_, x):
                    sent.add(Msg("ACCEPTED", 1 - i, x))
                case o.SendRefused(_, x):
                    sent.add(Msg("REFUSED", 1 - i, x))
                case o.Install():
                    net = net._replace(content=self.received(content))
                case o.Release() if self.notes_arrival():
                    net = net._replace(passed=False)
                case o.Alarm(sentence):
                    fault = fault or f"alarm: {sentence}"
        s = self._with(s, i, net)
        s = s._replace(msgs=s.msgs | sent, fault=fault)
        return f"{label}: {step.why}", s._replace(msgs=self.alive(s)) if self.bounds.forget else s

    @staticmethod
    def alive(s: State) -> frozenset[Msg]:
        """The messages that may still change something: questions not decided yet, and what a grant in doubt needs."""
        alive = set()
        for m in s.msgs:
            here, there = s.nets[m.to].row, s.nets[1 - m.to].row
            in_doubt = here if m.kind in ("ACCEPTED", "REFUSED") else there
            open_ = in_doubt.state is Ownership.GRANTED and in_doubt.epoch == m.x
            if open_ or (m.kind == "GRANT" and m.x > here.epoch):
                alive.add(m)
        return frozenset(alive)

    def old_news(self, s: State) -> str | None:
        """A message that `alive` gives up and that would still change something; None if there is none."""
        for m in s.msgs - self.alive(s):
            for label, after in self._hear(s, m):
                if after.nets != s.nets or self.alive(after) != self.alive(s):
                    return f"{m} still matters: {label}"
        return None

    @staticmethod
    def _with(s: State, i: int, net: Net) -> State:
        return s._replace(nets=put(s.nets, i, net))

    # ----------------------------------------------------------------------------------------- predicates

    def check(self, s: State) -> str | None:
        """What must hold in this state; None if it does."""
        owners = [net for net in s.nets if net.row.state is Ownership.OWNED]
        if len(owners) > 1:
            return "I1: the key has two owners"
        for net in owners:
            left = {e.what for e in net.content.outbox}
            gone = [what for what in range(s.taken + 1, s.made + 1) if what not in left]
            if gone:
                return f"I6: entry {gone[0]} is in no outbox and was never received"
            if self.bounds.firings and not net.content.timer:
                return "§5: the timer is lost"
            if net.content.timer and net.content.timer <= s.due and net.passed:
                return "§5: the timer is overdue, and its owner does not look for it"
        return None

    def settles(self, s: State) -> str | None:
        """Nothing here waits for ever that does not in `sim.model`."""
        return None

    def text(self, s: State) -> list[str]:
        """A state for people."""
        lines = []
        for i, net in enumerate(s.nets):
            c = net.content
            parts = [row_text(net.row), f"{c.n} commits"]
            parts += [f"outbox {' '.join(str(e.what) for e in c.outbox)}"] if c.outbox else []
            parts += [f"timer {c.timer}"] if c.timer else []
            parts += [f"held for {net.vol.held.peer}"] if net.vol.held else []
            parts += [f"entry {net.delivery.entry.what} under way"] if net.delivery else []
            lines.append(f"{NAMES[i]}: " + " · ".join(parts))
        return [*lines, f"receiver: {s.taken} of {s.made} entries, last id {s.last}"]


def _restarted(net: Net) -> tuple[Net]:
    return (Net(net.row, net.content),)
