"""The same search for the copy that goes ahead of ownership (PROTOCOL.md §7), and for what grants rest on.

Home A copies the UEs of one partition to B while it serves them: chunk by chunk, behind each chunk the log of the UEs
already sent, then a seal. A UE may be granted alone before that, and the rest goes with `*p`. Rows change by
`OWNERSHIP.step` and `protocol.partition`; the stream and the two files are written down again as `host.followers`,
`host.landing` and `store.staging` have them, for they live in code that does I/O.

A copy is two numbers: the head that it claims, and the units that are really in it. A grant of one UE is proved by its
records; one of `*p` by the heads alone (Σ), so these must never claim more than there is. Frames travel in one lane, in
order; frames that were on their way when B crashed arrive at the new B.

What must hold:

- I4: the owner has every unit, whichever way they came.
- acked: what A takes for durable at B is in B's live file; SAME and DELTA rest on it.
- I9: without any further fault every grant comes to be taken.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from outrider.protocol import ownership as o
from outrider.protocol.ownership import NO_VOL, OWNERSHIP, Held, Ownership, Row, Vol
from outrider.protocol.partition import fold, unfold
from outrider.protocol.table import Step, Table
from outrider.sim.space import Edge
from outrider.sim.values import put, row_text

A, B, M = "A", "B", "m"
STAR = b"*p"
UES = (b"u0", b"u1")
GHOST = 2
"""Place of a UE that only B has, from an earlier visit."""


@dataclass(frozen=True)
class CopyBounds:
    """How large the world is and which faults it has."""

    writes: int = 2
    """Units committed while the copy runs, at A and at B."""
    crashes: int = 1
    """So often B or A restarts."""
    early: bool = True
    """UEs may be granted alone."""
    returns: int = 0
    """So often a UE that was granted alone goes back to A, in one step: how is `sim.model`'s to try."""
    visited: bool = False
    """B has copies of an earlier visit, and one of a UE that A does not have; so there is no staging file."""


class Copy(NamedTuple):
    """A UE in a file: the head that it claims, and how many units are in it."""

    head: int
    units: int


Copies = tuple[Copy | None, ...]
Rows = tuple[Row | None, ...]
"""Of `*p`, and the own rows of the UEs."""


class Frame(NamedTuple):
    """A frame in the bulk lane: `chunk` (UE `k` as of `head`), `log` (the unit that led to `head`), `seal`."""

    kind: str
    gen: int
    k: int = 0
    head: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "seal" else f"{self.kind} of u{self.k} at {self.head}"


class Msg(NamedTuple):
    """A message of the ownership protocol about `*p` (k = -1) or a UE."""

    kind: str
    k: int
    x: int
    body: str = ""
    heads: tuple[int, ...] = ()
    bases: tuple[int, ...] = ()
    """Entries after these heads ride in the grant."""
    excepted: frozenset[bytes] = frozenset()

    def __str__(self) -> str:
        return f"{self.kind} {self.body} of {'*p' if self.k < 0 else f'u{self.k}'}"


class Source(NamedTuple):
    """A: `heads` and `rows` are on its disk, the stream is in memory."""

    rows: Rows = (Row(Ownership.OWNED, 1), None, None)
    heads: tuple[int, ...] = (1, 1)
    gen: int = 1
    cursor: int = 0
    """How many UEs are sent."""
    read: int | None = None
    """The head at which the next chunk was read."""
    log: tuple[tuple[int, int], ...] = ()
    """Entries that are not sent yet: UE and head."""
    ahead: tuple[tuple[int, int], ...] = ()
    """Entries of UEs beyond the cursor, which the chunk that was read may lack."""
    sealed: bool = False
    durable: bool = False
    again: frozenset[int] = frozenset()
    """UEs that the target needs whole."""
    acked: tuple[int, ...] = (0, 0)
    """Heads up to which the target has taken the stream."""


class Target(NamedTuple):
    """B: rows and live file are on its disk; a crash loses the staging file."""

    rows: Rows = (Row(Ownership.FOREIGN, 0, A), None, None)
    live: Copies = (None, None, None)
    staged: Copies | None = None
    gen: int = 0
    commits: tuple[int, ...] = (0, 0)


class State(NamedTuple):
    """Both sides and what is between them."""

    a: Source = Source()
    b: Target = Target()
    lane: tuple[Frame, ...] = ()
    msgs: frozenset[Msg] = frozenset()
    units: int = 0
    crashes: int = 0
    returns: int = 0
    fault: str | None = None


class CopyWorld:
    """All states that a copy can reach. Twins override single methods."""

    table: Table[Row, Vol] = OWNERSHIP
    blind: tuple[str, ...] = ()
    """Beginnings of predicates that a twin is not judged by."""

    def __init__(self, bounds: CopyBounds) -> None:
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
        """A serves; B has nothing, or what an earlier visit has left."""
        live = (Copy(0, 0), Copy(1, 1), Copy(1, 1)) if self.bounds.visited else (None, None, None)
        return State(b=Target(live=live))

    # ------------------------------------------------------------- rules around the table, for twins to break

    def durable_when(self, s: State, frame: Frame) -> bool:
        """A copy is durable when its seal is acknowledged."""
        return frame.kind == "seal" and frame.gen == s.a.gen

    def keeps_ahead(self) -> bool:
        """What is committed between the reading of a chunk and its sending goes behind it."""
        return True

    def staged_after_crash(self, staged: Copies | None) -> Copies | None:
        """A crash discards the staging file."""
        return None

    def carried(self, row: Row, live: Copy | None, staged: Copy | None) -> bool:
        """The live copy stays where it is owned here, or newer: UEs that came early win over the staging file."""
        return live is not None and (row.state is not Ownership.FOREIGN or staged is None or live.head >= staged.head)

    def with_row(self) -> bool:
        """A UE's content is in the commit of its OWNED row."""
        return True

    def follows(self, copy: Copy | None, head: int) -> bool:
        """A log entry is applied where the copy's head is the one before it."""
        return (0 if copy is None else copy.head) == head - 1

    def may_follow(self, row: Row) -> bool:
        """Log entries and chunks are for what another network owns."""
        return row.state is Ownership.FOREIGN

    def deletes_ghosts(self) -> bool:
        """A chunk replaces its range: what it does not name is deleted."""
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
        a, b = s.a, s.b
        if s.units < self.bounds.writes:
            more = s._replace(units=s.units + 1)
            for k in range(len(UES)):
                if _row(a.rows, k).state is Ownership.OWNED:
                    heads = put(a.heads, k, a.heads[k] + 1)
                    log = (*a.log, (k, heads[k]))
                    yield f"A commits a unit of u{k}", more._replace(a=a._replace(heads=heads, log=log))
                copy = b.live[k]
                if _row(b.rows, k).state is Ownership.OWNED and copy is not None:
                    live = put(b.live, k, Copy(copy.head + 1, copy.units + 1))
                    commits = put(b.commits, k, b.commits[k] + 1)
                    yield f"B commits a unit of u{k}", more._replace(b=b._replace(live=live, commits=commits))
        yield from self._streams(s)
        yield from self._grants(s)
        if s.returns < self.bounds.returns:
            yield from self._goes_back(s)
        if s.lane:
            yield f"B takes a {s.lane[0]}", self._lands(s._replace(lane=s.lane[1:]), s.lane[0])
        for m in s.msgs:
            yield from self._hear(s, m)
        if s.crashes < self.bounds.crashes:
            crashed = s._replace(crashes=s.crashes + 1)
            staged = self.staged_after_crash(b.staged)
            again = crashed._replace(b=b._replace(staged=staged, gen=b.gen if staged else 0))
            if not a.durable and staged is None:
                again = again._replace(a=_begins_anew(a))
            yield "B crashes and restarts", again
            yield "A crashes and restarts", crashed._replace(a=_begins_anew(a), lane=())

    # ---------------------------------------------------------------------------------------- the stream

    def _streams(self, s: State) -> Iterator[tuple[str, State]]:
        a = s.a
        if a.log:
            (k, head), log = a.log[0], a.log[1:]
            if k < a.cursor:
                frame = Frame("log", a.gen, k, head)
                yield f"A sends a {frame}", s._replace(a=a._replace(log=log), lane=(*s.lane, frame))
            else:
                ahead = (*a.ahead, (k, head)) if self.keeps_ahead() else a.ahead
                yield f"A keeps the entry of u{k} at {head}", s._replace(a=a._replace(log=log, ahead=ahead))
        if a.cursor < len(UES):
            if a.read is None:
                yield f"A reads u{a.cursor}", s._replace(a=a._replace(read=a.heads[a.cursor]))
            else:
                frames = [Frame("chunk", a.gen, a.cursor, a.read)]
                frames += [Frame("log", a.gen, k, h) for k, h in a.ahead if k == a.cursor and h > a.read]
                ahead = tuple((k, h) for k, h in a.ahead if k != a.cursor)
                sent = a._replace(cursor=a.cursor + 1, read=None, ahead=ahead)
                yield f"A sends a {frames[0]}", s._replace(a=sent, lane=(*s.lane, *frames))
        for k in a.again if a.sealed else ():
            frame = Frame("chunk", a.gen, k, a.heads[k])
            yield f"A sends a {frame} again", s._replace(a=a._replace(again=a.again - {k}), lane=(*s.lane, frame))
        if a.cursor == len(UES) and not a.sealed:
            yield "A sends a seal", s._replace(a=a._replace(sealed=True), lane=(*s.lane, Frame("seal", a.gen)))

    def _lands(self, s: State, frame: Frame) -> State:
        """B takes a frame; A hears at once that it did."""
        b, k = s.b, frame.k
        if frame.kind == "chunk":
            if frame.gen != b.gen:
                empty = all(c is None or b.rows[1 + n] is not None for n, c in enumerate(b.live[:GHOST]))
                begins = k == 0 and empty and b.live[GHOST] is None
                b = b._replace(gen=frame.gen, staged=(None, None, None) if begins else None)
            copy = Copy(frame.head, frame.head)
            if b.staged is not None:
                b = b._replace(staged=put(b.staged, k, copy))
            else:
                live = put(b.live, k, copy) if self.may_follow(_row(b.rows, k)) else b.live
                if self.deletes_ghosts() and k == len(UES) - 1:
                    live = put(live, GHOST, None)
                b = b._replace(live=live)
        elif frame.kind == "log":
            b, fits = self._follow(b, frame)
            if not fits:
                s = s._replace(a=s.a._replace(again=s.a.again | {k}))
        elif b.staged is not None:
            rows = [_row(b.rows, n) for n in range(len(UES))] + [b.rows[0] or Row(Ownership.FOREIGN, 0)]
            pairs = zip(rows, b.live, b.staged, strict=True)
            live = tuple(here if self.carried(row, here, staged) else staged for row, here, staged in pairs)
            b = b._replace(live=live, staged=None)
        a = s.a
        if frame.gen == a.gen and frame.kind != "seal":
            a = a._replace(acked=put(a.acked, k, max(a.acked[k], frame.head)))
        if self.durable_when(s, frame):
            a = a._replace(durable=True)
        return s._replace(a=a, b=b)

    def _follow(self, b: Target, frame: Frame) -> tuple[Target, bool]:
        """Apply a log entry to the file that the copy is in; False: the UE is to be sent whole."""
        k, files = frame.k, b.live if b.staged is None else b.staged
        copy = files[k]
        if b.staged is None and not self.may_follow(_row(b.rows, k)):
            return b, True
        if self.follows(copy, frame.head):
            files = put(files, k, Copy(frame.head, (0 if copy is None else copy.units) + 1))
            return (b._replace(live=files) if b.staged is None else b._replace(staged=files)), True
        return b, copy is not None and copy.head >= frame.head

    # ---------------------------------------------------------------------------------------- ownership

    def _grants(self, s: State) -> Iterator[tuple[str, State]]:
        a = s.a
        for k in range(-1 if a.durable else 0, len(UES) if self.bounds.early else 0):
            row = _row(a.rows, k)
            if row.state is Ownership.OWNED:
                rows = a.rows
                floor = 0
                if k < 0:
                    f = fold(row, {UES[n]: r for n, r in enumerate(rows[1:]) if r is not None})
                    floor = f.floor
                    rows = (row, *(None if UES[n] in f.dropped else r for n, r in enumerate(rows[1:])))
                step = self.step(row, Vol(Held(B, M)), o.Drained(True, floor=floor))
                given = a._replace(rows=put(rows, 1 + k, step.row))
                yield f"A gives {_name(k)} to B", self._send_grant(s._replace(a=given), k, step.row.epoch)
            elif row.state is Ownership.GRANTED and a.rows[1 + k] is not None:
                yield f"A repeats its grant of {_name(k)}", self._send_grant(s, k, row.epoch)

    def _goes_back(self, s: State) -> Iterator[tuple[str, State]]:
        """What B had done is in A's copy then, and not in A's log; so the next entry of A's stands on it."""
        a, b = s.a, s.b
        for k in range(len(UES)):
            theirs, ours = b.rows[1 + k], a.rows[1 + k]
            if theirs is None or theirs.state is not Ownership.OWNED or ours is None or ours.epoch != theirs.epoch:
                continue
            if ours.state is Ownership.FOREIGN:
                head, x = a.heads[k] + b.commits[k], theirs.epoch + 1
                rows, acked = put(a.rows, 1 + k, Row(Ownership.OWNED, x)), put(a.acked, k, head)
                back = a._replace(rows=rows, heads=put(a.heads, k, head), acked=acked)
                gave = put(b.rows, 1 + k, Row(Ownership.FOREIGN, x, A))
                left = b._replace(rows=gave, commits=put(b.commits, k, 0))
                yield f"B gives u{k} back to A", s._replace(a=back, b=left, returns=s.returns + 1)

    def _send_grant(self, s: State, k: int, x: int, *, full: bool = False) -> State:
        a = s.a
        if k < 0:
            excepted = frozenset(UES[n] for n, row in enumerate(a.rows[1:]) if row is not None)
            m = Msg("GRANT", k, x, "Σ", a.heads, a.acked, excepted)
        elif full or not a.durable:
            m = Msg("GRANT", k, x, "FULL", (a.heads[k],))
        else:
            m = Msg("GRANT", k, x, "DELTA", (a.heads[k],), (a.acked[k],))
        # What is given is frozen, so a later grant of it says all that an earlier one did, with fewer entries at most:
        # those that the target has by then. It takes the earlier one's place.
        return s._replace(msgs=frozenset(n for n in s.msgs if (n.kind, n.k) != ("GRANT", k)) | {m})

    def _hear(self, s: State, m: Msg) -> Iterator[tuple[str, State]]:
        label = f"{'B' if m.kind == 'GRANT' else 'A'} hears {m}"
        if m.kind == "GRANT":
            yield from self._hear_grant(s, m, label)
            return
        if s.a.rows[1 + m.k] is None:
            yield label, s._replace(msgs=s.msgs - {m})  # of an earlier grant: by now the UE follows `*p` again
            return
        row = _row(s.a.rows, m.k)
        step = self.step(row, NO_VOL, o.Accepted(B, m.x) if m.kind == "ACCEPTED" else o.Need(B, m.x))
        s = s._replace(a=s.a._replace(rows=put(s.a.rows, 1 + m.k, step.row)))
        if any(isinstance(c, o.SendGrant) for c in step.commands):
            if m.k < 0:
                s = s._replace(a=s.a._replace(again=frozenset(range(len(UES)))))
            else:
                s = self._send_grant(s, m.k, m.x, full=True)
        yield label, s._replace(msgs=s.msgs - {m})

    def _hear_grant(self, s: State, m: Msg, label: str) -> Iterator[tuple[str, State]]:
        b, row = s.b, _row(s.b.rows, m.k)
        live, rows, fit = b.live, b.rows, "fits"
        if m.k >= 0:
            copy = Copy(m.heads[0], m.heads[0]) if m.body == "FULL" else _after(live[m.k], m.bases[0], m.heads[0])
            fit = "fits" if copy == Copy(m.heads[0], m.heads[0]) else "need"  # its records are digested anew
            live = put(live, m.k, copy)
        elif m.x > row.epoch:
            for k, (base, head) in enumerate(zip(m.bases, m.heads, strict=True)):
                if UES[k] not in m.excepted and self.may_follow(_row(b.rows, k)):
                    live = put(live, k, _after(live[k], base, head) or live[k])
            b = b._replace(live=live)  # they are applied before the grant is decided
            own = {UES[n]: r for n, r in enumerate(rows[1:]) if r is not None}
            change = unfold(m.x, row, own, m.excepted)
            assert not isinstance(change, bytes)
            names = zip(UES, rows[1:], strict=True)
            rows = (row, *(None if u in change.dropped else change.kept.get(u, r) for u, r in names))
            speaks_of = [k for k in range(len(UES)) if UES[k] not in m.excepted]
            fit = "fits" if all(_head(live[k]) == m.heads[k] for k in speaks_of) and live[GHOST] is None else "need"
        step = self.step(row, NO_VOL, o.Grant(A, m.x, M, fit))  # type: ignore[arg-type]
        taken = any(isinstance(c, o.Install) for c in step.commands)
        sent = {Msg("ACCEPTED" if isinstance(c, o.SendAccepted) else "NEED", m.k, m.x)
                for c in step.commands if isinstance(c, o.SendAccepted | o.SendNeed)}  # fmt: skip
        rows = put(rows if taken else b.rows, 1 + m.k, step.row if m.k < 0 or taken else b.rows[1 + m.k])
        after = b._replace(rows=rows, live=live if taken else b.live)
        yield f"{label}: {step.why}", s._replace(b=after, msgs=s.msgs | sent)
        if taken and not self.with_row() and s.crashes < self.bounds.crashes:
            lost = after._replace(live=b.live, staged=None)
            yield f"{label}: {step.why}, and it crashes before the content", s._replace(b=lost, crashes=s.crashes + 1)

    # ----------------------------------------------------------------------------------------- predicates

    def check(self, s: State) -> str | None:
        """I4 and what SAME and DELTA rest on, in this state; None if they hold."""
        fault = self._check(s)
        return None if fault is None or fault.startswith(self.blind) else fault

    def _check(self, s: State) -> str | None:
        for k in range(len(UES)):
            head = s.a.heads[k] + s.b.commits[k]
            theirs, copy = _row(s.b.rows, k), s.b.live[k]
            if theirs.state is Ownership.OWNED:
                if _row(s.a.rows, k).state is Ownership.OWNED:
                    return f"I1: u{k} has two owners"
                if copy != Copy(head, head):
                    return f"I4: B owns u{k}, of which there are {head} units, and has {copy}"
            elif s.a.durable and _head(copy) < s.a.acked[k]:
                return f"acked: A takes u{k} at {s.a.acked[k]} for durable, and B has {copy}"
        return None

    def settles(self, s: State) -> str | None:
        """None if, without any further fault, every grant that is out comes to be taken."""
        s = s._replace(msgs=frozenset())
        for _ in range(8):
            while s.lane:
                s = self._lands(s._replace(lane=s.lane[1:]), s.lane[0])
            for k in s.a.again:
                s = self._lands(s._replace(a=s.a._replace(again=frozenset())), Frame("chunk", s.a.gen, k, s.a.heads[k]))
            for k in range(-1, len(UES)):
                row = s.a.rows[1 + k]
                if row is not None and row.state is Ownership.GRANTED:
                    s = self._send_grant(s, k, row.epoch)
            for _ in range(3):
                for m in sorted(s.msgs, key=lambda m: m.kind == "GRANT"):
                    s = next(self._hear(s._replace(msgs=s.msgs - {m}), m))[1]
        if any(row is not None and row.state is Ownership.GRANTED for row in s.a.rows):
            return "I9: a grant stays in doubt though nothing fails any more"
        return None

    def text(self, s: State) -> list[str]:
        """A state for people."""
        a, b = s.a, s.b
        rows = [", ".join(f"{_name(n - 1)} {row_text(r)}" for n, r in enumerate(side.rows) if r) for side in (a, b)]
        files = [" ".join(f"u{k} {c.head}({c.units})" for k, c in enumerate(f or ()) if c) for f in (b.live, b.staged)]
        durable = f", durable up to {a.acked}" if a.durable else ""
        staged = f" · staged {files[1]}" if b.staged is not None else ""
        return [
            f"A: {rows[0]} · heads {a.heads}, sent {a.cursor}{durable}",
            f"B: {rows[1]} · live {files[0]}{staged}",
        ]


def _name(k: int) -> str:
    return "*p" if k < 0 else f"u{k}"


def _row(rows: Rows, k: int) -> Row:
    """The effective row of a UE, or of `*p`."""
    row = rows[1 + k] or rows[0]
    assert row is not None
    return row


def _head(copy: Copy | None) -> int:
    return 0 if copy is None else copy.head


def _after(copy: Copy | None, base: int, head: int) -> Copy | None:
    """A copy after the entries from `base` to `head`, those that it has passed over; None if they do not follow."""
    if copy is None or copy.head < base:
        return None
    return Copy(max(copy.head, head), copy.units + max(0, head - copy.head))


def _begins_anew(a: Source) -> Source:
    return Source(a.rows, a.heads, a.gen + 1)
