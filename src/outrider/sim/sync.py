"""The same search for contracts in `sync` mode (PROTOCOL.md §8): home A, one target B, one UE.

What is new here is that a commit at the target counts only once home has it. The target asks for SYNCED with its whole
content, home answers it unless the epoch is fenced or over, and only then a 2xx leaves. Home may fence at any time
(it hears nothing, for whatever reason), and owns the key again once the target's read lease has certainly run out.

Time appears only in the lease, as one bit: home renews it while the epoch is not fenced, it ends at some moment, and
home reclaims after that. The clocks that make this true (length L(1−ρ) at the target, L(1+ρ) at home) are outside.

What must hold:

- S1: a unit that was answered 2xx is in home's copy, whoever owns the key.
- S2: while the target may answer reads, it has every unit that was answered 2xx, and home does not own the key.
- S3: acknowledged histories never fork.
- I1 and I3 as elsewhere; and the two end with one owner and nothing in doubt.

GRANT onward from a target to a third network in sync mode is not in this world: the table has no event yet by which
home makes such a grant durable at its side. Until it has, go home first and then out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from outrider.protocol import ownership as o
from outrider.protocol.ownership import NO_VOL, OWNERSHIP, Ownership, Row, Vol, serves
from outrider.protocol.table import Step, Table
from outrider.sim.space import Edge
from outrider.sim.values import Content, content_text, entry, row_text

A, B = "A", "B"
M = "m"


class Msg(NamedTuple):
    """A message between home and target; kept for ever, as in `sim.model`."""

    kind: str
    to: str
    x: int
    content: Content = ()

    def __str__(self) -> str:
        return f"{self.kind}@{self.x}" + (f" {content_text(self.content)}" if self.content else "")


class State(NamedTuple):
    """Rows and copies are on disks; `vol` is in B's memory; `acked` is what consumers were told."""

    home: Row = Row(Ownership.OWNED, 1)
    target: Row = Row(Ownership.FOREIGN, 0, A)
    vol: Vol = NO_VOL
    home_copy: Content = ()
    target_copy: Content = ()
    acked: Content = ()
    lease: bool = False
    msgs: frozenset[Msg] = frozenset()


@dataclass(frozen=True)
class SyncBounds:
    """How large the world is."""

    epochs: int = 5
    writes: int = 1
    forget: bool = False
    """Drop messages that cannot matter any more (`SyncWorld.alive`)."""


class SyncWorld:
    """All states that home and target can reach. Twins override single methods."""

    table: Table[Row, Vol] = OWNERSHIP
    blind: tuple[str, ...] = ()
    """Beginnings of predicates that a twin is not judged by."""

    def __init__(self, bounds: SyncBounds) -> None:
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
        """Home owns the key."""
        return State()

    # ------------------------------------------------------------- rules of the driver, for twins to break

    def reclaims(self, s: State) -> bool:
        """Home knows that the target's read lease has run out."""
        return not s.lease

    def restart(self, home: Row) -> Row:
        """What is left of home's row after a crash: all of it, the fence too."""
        return home

    def reads(self, s: State) -> bool:
        """The target answers a read: it owns the key, home has its acceptance, and its lease is valid."""
        return serves(s.target, s.vol, permitted=True, sync=True) and s.lease

    def acks_at_commit(self) -> bool:
        """A 2xx leaves the target before home has the unit."""
        return False

    # --------------------------------------------------------------------------------------------- steps

    def next(self, s: State) -> Iterator[Edge[State]]:
        """Every step that the world may take from here."""
        for edge in self._steps(s):
            if edge.fault is not None and edge.fault.startswith(self.blind):
                edge = edge._replace(fault=None)
            if self.bounds.forget:
                after = edge.state
                edge = edge._replace(
                    state=after._replace(msgs=frozenset(m for m in after.msgs if self.alive(after, m)))
                )
            if edge.state != s or edge.fault:
                yield edge

    def alive(self, s: State, m: Msg) -> bool:
        """Whether a message may still matter: a question not decided yet, or what belongs to a grant in doubt."""
        here, there = (s.home, s.target) if m.to == A else (s.target, s.home)
        match m.kind:
            case "GRANT" | "RECALL":
                return m.x > here.epoch or (there.state is Ownership.GRANTED and there.epoch == m.x)
            case "ACCEPTED" | "REFUSED":
                return here.state is Ownership.GRANTED and here.epoch == m.x
            case "SYNC":
                return m.x >= here.epoch or (there.state is Ownership.OWNED and there.epoch == m.x)
            case _:
                owns = here.state is Ownership.OWNED and here.epoch == m.x
                return owns or len(m.content) > len(s.acked)

    def old_news(self, s: State) -> str | None:
        """A message that `alive` gives up and that would still change something; None if there is none."""
        for m in s.msgs:
            if not self.alive(s, m):
                for edge in self._home_hears(s, m) if m.to == A else self._target_hears(s, m):
                    new = {n for n in edge.state.msgs - s.msgs if self.alive(edge.state, n)}
                    if new or edge.state._replace(msgs=s.msgs) != s:
                        return f"{m} still matters: {edge.label}"
        return None

    def _steps(self, s: State) -> Iterator[Edge[State]]:
        yield from self._home_alone(s)
        yield from self._target_alone(s)
        for m in s.msgs:
            if m.to == A:
                yield from self._home_hears(s, m)
            else:
                yield from self._target_hears(s, m)

    def _home_alone(self, s: State) -> Iterator[Edge[State]]:
        home = s.home
        if home.state is Ownership.OWNED:
            if self._may_write(s):
                copy = (*s.home_copy, entry(home.epoch, 0))
                yield self._ack(s._replace(home_copy=copy), copy, "A commits a unit and answers it")
            if home.epoch < self.bounds.epochs:
                held = self.step(home, NO_VOL, o.Want(B, M))
                yield self._home(s, o.Drained(in_time=True), "A gives the key to B", vol=held.vol)
        if home.state is Ownership.GRANTED:
            for recall in (False, True):
                yield self._home(s, o.Resend(aborted=recall), "A")
        if home.state is not Ownership.OWNED:
            if not home.fenced:
                yield self._home(s, o.Fence(), "A hears nothing")
                if home.state is Ownership.FOREIGN and home.peer == B:
                    yield Edge(s._replace(lease=True), "A renews the read lease of B")
            elif self.reclaims(s):
                yield self._home(s, o.LeaseOut(), "A waits the lease out")
        yield Edge(s._replace(home=self.restart(home)), "A crashes and restarts")
        if s.lease:
            yield Edge(s._replace(lease=False), "the read lease of B ends")

    def _target_alone(self, s: State) -> Iterator[Edge[State]]:
        target = s.target
        if target.state is Ownership.OWNED:
            yield self._ask_synced(s, "B asks for SYNCED again")
            if serves(target, s.vol, permitted=True, sync=True) and self._may_write(s):
                copy = (*s.target_copy, entry(target.epoch, 1))
                after = s._replace(target_copy=copy)
                if self.acks_at_commit():
                    yield self._ack(after, copy, "B commits a unit and answers it")
                else:
                    yield self._ask_synced(after, "B commits a unit")
            if target.epoch < self.bounds.epochs:
                held = self.step(target, s.vol, o.Want(A, M))
                yield self._target(s._replace(vol=held.vol), o.Drained(in_time=True), "B gives the key back to A")
        if target.state is Ownership.GRANTED:
            for recall in (False, True):
                yield self._target(s, o.Resend(aborted=recall), "B")
        if s.vol != NO_VOL:
            yield Edge(s._replace(vol=NO_VOL), "B crashes and restarts")

    def _home_hears(self, s: State, m: Msg) -> Iterator[Edge[State]]:
        label = f"A hears {m}"
        match m.kind:
            case "GRANT":
                for admitted in (True, False):
                    yield self._home(s, o.Grant(B, m.x, M, admitted=admitted), label, content=m.content)
            case "RECALL":
                yield self._home(s, o.Recall(B, m.x), label)
            case "ACCEPTED":
                yield self._home(s, o.Accepted(B, m.x), label)
            case "REFUSED":
                yield self._home(s, o.Refused(B, m.x), label)
            case "SYNC":
                yield self._home(s, o.SyncAsked(B, m.x), label, content=m.content)

    def _target_hears(self, s: State, m: Msg) -> Iterator[Edge[State]]:
        label = f"B hears {m}"
        if m.kind in ("GRANT", "RECALL") and s.target.state is Ownership.OWNED and m.x > s.target.epoch:
            # Home has owned the key since, so it has reclaimed what this network still believes to own.
            s = self._target(s, o.Fenced(A, s.target.epoch), label).state
        match m.kind:
            case "GRANT":
                for admitted in (True, False):
                    yield self._target(s, o.Grant(A, m.x, M, admitted=admitted), label, content=m.content)
            case "RECALL":
                yield self._target(s, o.Recall(A, m.x), label)
            case "ACCEPTED":
                yield self._target(s, o.Accepted(A, m.x), label)
            case "REFUSED":
                yield self._target(s, o.Refused(A, m.x), label)
            case "SYNCED":
                edge = self._target(s, o.Synced(m.x), label)
                yield self._ack(edge.state, m.content, edge.label)
            case "FENCED":
                yield self._target(s, o.Fenced(A, m.x), label)

    # -------------------------------------------------------------------------------------------- helpers

    def _home(self, s: State, event: Any, label: str, *, vol: Vol = NO_VOL, content: Content = ()) -> Edge[State]:
        step = self.step(s.home, vol, event)
        after = s._replace(home=step.row)
        return self._commands(after, step.commands, f"{label}: {step.why}", step.row.epoch < s.home.epoch, B, content)

    def _target(self, s: State, event: Any, label: str, *, content: Content = ()) -> Edge[State]:
        step = self.step(s.target, s.vol, event)
        after = s._replace(target=step.row, vol=step.vol)
        return self._commands(after, step.commands, f"{label}: {step.why}", step.row.epoch < s.target.epoch, A, content)

    def _commands(
        self, s: State, commands: tuple[Any, ...], label: str, falls: bool, to: str, content: Content
    ) -> Edge[State]:
        fault = "I3: an epoch falls" if falls else None
        for c in commands:
            match c:
                case o.SendGrant(_, x):
                    s = self._sent(s, Msg("GRANT", to, x, s.home_copy if to == B else s.target_copy))
                case o.SendRecall(_, x):
                    s = self._sent(s, Msg("RECALL", to, x))
                case o.SendAccepted(_, x):
                    s = self._sent(s, Msg("ACCEPTED", to, x))
                case o.SendRefused(_, x):
                    s = self._sent(s, Msg("REFUSED", to, x))
                case o.Install() if to == B:
                    s = s._replace(home_copy=content)
                case o.Install():
                    s = self._sent(s._replace(target_copy=content), Msg("SYNC", A, s.target.epoch, content))
                case o.SendSynced(_, x):
                    # In the same commit as the row: the target's content, unless what is here is newer.
                    if s.home.state is Ownership.FOREIGN and len(content) > len(s.home_copy):
                        s = s._replace(home_copy=content)
                    s = self._sent(s, Msg("SYNCED", B, x, content))
                case o.SendFenced(_, x):
                    s = self._sent(s, Msg("FENCED", B, x))
                case o.DropTail():
                    s = s._replace(target_copy=())
                case o.Alarm(sentence):
                    fault = f"alarm: {sentence}"
        return Edge(s, label, fault)

    def _ask_synced(self, s: State, label: str) -> Edge[State]:
        return Edge(self._sent(s, Msg("SYNC", A, s.target.epoch, s.target_copy)), label)

    def _ack(self, s: State, content: Content, label: str) -> Edge[State]:
        """Consumers are told 2xx for everything up to there."""
        shorter = min(len(content), len(s.acked))
        fault = None if content[:shorter] == s.acked[:shorter] else "S3: acknowledged histories fork"
        return Edge(s._replace(acked=max(content, s.acked, key=len)), label, fault)

    def _sent(self, s: State, m: Msg) -> State:
        return s if m in s.msgs else s._replace(msgs=s.msgs | {m})

    def _may_write(self, s: State) -> bool:
        return max(len(s.home_copy), len(s.target_copy), len(s.acked)) < self.bounds.writes

    # ----------------------------------------------------------------------------------------- predicates

    def check(self, s: State) -> str | None:
        """S1, S2 and the second half of I1 in this state; None if they hold."""
        if s.home_copy[: len(s.acked)] != s.acked:
            return f"S1: {content_text(s.acked)} was answered 2xx, but home has {content_text(s.home_copy)}"
        if self.reads(s) and s.target_copy[: len(s.acked)] != s.acked:
            return "S2: the target may answer a read without a unit that was answered 2xx"
        if self.reads(s) and s.home.state is Ownership.OWNED:
            return "S2: home owns the key while the target may answer reads"
        states = (s.home.state, s.target.state)
        if Ownership.OWNED not in states and Ownership.GRANTED not in states and not s.home.fenced:
            return "I1: the key has no owner, and nobody has granted it"
        return None

    def settles(self, s: State) -> str | None:
        """None if, without any further fault, the key comes to have one owner, and nothing stays in doubt."""
        s = s._replace(msgs=frozenset(), vol=NO_VOL, lease=False)
        for _ in range(6):
            s = self._converse(s, self._home_turn) if s.home.state is not Ownership.OWNED else s
            s = self._converse(s, self._target_turn)
        in_doubt = Ownership.GRANTED in (s.home.state, s.target.state)
        here = s.home.state is Ownership.OWNED
        there = serves(s.target, s.vol, permitted=True, sync=True)
        if in_doubt or here == there:
            return f"I9: it ends with {row_text(s.home)} at home and {row_text(s.target)} at the target"
        return None

    def _home_turn(self, s: State) -> State:
        if s.home.fenced:
            return self._home(s, o.LeaseOut(), "").state
        return self._home(s, o.Resend(), "").state

    def _target_turn(self, s: State) -> State:
        if s.target.state is Ownership.OWNED:
            return self._ask_synced(s, "").state
        return self._target(s, o.Resend(), "").state

    def _converse(self, s: State, begin: Callable[[State], State]) -> State:
        """Let one side speak, deliver everything in flight once, and lose what is left."""
        s = begin(s)
        done: set[Msg] = set()
        while todo := s.msgs - done:
            m = min(todo)
            done.add(m)
            edge = next(self._home_hears(s, m) if m.to == A else self._target_hears(s, m), None)
            s = edge.state if edge is not None else s
        return s._replace(msgs=frozenset())

    def text(self, s: State) -> list[str]:
        """A state for people."""
        synced = ", serving" if serves(s.target, s.vol, permitted=True, sync=True) else ""
        return [
            f"A: {row_text(s.home)} {content_text(s.home_copy)}",
            f"B: {row_text(s.target)} {content_text(s.target_copy)}{synced}{', lease' if s.lease else ''}",
            f"answered 2xx: {content_text(s.acked)}",
        ]
