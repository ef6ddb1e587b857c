"""The same search for requests (PROTOCOL.md §4): who runs them, how often, in which order, and what they answer.

Networks run the ownership table for one UE, and around it what `host.actor`, `host.forwards` and `host.reception` do
with requests: queue, hold, hand over in the grant, forward, take back, re-aim, answer. These live in event-loop code,
so they are written down here again, method by method, next to the table that is the production one; the rules that are
pure (`protocol.requests`) are called.

Unlike in `sim.model`, messages travel in lanes: in order, once, until somebody crashes (`host.lanes`). A crash empties
the lanes that a network sends on, and the receiver of a new incarnation is sent again what it has not acknowledged, so
a message may come twice. Time does not exist: a hold, a wait for a grant, a deadline and the patience of a receiver
each end at any moment, or never.

A request appends itself to the context; its answer is the place where it stands, which is also its idempotency row. A
request with the idempotency key of an earlier one is its retry. What must hold:

- I1 and I3: one owner, who has everything that was answered 2xx, at the place that was told.
- I6: an idempotency key is in the context once.
- I7: a read knows every write that was answered before it was asked.
- I8: an attempt that was answered 503 is not in the context, ever.
- order: of two requests that came to one network, the later one does not overtake the earlier one while that is open,
  unless that was sent to a wrong network first.
- loop: no request is aimed anew, or sent on by others, more than three times.
- refused: where nothing fails and nobody is impatient, no request ends in 503.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from outrider.protocol import ownership as o
from outrider.protocol import requests as rules
from outrider.protocol.ownership import NO_VOL, OWNERSHIP, Ownership, Row, Vol
from outrider.protocol.table import Step, Table
from outrider.sim.space import Edge
from outrider.sim.values import NAMES, put, row_text

M = "m"
SETTLE_STEPS = 300
OWN = -1
"""Origin of a network's own request."""
NOT_ASKED, OPEN, OK = -1, 0, 200
"""What a consumer knows of its request: nothing yet, or 503, 504, or `OK` and the place at which it stands."""


@dataclass(frozen=True)
class RequestBounds:
    """How large the world is and which faults it has."""

    asked_at: str = "AB"
    """The network that each request comes to. Those of one network come in this order."""
    keys: str = ""
    """Idempotency key of each request; empty: all differ. Of two that are alike the later one is a retry."""
    reads: str = ""
    """`r` for each request that reads."""
    networks: int = 2
    epochs: int = 2
    units: bool = False
    """Beginning a unit and its commit are steps of their own."""
    needs: bool = True
    """A grant that is not whole may not fit."""
    refusals: bool = False
    impatience: int = 0
    """So often a hold ends without a grant, or the wait for one at the network that wants the key."""
    gives_up: bool = False
    """A forward waits no longer for the grant that its sender knows of."""
    expiries: int = 0
    """So many requests run out of time."""
    crashes: int = 0


class Job(NamedTuple):
    """A request at a network."""

    r: int
    origin: int = OWN
    fwd: int = 0
    """The id that its origin knows it by."""
    seen: int = 0
    hops: int = 0
    sent: bool = False
    """It may have run elsewhere."""
    tries: int = 0
    """How often this network has sent it: makes the next id."""
    trips: int = 0
    """How often others have sent it on."""


class Pending(NamedTuple):
    """A request that this network has sent and not heard of again; `by_lane`: as a FORWARD, else within a grant."""

    fwd: int
    job: Job
    peer: int
    sent_before: bool
    by_lane: bool = True


class Unit(NamedTuple):
    """A unit under way: what it has read, and the epoch of the row that it began under."""

    job: Job
    base: tuple[int, ...]
    epoch: int


class Msg(NamedTuple):
    """A message in a lane."""

    kind: str
    x: int = 0
    fwd: int = 0
    r: int = 0
    trips: int = 0
    status: int = 0
    owner: int = 0
    copy: tuple[int, ...] = ()
    full: bool = False
    held: tuple[tuple[int, int], ...] = ()
    """(id, request)"""
    left: bool = False
    """It was sent to an earlier incarnation of the receiver."""

    def __str__(self) -> str:
        about = f" of r{self.r}" if self.kind in ("FORWARD", "ANSWER") or self.fwd else f"@{self.x}"
        return f"{self.kind}{about}" + (f" {self.status}" if self.kind == "ANSWER" else "")


class Host(NamedTuple):
    """One network: `row` and `copy` are on the disk."""

    row: Row
    copy: tuple[int, ...] = ()
    """The requests that have run, in order."""
    vol: Vol = NO_VOL
    queue: tuple[Job, ...] = ()
    pending: tuple[Pending, ...] = ()
    given: tuple[int, ...] = ()
    """Ids of the requests that ride in the grant that is not answered yet."""
    inbox: tuple[tuple[int, Msg], ...] = ()
    """Grants that are being decided: what follows in the lane does not wait for the disk."""
    route: tuple[int, int] = (0, 0)
    units: tuple[Unit, ...] = ()
    reading: tuple[Unit, ...] = ()
    ghosts: tuple[Unit, ...] = ()
    """Units of a process that is gone."""


Lanes = tuple[tuple[Msg, ...], ...]


class State(NamedTuple):
    """All networks, the lanes between them, and what consumers know."""

    hosts: tuple[Host, ...]
    lanes: Lanes
    told: tuple[int, ...]
    """For each lane, what has been taken and perhaps not acknowledged: taken again by a new incarnation."""
    heard: Lanes = ()
    floors: tuple[int, ...] = ()
    """For each read, how many writes were answered before it was asked."""
    impatience: int = 0
    expiries: int = 0
    crashes: int = 0
    fault: str | None = None


class RequestWorld:
    """All states that requests can reach. Twins override single methods."""

    table: Table[Row, Vol] = OWNERSHIP
    blind: tuple[str, ...] = ()
    """Beginnings of predicates that a twin is not judged by."""

    def __init__(self, bounds: RequestBounds) -> None:
        self.bounds = bounds
        self.fired: set[str] = set()
        """Ids of the rules that were used so far."""
        self.networks = range(bounds.networks)
        self.requests = range(len(bounds.asked_at))
        self.keys = bounds.keys or "".join(chr(ord("a") + r) for r in self.requests)
        self.reads = {r for r, mark in enumerate(bounds.reads) if mark == "r"}
        self.step = cache(self._step)
        self._settled: dict[State, str | None] = {}

    def _step(self, row: Row, vol: Vol, event: object) -> Step[Row, Vol]:
        rule = self.table.rule(row, vol, event)
        if rule is not None:
            self.fired.add(rule.id)
        return self.table.step(row, vol, event)

    def initial(self) -> State:
        """Home owns the UE, nothing was asked."""
        rows = [Row(Ownership.OWNED, 1), *(Row(Ownership.FOREIGN, 0, NAMES[0]) for _ in self.networks[1:])]
        empty: Lanes = ((),) * len(rows) ** 2
        asked = (NOT_ASKED,) * len(self.requests)
        return State(tuple(map(Host, rows)), empty, asked, empty, (0,) * len(self.requests))

    # ------------------------------------------------------------- rules around the table, for twins to break

    def at_acceptance(self, held: list[Job], own: list[Job], queue: tuple[Job, ...]) -> list[Job]:
        """The order in which what waits for a key runs, when that comes."""
        return rules.at_acceptance(held, own, queue, self.came_later)

    def takes_back(self) -> bool:
        """Own forwards without an answer are taken back when the key comes."""
        return True

    def returned(self, back: list[Job], queue: tuple[Job, ...]) -> tuple[Job, ...]:
        """The queue with requests that come back from networks that did not run them."""
        return tuple(rules.in_place(back, queue, self.came_later))

    @staticmethod
    def came_later(a: Job, b: Job) -> bool:
        """Whether a request came to this network after an own one; those of other networks have no order with those."""
        return a.origin != OWN or a.r > b.r

    def takes_back_refused(self) -> bool:
        """Own forwards are taken back too when a grant is refused."""
        return True

    def marks_restart(self) -> bool:
        """What was sent to a peer that has restarted may have run before."""
        return True

    def ran_before(self, copy: tuple[int, ...], r: int) -> int | None:
        """Where a request stands that has run already: its idempotency row."""
        return next((n for n, done in enumerate(copy) if self.keys[done] == self.keys[r]), None)

    def passes_on(self) -> bool:
        """A forward that has come to the wrong network is sent on by it."""
        return False

    def aims_again(self, job: Job, me: int, epoch: int, owner: int) -> bool:
        """A request is tried elsewhere."""
        return rules.aims_again(job.seen, job.hops, epoch, to_me=owner == me)

    def waits(self, job: Job, row: Row) -> bool:
        """A forward waits for a grant that its sender knows of."""
        return rules.waits_for_grant(job.seen, row.epoch)

    def late(self, pending: Pending, *, left: bool) -> int:
        """What a consumer hears whose forward has had no answer in time."""
        return 504 if left or pending.sent_before else 503

    def believed(self, pending: Pending, status: int) -> int:
        """What a consumer hears when the owner says that it did nothing."""
        return 504 if status == 503 and pending.sent_before else status

    def keeps_given(self) -> bool:
        """Copies of what rides in a grant are kept until that is answered."""
        return True

    def settled(self, lane: tuple[Msg, ...], fwd: int) -> tuple[Msg, ...]:
        """A lane that a new incarnation takes again, after a forward in it has been answered: it says nothing now."""
        return tuple(m for m in lane if m.kind != "FORWARD" or m.fwd != fwd)

    def may_begin(self, host: Host) -> bool:
        """Units of one key run one at a time."""
        return not host.units

    def ghosts_commit(self) -> bool:
        """A process that is gone can still commit."""
        return False

    def still_owned(self, host: Host, read: Unit) -> bool:
        """A read of a held key is answered only if the key is still owned then."""
        return host.row.state is Ownership.OWNED and host.row.epoch == read.epoch

    def reads_at(self, row: Row) -> bool:
        """Only the owner answers reads."""
        return row.state is Ownership.OWNED

    def may_run(self, host: Host, unit: Unit) -> bool:
        """The commit of a unit finds the owner that it began under."""
        return host.row.state is Ownership.OWNED and host.row.epoch == unit.epoch

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
        for r in self.requests:
            if s.told[r] == NOT_ASKED and self._may_ask(s, r):
                i = NAMES.index(self.bounds.asked_at[r])
                asked = s._replace(told=put(s.told, r, OPEN), floors=put(s.floors, r, self._answered(s)))
                for after in self._submit(asked, i, Job(r)):
                    yield f"r{r} is asked at {NAMES[i]}", after
        for i in self.networks:
            yield from self._alone(s, i)
            for j in self.networks:
                if i != j and s.lanes[self._lane(j, i)]:
                    yield from self._arrives(s, j, i)

    def _may_ask(self, s: State, r: int) -> bool:
        """Those before it at its network are asked, and one with its key, if there is one, has failed."""
        at, key = self.bounds.asked_at, self.keys
        before = all(s.told[q] != NOT_ASKED for q in range(r) if at[q] == at[r])
        return before and all(s.told[q] in (503, 504) for q in range(r) if key[q] == key[r])

    def _answered(self, s: State) -> int:
        return max((v - OK + 1 for r, v in enumerate(s.told) if v >= OK and v < 503 and r not in self.reads), default=0)

    def _alone(self, s: State, i: int) -> Iterator[tuple[str, State]]:
        me, host = NAMES[i], s.hosts[i]
        row, vol = host.row, host.vol
        for n, unit in enumerate(host.units):
            rest = self._with(s, i, units=host.units[:n] + host.units[n + 1 :])
            for after in self._commit(rest, i, unit):
                yield f"{me} ends a unit of r{unit.job.r}", after
        for n, unit in enumerate(host.ghosts):
            if self.ghosts_commit():
                rest = self._with(s, i, ghosts=host.ghosts[:n] + host.ghosts[n + 1 :])
                yield f"{me}'s old process commits r{unit.job.r}", self._write(rest, i, unit)
        for n, unit in enumerate(host.reading):
            rest = self._with(s, i, reading=host.reading[:n] + host.reading[n + 1 :])
            if self.still_owned(host, unit):
                yield f"{me} answers the read r{unit.job.r}", self._give(rest, i, unit.job, OK + len(unit.base))
            else:
                for after in self._submit(rest, i, unit.job):
                    yield f"{me} drops the read r{unit.job.r}: the owner has changed under it", after
        if host.inbox:
            yield from self._decide(s, i)
        if vol.held is not None:
            if not host.units:
                yield from self._event(s, i, o.Drained(in_time=True), f"{me} gives the key to {vol.held.peer}")
            if s.impatience < self.bounds.impatience:
                later = s._replace(impatience=s.impatience + 1)
                yield from self._event(later, i, o.HoldEnded(), f"{me} ends its hold")
        if self._may_want(row) and not vol.wanted:
            yield from self._event(s, i, o.Demand(M), f"the UE registers with {me}")
        if s.impatience < self.bounds.impatience and vol.wanted and row.state is Ownership.FOREIGN:
            later, event = s._replace(impatience=s.impatience + 1), o.NotOwner(row.peer or NAMES[0], 0)
            yield from self._event(later, i, event, f"no grant has come to {me} in time")
        if self.bounds.gives_up and host.queue and host.queue[0].origin != OWN and row.state is not Ownership.OWNED:
            job = host.queue[0]
            told = self._not_owner(self._with(s, i, queue=host.queue[1:]), i, job)
            for after in self._pump(told, i):
                yield f"{me} does not wait any longer with r{job.r}", after
        if s.expiries < self.bounds.expiries:
            yield from self._expiries(s._replace(expiries=s.expiries + 1), i)
        if s.crashes < self.bounds.crashes:
            yield from self._crash(s._replace(crashes=s.crashes + 1), i)

    def _decide(self, s: State, i: int) -> Iterator[tuple[str, State]]:
        host = s.hosts[i]
        j, m = host.inbox[0]
        s = self._with(s, i, inbox=host.inbox[1:])
        label = f"{NAMES[i]} decides {m} of {NAMES[j]}"
        for fit in ("fits", "need") if self.bounds.needs and not m.full else ("fits",):
            for admitted in (True, False) if self.bounds.refusals else (True,):
                event = o.Grant(NAMES[j], m.x, M, fit, admitted=admitted)
                yield from self._event(s, i, event, label, (j, m))

    def _expiries(self, s: State, i: int) -> Iterator[tuple[str, State]]:
        me, host = NAMES[i], s.hosts[i]
        for job in host.queue:
            rest = self._with(s, i, queue=tuple(j for j in host.queue if j != job))
            for after in self._pump(self._turn_away(rest, i, job), i):
                yield f"the time of r{job.r} is up in {me}'s queue", after
        for p in host.pending:
            rest = self._with(s, i, pending=tuple(q for q in host.pending if q != p))
            label = f"the time of r{p.job.r} is up at {me}"
            if (taken := self._withdrawn(rest, p, i)) is not None:
                yield f"{label}; it had not left", self._give(taken, i, p.job, self.late(p, left=False))
            yield label, self._give(rest, i, p.job, self.late(p, left=True))

    def _withdrawn(self, s: State, p: Pending, i: int) -> State | None:
        """The forward taken out of its lane, if it may not have left yet."""
        n = self._lane(i, p.peer)
        left = tuple(m for m in s.lanes[n] if m.kind != "FORWARD" or m.fwd != p.fwd or m.left)
        return s._replace(lanes=put(s.lanes, n, left)) if p.by_lane and len(left) < len(s.lanes[n]) else None

    def _crash(self, s: State, i: int) -> Iterator[tuple[str, State]]:
        """A network restarts: from its disk, with empty lanes; its peers repeat what it may have lost."""
        me, host = NAMES[i], s.hosts[i]
        mine = {j.r for j in host.queue if j.origin == OWN} | {p.job.r for p in host.pending}
        mine |= {u.job.r for u in (*host.units, *host.reading) if u.job.origin == OWN}
        told = tuple(504 if r in mine and v == OPEN else v for r, v in enumerate(s.told))
        lanes, heard = list(s.lanes), list(s.heard)
        for j in self.networks:
            out, inward = self._lane(i, j), self._lane(j, i)
            lanes[out] = heard[out] = ()
            lanes[inward] = (*(m._replace(left=True) for m in heard[inward]), *lanes[inward])
            heard[inward] = ()
        left = Host(host.row, host.copy, ghosts=host.units if self.ghosts_commit() else ())
        s = s._replace(hosts=put(s.hosts, i, left), lanes=tuple(lanes), heard=tuple(heard), told=told)
        for j in self.networks:
            if j != i:
                s = self._repeat(s, j, i)
                row = s.hosts[j].row
                if row.state is Ownership.GRANTED and row.peer == me:
                    s = next(a for _, a in self._event(s, j, o.Resend(), ""))
        if host.row.state is Ownership.GRANTED:
            s = next(a for _, a in self._event(s, i, o.Resend(), ""))
        yield f"{me} crashes and restarts", s

    def _repeat(self, s: State, j: int, i: int) -> State:
        """What a restarted peer has acknowledged and not answered is sent to it again."""
        host, waiting = s.hosts[j], {m.fwd for m in s.lanes[self._lane(j, i)] if m.kind == "FORWARD"}
        for n, p in enumerate(host.pending):
            if p.peer == i and p.by_lane:
                if p.fwd not in waiting:
                    s = self._send(s, j, i, Msg("FORWARD", p.job.seen, p.fwd, p.job.r, p.job.trips))
                if p.fwd not in waiting or self.marks_restart():
                    host = host._replace(pending=put(host.pending, n, p._replace(sent_before=True)))
        return s._replace(hosts=put(s.hosts, j, host))

    def _arrives(self, s: State, j: int, i: int) -> Iterator[tuple[str, State]]:
        """The next message of a lane is taken; while a crash may come, it may or may not be acknowledged."""
        n = self._lane(j, i)
        m, *rest = s.lanes[n]
        s = s._replace(lanes=put(s.lanes, n, tuple(rest)))
        acked = s._replace(heard=put(s.heard, n, ()))
        kept = s._replace(heard=put(s.heard, n, (*s.heard[n], m)))
        for before in (acked, kept) if s.crashes < self.bounds.crashes else (acked,):
            yield from self._hear(before, i, j, m)

    # ------------------------------------------------------------------------------------------ messages

    def _hear(self, s: State, i: int, j: int, m: Msg) -> Iterator[tuple[str, State]]:
        peer, label = NAMES[j], f"{NAMES[i]} hears {m} of {NAMES[j]}"
        host = s.hosts[i]
        match m.kind:
            case "WANT":
                allowed = host.row.epoch < self.bounds.epochs
                yield from self._event(s, i, o.Want(peer, M, allowed=allowed), label)
            case "GRANT":
                yield label, self._with(s, i, inbox=(*host.inbox, (j, m)))
            case "NEED":
                yield from self._event(s, i, o.Need(peer, m.x), label)
            case "ACCEPTED":
                s = self._note_route(s, i, m.x, m.owner)
                yield from self._event(s, i, o.Accepted(peer, m.x), label)
            case "REFUSED":
                yield from self._event(s, i, o.Refused(peer, m.x), label)
            case "NOT_OWNER":
                s = self._note_route(s, i, m.x, m.owner)
                if m.fwd:
                    for after in self._told_not_owner(s, i, j, m):
                        yield label, after
                elif host.vol.wanted:
                    event = o.NotOwner(peer if m.owner == i else NAMES[m.owner], m.x)
                    yield from self._event(s, i, event, label)
                else:
                    yield label, s
            case "FORWARD":
                for after in self._submit(s, i, Job(m.r, j, m.fwd, m.x, trips=m.trips)):
                    yield label, after
            case "ANSWER":
                if m.x and host.row.state is Ownership.GRANTED:
                    s = next(a for _, a in self._event(s, i, o.Accepted(peer, m.x), ""))
                yield label, self._told(s, i, j, m)

    def _told(self, s: State, i: int, j: int, m: Msg) -> State:
        p = next((p for p in s.hosts[i].pending if p.fwd == m.fwd and p.peer == j), None)
        if p is None:
            return s
        return self._give(self._ended(s, i, p), i, p.job, self.believed(p, m.status))

    def _ended(self, s: State, i: int, p: Pending) -> State:
        """A forward is answered: it is not pending any more, and its lane does not carry it again."""
        host, n = s.hosts[i], self._lane(i, p.peer)
        s = self._with(s, i, pending=tuple(q for q in host.pending if q != p))
        return s._replace(
            lanes=put(s.lanes, n, self.settled(s.lanes[n], p.fwd)),
            heard=put(s.heard, n, self.settled(s.heard[n], p.fwd)),
        )

    def _told_not_owner(self, s: State, i: int, j: int, m: Msg) -> Iterator[State]:
        p = next((p for p in s.hosts[i].pending if p.fwd == m.fwd and p.peer == j), None)
        if p is None:
            yield s
            return
        s = self._ended(s, i, p)
        job = p.job._replace(sent=p.sent_before)
        if not self.aims_again(job, i, m.x, m.owner):
            yield self._turn_away(s, i, job)
            return
        job = job._replace(hops=job.hops + 1, seen=max(job.seen, m.x))
        host = s.hosts[i]
        yield from self._pump(self._with(s, i, queue=self.returned([job], host.queue)), i)

    # --------------------------------------------------------------------------------------------- jobs

    def _submit(self, s: State, i: int, job: Job) -> Iterator[State]:
        host = s.hosts[i]
        if job.r in self.reads and host.vol.held is not None and host.row.state is Ownership.OWNED:
            yield self._with(s, i, reading=(*host.reading, Unit(job, host.copy, host.row.epoch)))
            return
        yield from self._pump(self._with(s, i, queue=(*host.queue, job)), i)

    def _pump(self, s: State, i: int) -> Iterator[State]:
        """Do what the row allows for the first job, and for those behind it, until one has to wait."""
        host = s.hosts[i]
        if not host.queue:
            yield s
            return
        job, rest, row = host.queue[0], host.queue[1:], host.row
        if job.r in self.reads and self.reads_at(row) and host.vol.held is None:
            answered = self._give(self._with(s, i, queue=rest), i, job, OK + len(host.copy))
            yield from self._pump(answered, i)
        elif row.state is Ownership.OWNED:
            if host.vol.held is not None or not self.may_begin(host):
                yield s
                return
            unit = Unit(job, host.copy, row.epoch)
            if self.bounds.units:
                yield from self._pump(self._with(s, i, queue=rest, units=(*host.units, unit)), i)
            else:
                for after in self._commit(self._with(s, i, queue=rest), i, unit):
                    yield from self._pump(after, i)
        elif job.origin != OWN and not self.passes_on():
            if self.waits(job, row):
                yield s
            else:
                yield from self._pump(self._not_owner(self._with(s, i, queue=rest), i, job), i)
        elif job.origin == OWN and host.vol.wanted and row.state is Ownership.FOREIGN:
            yield s
        else:
            if job.origin == OWN and self._may_want(row):
                yield from (a for _, a in self._event(s, i, o.Demand(M), ""))
            forwarded = self._forward(self._with(s, i, queue=rest), i, job, self._route(host)[1])
            yield from self._pump(forwarded, i)

    def _may_want(self, row: Row) -> bool:
        return row.state is Ownership.FOREIGN and row.epoch < self.bounds.epochs

    def _commit(self, s: State, i: int, unit: Unit) -> Iterator[State]:
        """A unit ends: it has run before, or it is committed, or the key was given away under it."""
        host, job = s.hosts[i], unit.job
        if (n := self.ran_before(host.copy, job.r)) is not None:
            after = self._give(s, i, job, OK + n)
        elif not self.may_run(host, unit):
            after = self._with(s, i, queue=(job, *host.queue))
        else:
            after = self._give(self._write(s, i, unit), i, job, OK + len(unit.base))
        yield from self._pump(after, i)

    def _write(self, s: State, i: int, unit: Unit) -> State:
        """A commit puts down what the unit has made of what it has read."""
        host, r = s.hosts[i], unit.job.r
        fault = None
        if host.row.state is not Ownership.OWNED:
            fault = f"I5: r{r} is committed where the row is {row_text(host.row)}"
        at = self.bounds.asked_at
        overtaken = [q for q in unit.base if q > r and at[q] == at[r] and self.keys[q] != self.keys[r]]
        if s.told[r] == OPEN and overtaken and not self._aimed_anew(s, unit.job):
            fault = fault or f"order: r{overtaken[0]} has overtaken r{r}"
        s = self._with(s, i, copy=(*unit.base, r))
        return s._replace(fault=s.fault or fault)

    @staticmethod
    def _aimed_anew(s: State, job: Job) -> bool:
        """Whether another network has sent this one here in a second try: others may have gone before it meanwhile."""
        return job.origin != OWN and any(p.fwd == job.fwd and p.job.hops for p in s.hosts[job.origin].pending)

    def _give(self, s: State, i: int, job: Job, status: int) -> State:
        """Answer a job: its consumer, or the network that forwarded it."""
        if job.origin == OWN:
            if s.told[job.r] != OPEN:
                return s
            fault = s.fault
            if job.r in self.reads and OK <= status < 503 and status - OK < s.floors[job.r]:
                fault = fault or f"I7: r{job.r} reads {status - OK} writes, but {s.floors[job.r]} were answered before"
            return s._replace(told=put(s.told, job.r, status), fault=fault)
        row = s.hosts[i].row
        epoch = row.epoch if row.state is Ownership.OWNED else 0
        return self._send(s, i, job.origin, Msg("ANSWER", epoch, job.fwd, job.r, status=status))

    def _turn_away(self, s: State, i: int, job: Job) -> State:
        fault = None
        b = self.bounds
        if not (b.refusals or b.impatience or b.gives_up or b.expiries or b.crashes):
            fault = f"refused: r{job.r} is not served, though nothing has failed"
        return self._give(s._replace(fault=s.fault or fault), i, job, 504 if job.sent else 503)

    def _not_owner(self, s: State, i: int, job: Job) -> State:
        epoch, owner = self._route(s.hosts[i])
        return self._send(s, i, job.origin, Msg("NOT_OWNER", epoch, job.fwd, job.r, owner=owner))

    def _forward(self, s: State, i: int, job: Job, peer: int) -> State:
        if peer == i:
            return self._turn_away(s, i, job)
        host = s.hosts[i]
        trips = job.trips + (job.origin != OWN)
        if trips > rules.HOPS_MAX or job.hops > rules.HOPS_MAX:
            s = s._replace(fault=s.fault or f"loop: r{job.r} goes in circles")
        job = job._replace(seen=max(job.seen, self._route(host)[0]), trips=trips)
        s, fwd = self._leaves(s, i, job, peer, by_lane=True)
        return self._send(s, i, peer, Msg("FORWARD", job.seen, fwd, job.r, job.trips))

    def _leaves(self, s: State, i: int, job: Job, peer: int, *, by_lane: bool) -> tuple[State, int]:
        """Remember a job that is about to leave; from now on it may have run."""
        fwd = 1 + job.r * 16 + job.tries
        left = job._replace(sent=True, tries=job.tries + 1)
        pending = (*s.hosts[i].pending, Pending(fwd, left, peer, job.sent, by_lane))
        return self._with(s, i, pending=pending), fwd

    def _route(self, host: Host) -> tuple[int, int]:
        if host.route[0] > host.row.epoch:
            return host.route
        return host.row.epoch, 0 if host.row.peer is None else NAMES.index(host.row.peer)

    def _note_route(self, s: State, i: int, epoch: int, owner: int) -> State:
        if owner == i or epoch <= s.hosts[i].route[0]:
            return s
        return self._with(s, i, route=(epoch, owner))

    # ------------------------------------------------------------------------------------------ the table

    def _event(
        self, s: State, i: int, event: Any, label: str, grant: tuple[int, Msg] | None = None
    ) -> Iterator[tuple[str, State]]:
        """Run one event through the table, make the row durable, and do what the commands say."""
        host = s.hosts[i]
        step = self.step(host.row, host.vol, event)
        s = self._with(s, i, row=step.row, vol=step.vol)
        for c in step.commands:
            s = self._do(s, i, c, grant)
        for after in self._pump(s, i):
            yield f"{label}: {step.why}", after

    def _do(self, s: State, i: int, c: Any, grant: tuple[int, Msg] | None) -> State:
        host = s.hosts[i]
        match c:
            case o.Hold():
                reads = [j for j in host.queue if j.r in self.reads]
                under_way = tuple(Unit(j, host.copy, host.row.epoch) for j in reads)
                waiting = tuple(j for j in host.queue if j not in reads)
                return self._with(s, i, queue=waiting, reading=(*host.reading, *under_way))
            case o.Release():
                back = [p for p in host.pending if p.fwd in host.given] if self.keeps_given() else []
                rest = tuple(p for p in host.pending if p.fwd not in host.given)
                own = [p.job for p in rest] if self.takes_back_refused() else []
                queue = (*(p.job._replace(sent=p.sent_before) for p in back), *self.returned(own, host.queue))
                return self._with(s, i, queue=queue, pending=() if self.takes_back_refused() else rest, given=())
            case o.ForwardQueue(peer):
                owner = self._route(host)[1]
                for job in host.queue:
                    if job.origin == OWN:
                        left = tuple(j for j in s.hosts[i].queue if j != job)
                        to = NAMES.index(peer) if owner == i else owner
                        s = self._forward(self._with(s, i, queue=left), i, job, to)
                return s
            case o.SendWant(peer):
                return self._send(s, i, NAMES.index(peer), Msg("WANT", host.row.epoch))
            case o.SendGrant(peer, x, full):
                j = NAMES.index(peer)
                s, elsewhere = self._hand_over(s, i, j)
                host = s.hosts[i]
                held = tuple((p.fwd, p.job.r) for p in host.pending if p.fwd in host.given)
                s = self._send(s, i, j, Msg("GRANT", x, copy=host.copy, full=full, held=held))
                for job in elsewhere:
                    s = self._send(s, i, job.origin, Msg("NOT_OWNER", x, job.fwd, job.r, owner=j))
                return s
            case o.SendAccepted(peer, x):
                return self._send(s, i, NAMES.index(peer), Msg("ACCEPTED", x, owner=i))
            case o.SendRefused(peer, x):
                return self._send(s, i, NAMES.index(peer), Msg("REFUSED", x))
            case o.SendNeed(peer, x):
                return self._send(s, i, NAMES.index(peer), Msg("NEED", x))
            case o.SendNotOwner(peer, epoch, owner):
                place = i if owner is None else NAMES.index(owner)
                return self._send(s, i, NAMES.index(peer), Msg("NOT_OWNER", epoch, owner=place))
            case o.Install():
                assert grant is not None
                giver, m = grant
                rode = [Job(r, giver, fwd) for fwd, r in m.held]
                own = self._taken_back(host) if self.takes_back() else []
                queue = tuple(self.at_acceptance(rode, own, host.queue))
                return self._with(s, i, copy=m.copy, queue=queue, pending=() if self.takes_back() else host.pending)
            case o.BecomeShadow():
                return self._with(s, i, given=())
            case o.Alarm(sentence):
                return s._replace(fault=s.fault or f"alarm: {sentence}")
        return s

    def _taken_back(self, host: Host) -> list[Job]:
        """Own forwards without an answer; whether they have left or not, the idempotency rows tell what has run."""
        return [p.job for p in host.pending if p.fwd not in host.given]

    def _hand_over(self, s: State, i: int, j: int) -> tuple[State, list[Job]]:
        """What waits at the moment of the grant rides in it; requests of others are returned, for they are told."""
        host = s.hosts[i]
        if host.given:
            return s, []
        given: list[int] = []
        s = self._with(s, i, queue=())
        for job in host.queue:
            if job.origin == OWN:
                s, fwd = self._leaves(s, i, job, j, by_lane=False)
                given.append(fwd)
        return self._with(s, i, given=tuple(given)), [job for job in host.queue if job.origin != OWN]

    # -------------------------------------------------------------------------------------------- helpers

    def _lane(self, i: int, j: int) -> int:
        return i * self.bounds.networks + j

    def _send(self, s: State, i: int, j: int, m: Msg) -> State:
        n = self._lane(i, j)
        return s._replace(lanes=put(s.lanes, n, (*s.lanes[n], m)))

    @staticmethod
    def _with(s: State, i: int, **changes: Any) -> State:
        return s._replace(hosts=put(s.hosts, i, s.hosts[i]._replace(**changes)))

    # ----------------------------------------------------------------------------------------- predicates

    def check(self, s: State) -> str | None:
        """I1, I3, I6 and I8 in this state; None if they hold."""
        fault = self._check(s)
        return None if fault is None or fault.startswith(self.blind) else fault

    def _check(self, s: State) -> str | None:
        owners = [host for host in s.hosts if host.row.state is Ownership.OWNED]
        if len(owners) > 1:
            return "I1: the key has two owners"
        for host in s.hosts:
            keys = [self.keys[r] for r in host.copy]
            if len(set(keys)) < len(keys):
                return f"I6: an idempotency key has run twice: {keys}"
        for r, told in enumerate(s.told):
            if told == 503 and any(r in host.copy for host in s.hosts):
                return f"I8: r{r} was answered 503, but has run"
            if OK <= told < 503 and r not in self.reads and owners:
                copy = owners[0].copy
                if told - OK >= len(copy) or self.keys[copy[told - OK]] != self.keys[r]:
                    return f"I3: r{r} was answered 2xx, but the owner does not have it where that said"
        return None

    def settles(self, s: State) -> str | None:
        """None if, in a world in which nothing fails, every request that was asked comes to an answer."""
        if self.bounds.crashes or self.bounds.expiries:
            return None  # what a crash loses ends by its deadline
        path = []
        while s not in self._settled:
            self._settled[s] = None
            path.append(s)
            after = next(self._progress(s), None) if len(path) < SETTLE_STEPS else None
            if after is None:
                stuck = [r for r in self.requests if s.told[r] == OPEN]
                self._settled[s] = f"I8: r{stuck[0]} is never answered, though nothing has failed" if stuck else None
                break
            s = after
        for before in path:
            self._settled[before] = self._settled[s]
        return self._settled[s]

    def _progress(self, s: State) -> Iterator[State]:
        """What a world does that has nothing new to do."""
        for i in self.networks:
            for j in self.networks:
                if i != j and s.lanes[self._lane(j, i)]:
                    yield from (a for _, a in self._arrives(s, j, i))
        for i in self.networks:
            host = s.hosts[i]
            busy = host.units or host.reading
            if busy or host.inbox or host.vol.held is not None:
                yield from (a for _, a in self._alone(s, i))
            elif host.vol.wanted and host.queue:
                event = o.NotOwner(host.row.peer or NAMES[0], 0)
                yield from (a for _, a in self._event(s, i, event, ""))

    def text(self, s: State) -> list[str]:
        """A state for people."""
        lines = []
        for i, host in enumerate(s.hosts):
            parts = [row_text(host.row), "[" + " ".join(f"r{r}" for r in host.copy) + "]"]
            parts += [f"held for {host.vol.held.peer}"] if host.vol.held else []
            parts += ["wants it"] if host.vol.wanted else []
            parts += ["queue " + " ".join(f"r{j.r}" for j in host.queue)] if host.queue else []
            parts += ["sent " + " ".join(f"r{p.job.r}→{NAMES[p.peer]}" for p in host.pending)] if host.pending else []
            lines.append(f"{NAMES[i]}: " + " · ".join(parts))
        words = {NOT_ASKED: "not asked", OPEN: "open"}
        said = [words.get(v, f"2xx at {v - OK}" if OK <= v < 503 else str(v)) for v in s.told]
        lines.append("consumers: " + ", ".join(f"r{r} {v}" for r, v in enumerate(said)))
        return lines
