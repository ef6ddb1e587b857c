"""A small world for exhaustive search: networks that run the ownership machine over a network that does its worst.

The rules are not written down again here. Every change of a row is `OWNERSHIP.step`, every `*p` goes through
`partition.fold` and `partition.unfold`, and what this module adds is what a driver adds: it looks up facts, makes the
row durable, and does what the commands say. A twin (`sim.twins`) is a subclass that breaks one of those rules.

What may happen, at any moment and in any order:

- An owner begins to give a key to any other network, ends a hold, or commits a unit of work. (WANT is no message
  here: it may come at any time from anybody, so it simply happens.)
- Any message that was ever sent is delivered, for the first time or once more. Messages stay in a set for ever, so
  duplication and reordering are unbounded, and loss is a message that is never chosen. For the same reason "durable"
  and "sent" need not be two steps: a crash between them looks, to everybody else, like a message that is lost. (The
  twins that send before the row is durable do take two.)
- A network crashes and restarts: holds and open units are gone, rows and copies are what was durable.
- A receiver refuses for want of room, a giver recalls. Neither needs a reason, so aborts, revocations and full disks
  are all covered; `Bounds.aborts` adds the abort itself, with its own predicate.
- With `Bounds.stream`, frames of the copy and log entries arrive late and twice;
  with `Bounds.losses`, B loses its disk, and with `Bounds.declares` an operator at home says so;
  with `Bounds.home_losses`, home loses its own: it serves nothing until it is put back, or until it begins anew, which
  its journal allows only where every key has been home since the last grant. Anew it grants nothing here: a new
  migration would be with other stores, to which nothing old is said, so it is a world of its own.

What a key holds is the sequence of the units committed to it, so "equal content" is a comparison of tuples. What rides
in a grant is worked out by the receiver from its real copy: first SAME or DELTA (from what was there when the giver
got the key), and where that does not lead to the giver's content, NEED and FULL.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Any

from outrider.protocol import ownership as o
from outrider.protocol.ownership import NO_VOL, OWNERSHIP, Ownership, Row, Vol
from outrider.protocol.partition import Fold, Unfold, fold, set_apart, unfold
from outrider.protocol.table import Step, Table
from outrider.sim.values import (
    BACK,
    HOME,
    NAMES,
    OUT,
    STAR,
    Bounds,
    Change,
    Content,
    Msg,
    Net,
    Rows,
    content_text,
    effective,
    entry,
    key_bytes,
    key_name,
    own_rows,
    put,
    row_text,
    with_rows,
)


class Driver:
    """What a host does around the machine, for one network at a time. Twins override single methods."""

    table: Table[Row, Vol] = OWNERSHIP
    blind: tuple[str, ...] = ()
    """Beginnings of predicates that a twin is not judged by."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.fired: set[str] = set()
        """Ids of the rules that were used so far."""
        self.ues = range(1, bounds.ues + 1)
        self.keys = range(0 if bounds.star else 1, bounds.ues + 1)
        self.step = cache(self._step)

    def _step(self, row: Row, vol: Vol, event: object) -> Step[Row, Vol]:
        rule = self.table.rule(row, vol, event)
        if rule is not None:
            self.fired.add(rule.id)
        return self.table.step(row, vol, event)

    def first(self, i: int) -> Net:
        """The local state in which network `i` begins: home owns everything."""
        row = Row(Ownership.OWNED, 1) if i == HOME else Row(Ownership.FOREIGN, 0, NAMES[HOME])
        of_ue = None if self.bounds.star else row
        size = self.bounds.ues + 1
        return Net((row, *(of_ue for _ in self.ues)), ((),) * size, (NO_VOL,) * size, (0,) * size)

    # ------------------------------------------------------------- rules of the driver, for twins to break

    def persist(self, before: Net, change: Change) -> Iterable[Change]:
        """Which disks and messages may follow a change: the row is durable before anything is sent."""
        yield change

    def restart(self, net: Net) -> Net:
        """What is left after a crash: all but the volatile."""
        return net._replace(vols=(NO_VOL,) * len(net.vols), units=(0,) * len(net.units))

    def equal(self, results: Sequence[Content | None], body: Sequence[Content | None]) -> bool:
        """Whether the content that the grant leads to is the giver's (the digest says so)."""
        return tuple(results) == tuple(body)

    def folded(self, net: Net, stay: frozenset[bytes]) -> Fold:
        """How the giver's rows fold into `*p`."""
        return fold(effective(net, STAR), own_rows(net), stay)

    def unfolded(self, net: Net, m: Msg) -> Unfold | bytes:
        """How the receiver's rows change when it takes `*p`."""
        return unfold(m.x, effective(net, STAR), own_rows(net), [key_bytes(k) for k in m.excepted])

    def rows_refusing(self, net: Net, m: Msg) -> Rows:
        """How the receiver's rows change when it refuses a grant, or a recall."""
        if m.key != STAR:
            return net.rows
        return with_rows(net, set_apart(effective(net, STAR), own_rows(net), [key_bytes(k) for k in m.excepted]))

    def excepted(self, net: Net) -> tuple[int, ...]:
        """The UEs that a message about `*p` does not speak of: those with a row of their own at the giver."""
        return tuple(k for k in self.ues if net.rows[k] is not None)

    def may_drain(self, net: Net, k: int) -> bool:
        """Nothing that the key covers is open."""
        return not any(net.units[u] for u in ([k] if k != STAR else self.ues))

    def may_commit(self, net: Net, k: int) -> bool:
        """A unit's commit checks that the owner is still the one that it began under."""
        row = effective(net, k)
        return row.state is Ownership.OWNED and row.epoch == net.units[k]

    def may_give(self, net: Net, mig: str) -> bool:
        """The migration is not aborted here, so keys are held and granted for it."""
        return not (net.aborted and mig == OUT)

    def may_take(self, net: Net, mig: str) -> bool:
        """The migration is not aborted here, so keys are taken for it."""
        return not (net.aborted and mig == OUT)

    def followed(self, copy: Content, prev: Content, new: Content) -> Content:
        """What a log entry makes of a copy: it is applied where it follows, else left."""
        return new if copy == prev else copy

    def may_replace(self, row: Row) -> bool:
        """A frame of the copy may replace what is here."""
        return row.state is Ownership.FOREIGN

    def to_this_store(self, net: Net) -> bool:
        """A question is for the disk that this network has (all questions here are for its first one)."""
        return net.store == 0

    def deaf(self, net: Net, m: Msg) -> bool:
        """Nothing is heard of a disk that is declared lost (B's second one never says anything that counts), and
        nothing by a home without its disk, or with another one than the one that all is said to."""
        return (net.banned and m.source == 1) or (m.target == HOME and (net.down or net.store > 0))

    def may_begin_anew(self, net: Net) -> bool:
        """Home's disk is gone, and its journal says that nobody else can own anything."""
        return not net.away

    def gives(self, i: int) -> Sequence[int]:
        """Networks that a network may give a key to: home is told of no grant from B to C, so there may be none."""
        return [j for j in range(self.bounds.networks) if j != i and not (self.bounds.declares and i and j)]

    def tells(self, epoch: int) -> int:
        """What an answer tells about the key's present epoch. It is a hint for routing, so this world leaves it out."""
        return 0

    def heard(self, net: Net, m: Msg) -> Net:
        """What is done with that hint: nothing on the disk."""
        return net

    # ---------------------------------------------------------------------------------- one event, run

    def act(
        self,
        i: int,
        net: Net,
        k: int,
        event: Any,
        label: str,
        *,
        rows: Mapping[Ownership, Rows] | None = None,
        copies: tuple[Content, ...] | None = None,
    ) -> Change:
        """Run one event through the table, make the row durable and do what the commands say.

        `rows` are all rows as that commit leaves them, by the state entered, and `copies` is the content to install.
        """
        before = effective(net, k)
        step = self.step(before, net.vols[k], event)
        after = net._replace(vols=put(net.vols, k, step.vol))
        decides, fault = None, self._against_abort(net, before, step, event)
        if step.row != before:
            all_rows = (rows or {}).get(step.row.state, net.rows)
            after = after._replace(rows=put(all_rows, k, step.row))
            if isinstance(event, o.Drained):
                decides = ("grant", k, step.row.epoch)
                if self.bounds.home_losses and i == HOME:
                    after = after._replace(away=True)
            elif isinstance(event, o.Grant | o.Recall):
                decides = ("answer", k, step.row.epoch)
            if any(effective(after, u).epoch < effective(net, u).epoch for u in self.keys):
                fault = "I3: an epoch falls"
        sent: list[Msg] = []
        for command in step.commands:
            match command:
                case o.SendGrant(peer, x, full):
                    sent.append(self._grant(i, after, k, NAMES.index(peer), x, full=full))
                case o.SendRecall(peer, x):
                    excepted = self.excepted(after) if k == STAR else ()
                    sent.append(Msg("RECALL", i, NAMES.index(peer), k, x, excepted=excepted))
                case o.SendAccepted(peer, x, epoch):
                    sent.append(Msg("ACCEPTED", i, NAMES.index(peer), k, x, now=self.tells(epoch)))
                case o.SendRefused(peer, x):
                    sent.append(Msg("REFUSED", i, NAMES.index(peer), k, x))
                case o.SendNeed(peer, x):
                    sent.append(Msg("NEED", i, NAMES.index(peer), k, x))
                case o.Install():
                    assert copies is not None
                    after = after._replace(copies=copies)
                case o.Alarm(sentence):
                    fault = f"alarm: {sentence}"
        return Change(after, tuple(sent), f"{label}: {step.why}", fault, decides)

    def _against_abort(self, net: Net, before: Row, step: Step[Row, Vol], event: object) -> str | None:
        if not net.aborted:
            return None
        held = step.vol.held is not None and step.vol.held.mig == OUT and isinstance(event, o.Want)
        given = step.row.state is Ownership.GRANTED and isinstance(event, o.Drained)
        taken = step.row.state is Ownership.OWNED and isinstance(event, o.Grant) and step.row != before
        if held or ((given or taken) and step.row.mig == OUT):
            return "§3.9: held, given or taken for a migration that is aborted here"
        return None

    def _grant(self, i: int, net: Net, k: int, j: int, x: int, *, full: bool) -> Msg:
        if k != STAR:
            return Msg("GRANT", i, j, k, x, (net.copies[k],), full)
        excepted = self.excepted(net)
        body = tuple(None if u in excepted else net.copies[u] for u in self.ues)
        return Msg("GRANT", i, j, k, x, body, full, excepted)

    # ------------------------------------------------------------------------- what a network does alone

    def alone(self, i: int, net: Net) -> Iterator[Change]:
        """Everything that network `i` may do without a message."""
        me = NAMES[i]
        if i == HOME and self.bounds.home_losses:
            yield from self._lose_home(net)
            if net.down or net.store:
                return
        for k in self.keys:
            row = effective(net, k)
            if row.state is Ownership.OWNED:
                yield from self._give_stepwise(i, net, k) if self.bounds.units else self._give(i, net, k)
            if k != STAR:
                yield from self._work(i, net, k, row)
            if net.rows[k] is not None and row.state is Ownership.GRANTED:
                aborted = {not self.may_give(net, row.mig or "")} | ({True} if self.bounds.recalls else set())
                for recall in sorted(aborted):
                    label = f"{me} recalls {key_name(k)}" if recall else f"{me} repeats its grant of {key_name(k)}"
                    yield self.act(i, net, k, o.Resend(aborted=recall), label)
        crashed = self.restart(net)
        if crashed != net:
            yield Change(crashed, (), f"{me} crashes and restarts")
        if self.bounds.aborts and not net.aborted:
            told = tuple(Msg("ABORT", i, j, STAR) for j in range(self.bounds.networks) if j != i)
            yield self._abort(i, net, told)
        if self.bounds.losses and i == 1 and not net.store:
            told = (Msg("HELLO", i, HOME, STAR),) if self.bounds.declares else ()
            yield Change(self.first(i)._replace(store=1), told, f"{me} loses its disk and starts with an empty one")
        if net.banned:
            for k in (k for k in self.keys if net.rows[k] is not None):
                yield self.act(i, net, k, o.DeclaredLost(NAMES[1]), f"{me} takes back {key_name(k)}")

    def _lose_home(self, net: Net) -> Iterator[Change]:
        me = NAMES[HOME]
        if net.down:
            yield Change(net._replace(down=False), (), f"{me}'s disk is put back")
            if self.may_begin_anew(net):
                yield Change(self.first(HOME)._replace(store=1), (), f"{me} begins anew and owns everything")
        elif net.store:
            for k in self.ues:
                yield from self._work(HOME, net, k, effective(net, k))
        else:
            yield Change(self.restart(net)._replace(down=True), (), f"{me} loses its disk and serves nothing")
            whole = all(effective(net, k).state is Ownership.OWNED for k in self.keys)
            if net.away and whole:
                yield Change(net._replace(away=False), (), f"{me} journals that every key is home")

    def _want(self, net: Net, i: int, j: int) -> o.Want:
        mig = BACK if j == HOME else OUT
        return o.Want(NAMES[j], mig, allowed=self.may_give(net, mig))

    def _give(self, i: int, net: Net, k: int) -> Iterator[Change]:
        """Hold and grant in one step: a hold is volatile and nobody else can see it."""
        for j in self.gives(i):
            held = self.act(i, net, k, self._want(net, i, j), "")
            if held.net.vols[k].held is not None:
                yield from (c._replace(fault=c.fault or held.fault) for c in self._grants(i, held.net, k, j))

    def _give_stepwise(self, i: int, net: Net, k: int) -> Iterator[Change]:
        me, name = NAMES[i], key_name(k)
        held = net.vols[k].held
        if held is not None:
            if self.may_drain(net, k):
                yield from self._grants(i, net, k, NAMES.index(held.peer))
            yield self.act(i, net, k, o.HoldEnded(), f"{me} ends its hold of {name}")
        elif not self._frozen(net, k):
            for j in self.gives(i):
                yield self.act(i, net, k, self._want(net, i, j), f"{NAMES[j]} wants {name} of {me}")

    def _frozen(self, net: Net, k: int) -> bool:
        """While `*p` is held, nothing of the partition starts."""
        return net.vols[k].held is not None or net.vols[STAR].held is not None

    def _grants(self, i: int, net: Net, k: int, j: int) -> Iterator[Change]:
        held = net.vols[k].held
        assert held is not None
        aborted = not self.may_give(net, held.mig)
        label = f"{NAMES[i]} gives {key_name(k)} to {NAMES[j]}"
        if k != STAR:
            change = self.act(i, net, k, o.Drained(in_time=True, aborted=aborted), label)
            if effective(change.net, k).epoch <= self.bounds.epochs:
                yield change
            return
        owned = [u for u in self.ues if effective(net, u).state is Ownership.OWNED]
        for stay in (s for n in range(len(owned) + 1) for s in combinations(owned, n)):
            f = self.folded(net, frozenset(map(key_bytes, stay)))
            keeps = f", but keeps {' and '.join(map(key_name, stay))}" if stay else ""
            rows = {Ownership.GRANTED: with_rows(net, f.kept, f.dropped)}
            change = self.act(i, net, k, o.Drained(True, aborted, f.floor), label + keeps, rows=rows)
            if effective(change.net, k).epoch <= self.bounds.epochs:
                yield change._replace(net=change.net._replace(vols=(NO_VOL,) * len(net.vols)))

    def _work(self, i: int, net: Net, k: int, row: Row) -> Iterator[Change]:
        me, name = NAMES[i], key_name(k)
        if self.bounds.units:
            if net.units[k]:
                ended = net._replace(units=put(net.units, k, 0))
                if self.may_commit(net, k):
                    yield self._commit(i, ended, k, net.units[k])
                else:
                    yield Change(ended, (), f"{me} drops a unit of {name}: the owner has changed under it")
            elif row.state is Ownership.OWNED and not self._frozen(net, k):
                yield Change(net._replace(units=put(net.units, k, row.epoch)), (), f"{me} begins a unit of {name}")
        elif row.state is Ownership.OWNED:
            yield self._commit(i, net, k, row.epoch)
        if self.bounds.stream and row.state is Ownership.OWNED:
            frames = tuple(
                Msg("CHUNK", i, j, k, row.epoch, (net.copies[k],)) for j in range(self.bounds.networks) if j != i
            )
            yield Change(net, frames, f"{me} sends a copy of {name}")

    def _commit(self, i: int, net: Net, k: int, epoch: int) -> Change:
        row, old = effective(net, k), net.copies[k]
        new = (*old, entry(epoch, i))
        logged = tuple(Msg("LOG", i, j, k, epoch, (old, new)) for j in range(self.bounds.networks) if j != i)
        fault = None
        if row.state is not Ownership.OWNED or row.epoch != epoch:
            fault = f"I5: a unit of epoch {epoch} is committed where the row is {row_text(row)}"
        return Change(
            net._replace(copies=put(net.copies, k, new)),
            logged if self.bounds.stream else (),
            f"{NAMES[i]} commits a unit of {key_name(k)}: {content_text(new)}",
            fault,
            commit=(k, old),
        )

    def _abort(self, i: int, net: Net, told: tuple[Msg, ...]) -> Change:
        after, sent = net._replace(aborted=True), list(told)
        for k in self.keys:
            if after.rows[k] is not None or after.vols[k].held is not None:
                change = self.act(i, after, k, o.Aborted(OUT), "")
                after = change.net
                sent += change.sent
        return Change(after, tuple(sent), f"{NAMES[i]} aborts the migration, durably")

    # --------------------------------------------------------------------------- what comes over the wire

    def hear(self, net: Net, m: Msg) -> Iterator[Change]:
        """What the arrival of a message may do."""
        if self.deaf(net, m):
            return
        i, peer = m.target, NAMES[m.source]
        label = f"{NAMES[i]} hears {m}"
        match m.kind:
            case "GRANT":
                yield from self._hear_grant(net, m, label)
            case "RECALL":
                rows = {Ownership.FOREIGN: self.rows_refusing(net, m)}
                event = o.Recall(peer, m.x, to_this_store=self.to_this_store(net))
                yield self.act(i, net, m.key, event, label, rows=rows)
            case "ACCEPTED":
                change = self.act(i, net, m.key, o.Accepted(peer, m.x), label)
                yield change._replace(net=self.heard(change.net, m))
            case "REFUSED":
                yield self.act(i, net, m.key, o.Refused(peer, m.x), label)
            case "NEED":
                yield self.act(i, net, m.key, o.Need(peer, m.x), label)
            case "LOG":
                change = self.act(i, net, m.key, o.Accepted(peer, m.x), label)
                prev, new = m.body
                row = effective(change.net, m.key)
                if row.state is Ownership.FOREIGN and prev is not None and new is not None:
                    copies = put(change.net.copies, m.key, self.followed(change.net.copies[m.key], prev, new))
                    change = change._replace(net=change.net._replace(copies=copies))
                yield change
            case "CHUNK":
                (copy,) = m.body
                if self.may_replace(effective(net, m.key)) and copy is not None:
                    yield Change(net._replace(copies=put(net.copies, m.key, copy)), (), label)
            case "ABORT" if not net.aborted:
                yield self._abort(i, net, ())
            case "HELLO":
                yield Change(net._replace(banned=True), (), f"{NAMES[i]}'s operator declares the store of {peer} lost")

    def _hear_grant(self, net: Net, m: Msg, label: str) -> Iterator[Change]:
        i, peer, mig = m.target, NAMES[m.source], BACK if m.target == HOME else OUT
        copies, fit = list(net.copies), "fits"
        rows = {Ownership.FOREIGN: self.rows_refusing(net, m)}
        if m.x > effective(net, m.key).epoch:
            speaks_of = list(zip(self.ues if m.key == STAR else [m.key], m.body, strict=True))
            results = [self._result(net.copies[k], body, m) for k, body in speaks_of]
            fit = "fits" if self.equal(results, m.body) else "wrong" if m.full else "need"
            for (k, body), result in zip(speaks_of, results, strict=True):
                copies[k] = net.copies[k] if body is None or result is None else result
            if m.key == STAR:
                change = self.unfolded(net, m)
                if isinstance(change, bytes):
                    fit = "wrong"
                else:
                    rows[Ownership.OWNED] = with_rows(net, change.kept, change.dropped)
        may = self.may_take(net, mig)
        for admitted in (True, False) if may and self.bounds.refusals else (may,):
            cause = "NO_ROOM" if may else "MIGRATION_ABORTED"
            event = o.Grant(peer, m.x, mig, fit, self.to_this_store(net), admitted, cause)  # type: ignore[arg-type]
            heard = self.act(i, net, m.key, event, label, rows=rows, copies=tuple(copies))
            if effective(heard.net, m.key).state is Ownership.OWNED and heard.decides:
                for k, body in zip(self.ues if m.key == STAR else [m.key], m.body, strict=True):
                    if body is not None and heard.net.copies[k] != body:
                        heard = heard._replace(fault="I4: the content taken is not the content given")
            yield heard

    def _result(self, copy: Content, body: Content | None, m: Msg) -> Content | None:
        """What the copy here becomes by the grant's body."""
        if body is None or m.full:
            return body
        base = tuple(u for u in body if u // len(NAMES) < m.x - 1)
        return copy + body[len(base) :] if copy == base else copy
