"""The protocol with one rule taken out, as worlds to be searched (`sim.twins` names them and says what is found).

A twin of the table is `OWNERSHIP.without(rule, instead)`; a twin of the driver overrides one method of `Driver`. Where
a plain predicate would see the twin at once (an epoch that falls), the twin is `blind` to it, so that what the search
shows is the harm and not the symptom.

"""

# ruff: noqa: D102 (a twin's class says what it does wrong; what its methods are for is said in `Driver`)

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from outrider.protocol import ownership as o
from outrider.protocol.ownership import OWNERSHIP, Ownership, Row, Vol
from outrider.protocol.partition import Fold, Unfold, set_apart
from outrider.protocol.table import Rule, Step, Table
from outrider.sim.model import Driver
from outrider.sim.sync import State, SyncWorld
from outrider.sim.values import HOME, STAR, Change, Content, Msg, Net, Rows, effective, key_bytes, own_rows, put

_O, _G, _F = Ownership.OWNED, Ownership.GRANTED, Ownership.FOREIGN
_RULES = {rule.id: rule for rule in OWNERSHIP.rules}

Then = Callable[[Row, Vol, Any], Step[Row, Vol]]
Guard = Callable[[Row, Vol, Any], bool]


def instead(rule_id: str, then: Then | None = None, *, guard: Guard | None = None) -> Table[Row, Vol]:
    """The table in which one rule does something else, or fits elsewhere."""
    rule = _RULES[rule_id]
    other = Rule(rule.id, rule.at, rule.on, rule.to, rule.when, rule.clause, then or rule.then, guard or rule.guard)
    return OWNERSHIP.without(rule_id, other)


def _refuse_in_words(row: Row, vol: Vol, e: Any) -> Step[Row, Vol]:
    return Step(row, vol, (o.SendRefused(e.peer, e.x, ""),), f"epoch {e.x} refused, but not on the disk")


def _decide_alone(row: Row, vol: Vol, e: Any) -> Step[Row, Vol]:
    back = Row(_O, row.epoch + 1, mig=row.mig)
    return Step(back, vol, (), f"no answer, so taken back at epoch {back.epoch}")


def _take_back_at(step: int) -> Then:
    def then(row: Row, vol: Vol, e: Any) -> Step[Row, Vol]:
        back = Row(_O, row.epoch + step, mig=row.mig)
        return Step(back, vol, (), f"taken back at epoch {back.epoch}")

    return then


def _nothing(row: Row, vol: Vol, e: Any) -> Step[Row, Vol]:
    return Step(row, vol, (), "ignored")


# ------------------------------------------------------------------------------------- twins of the table


class StaleRefused(Driver):
    """A question about an old epoch is answered REFUSED."""

    table = instead("stale-grant-foreign", _refuse_in_words)


class StaleDecidedAnew(Driver):
    """A question about an old epoch is not seen to be old."""

    table = OWNERSHIP.without("stale-grant-foreign")
    blind = ("I3: an epoch falls", "I2")


class RefusalForgotten(Driver):
    """The row does not say that this network refused the epoch."""

    table = OWNERSHIP.without("stale-grant-refused")


class RefusalNotWritten(Driver):
    """A grant is refused without a durable row."""

    table = instead("refuse-foreign", _refuse_in_words)
    blind = ("I2",)


class RecallOfUnseenNotWritten(Driver):
    """RECALL of a grant that was never seen is answered, but not written down."""

    table = instead("recall-foreign", _refuse_in_words)
    blind = ("I2",)


class SourceDecidesAlone(Driver):
    """The giver takes the key back when it hears nothing."""

    table = instead("resend-grant", _decide_alone)


class EpochReused(Driver):
    """After a refusal the same epoch number is granted again."""

    table = instead("refused", _take_back_at(-1))
    blind = ("I3: an epoch falls",)


class OldAcceptedBelieved(Driver):
    """ACCEPTED counts for whatever is granted now."""

    table = instead("accepted", guard=lambda r, v, e: e.peer == r.peer)


class OldRefusedBelieved(Driver):
    """REFUSED counts for whatever is granted now."""

    table = instead("refused", guard=lambda r, v, e: e.peer == r.peer)


class LostNotTakenBack(Driver):
    """What a lost store owned stays with it, whatever the operator says."""

    table = OWNERSHIP.without("lost-foreign")


class LostEpochReused(Driver):
    """A key of a lost store is taken back at the epoch that the store had it in."""

    table = instead("lost-foreign", _take_back_at(0))


class GrantNotRepeated(Driver):
    """The giver sends GRANT once."""

    table = instead("resend-grant", _nothing)


class NeedNotAnswered(Driver):
    """NEED is not answered with the whole context."""

    table = instead("need", _nothing)


# ------------------------------------------------------------------------------------ twins of the driver


class SendsGrantFirst(Driver):
    """GRANT leaves before GRANTED is durable."""

    kinds: tuple[str, ...] = ("GRANT",)
    blind = ("I2",)

    def persist(self, before: Net, change: Change) -> Iterable[Change]:
        yield change
        if change.net != before and any(m.kind in self.kinds for m in change.sent):
            yield change._replace(net=before, decides=None, label=f"{change.label}; told, then a crash before the disk")


class SendsAcceptedFirst(SendsGrantFirst):
    """ACCEPTED leaves before OWNED is durable."""

    kinds = ("ACCEPTED",)


class SendsRefusedFirst(SendsGrantFirst):
    """REFUSED leaves before the refusal is durable."""

    kinds = ("REFUSED",)


class GrantedForgotten(Driver):
    """GRANTED is kept in memory only: a restart owns the key again."""

    blind = ("I2",)

    def restart(self, net: Net) -> Net:
        rows = tuple(Row(_O, r.epoch - 1, mig=r.mig) if r is not None and r.state is _G else r for r in net.rows)
        return super().restart(net)._replace(rows=rows)


class EpochByHearsay(Driver):
    """What an answer tells about the present epoch is written into the row."""

    def tells(self, epoch: int) -> int:
        return epoch

    def heard(self, net: Net, m: Msg) -> Net:
        row = net.rows[m.key]
        if row is None or row.state is not _F or m.now <= row.epoch:
            return net
        return net._replace(rows=put(net.rows, m.key, Row(_F, m.now, row.peer, mig=row.mig)))


class WorksAfterGrant(Driver):
    """Units stay open over a grant, and their commit does not ask who owns the key."""

    def may_drain(self, net: Net, k: int) -> bool:
        return True

    def may_commit(self, net: Net, k: int) -> bool:
        return True


class LostStoreHeard(Driver):
    """What a lost store has said before is heard after it was declared lost."""

    def deaf(self, net: Net, m: Msg) -> bool:
        return False


class DeclaredAlive(Driver):
    """A store is declared lost that is not."""

    def alone(self, i: int, net: Net) -> Iterator[Change]:
        yield from super().alone(i, net)
        if i == HOME and not net.banned:
            yield Change(net._replace(banned=True), (), "A's operator declares the store of B lost")


class HomeBeginsAsOwner(Driver):
    """Home, whose disk is gone, begins with an empty one and owns everything, whatever its journal says."""

    def may_begin_anew(self, net: Net) -> bool:
        return True


class OlderCopyServed(Driver):
    """Home, whose disk is gone, goes on with an older copy of it."""

    blind = ("I2",)

    def alone(self, i: int, net: Net) -> Iterator[Change]:
        yield from super().alone(i, net)
        if i == HOME and net.aside is None and not net.down:
            yield Change(net._replace(aside=(net.rows, net.copies)), (), "A's disk is copied")
        if net.down and net.aside is not None:
            rows, copies = net.aside
            yield Change(net._replace(rows=rows, copies=copies, down=False), (), "A goes on with the copy")


class UnequalAccepted(Driver):
    """A copy is taken over though its digest is not the giver's."""

    blind = ("I4",)

    def equal(self, results: Sequence[Content | None], body: Sequence[Content | None]) -> bool:
        return True


class ExceptedForgotten(Driver):
    """A grant of `*p` does not name the UEs that stay."""

    def excepted(self, net: Net) -> tuple[int, ...]:
        return ()


class ExceptedNotKept(Driver):
    """Who takes `*p` writes no rows for the UEs that stay."""

    def unfolded(self, net: Net, m: Msg) -> Unfold | bytes:
        change = super().unfolded(net, m)
        return change if isinstance(change, bytes) else Unfold(change.dropped, {})


class ExceptedNotSetApart(Driver):
    """Who refuses a grant of `*p` writes no rows for the UEs that stay."""

    def rows_refusing(self, net: Net, m: Msg) -> Rows:
        return net.rows if m.kind == "GRANT" else super().rows_refusing(net, m)


class ExceptedNotInRecall(Driver):
    """RECALL of `*p` does not name the UEs that stay."""

    def rows_refusing(self, net: Net, m: Msg) -> Rows:
        return net.rows if m.kind == "RECALL" else super().rows_refusing(net, m)


class FoldWithoutFloor(Driver):
    """`*p` is granted at its own next epoch, below that of a UE folded into it."""

    blind = ("I3: an epoch falls",)

    def folded(self, net: Net, stay: frozenset[bytes]) -> Fold:
        f = super().folded(net, stay)
        return Fold(0, f.dropped, f.kept, f.excepted)


class GrantedRowInTheWay(Driver):
    """A GRANTED row whose answer was lost is taken for a contradiction when its UE comes back with `*p`."""

    def unfolded(self, net: Net, m: Msg) -> Unfold | bytes:
        own = own_rows(net)
        in_doubt = (k for k in own.keys() - {key_bytes(k) for k in m.excepted} if own[k].state is _G)
        return next(in_doubt, None) or super().unfolded(net, m)


class TakesAfterAbort(Driver):
    """A grant is taken for a migration that is aborted here."""

    def may_take(self, net: Net, mig: str) -> bool:
        return True


class GivesAfterAbort(Driver):
    """A key is held or granted for a migration that is aborted here."""

    def may_give(self, net: Net, mig: str) -> bool:
        return True


class RebornAnswers(Driver):
    """A network that has lost its disk answers for the one that it had."""

    blind = ("I2",)

    def to_this_store(self, net: Net) -> bool:
        return True


class LateChunkOnOwned(Driver):
    """A late frame of the copy replaces what the owner has."""

    def may_replace(self, row: Row) -> bool:
        return row.state is not _G


class LateChunkOnGranted(Driver):
    """A late frame of the copy replaces what the giver keeps until it has an answer."""

    def may_replace(self, row: Row) -> bool:
        return row.state is not _O


# ---------------------------------------------------------------------------------------- twins in sync mode


class SyncedWhenFenced(SyncWorld):
    """Home says SYNCED for an epoch that it has fenced or taken back."""

    table = instead(
        "sync-over-owned", lambda r, v, e: Step(r, v, (o.SendSynced(e.peer, e.x),), "synced, though it is over")
    )


class AnswersBeforeSynced(SyncWorld):
    """The target answers 2xx before home has the unit."""

    def acks_at_commit(self) -> bool:
        return True


class ReclaimsInLease(SyncWorld):
    """Home takes the key back without waiting the read lease out."""

    def reclaims(self, s: State) -> bool:
        return True


class ReadsWithoutLease(SyncWorld):
    """The target answers reads without a lease."""

    def reads(self, s: State) -> bool:
        return super().reads(s._replace(lease=True))


class ReclaimsSameEpoch(SyncWorld):
    """Home takes the key back at the epoch that it fenced."""

    table = instead("reclaim-foreign", _take_back_at(0))
    blind = ("alarm",)


class FenceInMemory(SyncWorld):
    """Home's fence is kept in memory only."""

    def restart(self, home: Row) -> Row:
        return o.replace_row(home, fenced=False)


class ReclaimsTooLow(SyncWorld):
    """Home, which has refused a return, takes the key back at an epoch that the target may have taken back."""

    table = instead("reclaim-foreign", _take_back_at(1))


class FencedIgnored(SyncWorld):
    """The target does not give up what home has taken back."""

    table = instead("fenced", _nothing)
    blind = ("alarm",)


class SyncedLeavesRow(SyncWorld):
    """Home's row does not follow the epoch that it says SYNCED for."""

    table = instead(
        "sync-foreign",
        lambda r, v, e: Step(r, v, (o.SendSynced(e.peer, e.x),), "synced"),
        guard=lambda r, v, e: e.peer == r.peer and e.x == r.epoch and not r.fenced and not r.refused,
    )


# ------------------------------------------------------------------------------- rules that others cover


class DrainOnly(Driver):
    """A unit's commit does not ask who owns the key (the grant waits for it)."""

    def may_commit(self, net: Net, k: int) -> bool:
        return True


class CommitCheckOnly(Driver):
    """A grant does not wait for open units (their commit asks who owns the key)."""

    def may_drain(self, net: Net, k: int) -> bool:
        return True


class AnswersOfAnybody(Driver):
    """An answer is believed whoever gives it (an epoch has one grantee)."""

    table = instead("refused", guard=lambda r, v, e: e.x == r.epoch)


class LogFollowsAnything(Driver):
    """A log entry is applied to a copy that it does not follow (the digest of the next grant tells)."""

    def followed(self, copy: Content, prev: Content, new: Content) -> Content:
        return copy + new[len(prev) :] if len(copy) < len(new) else copy


class UnfoldUnchecked(Driver):
    """The taker of `*p` does not check the rows that it deletes (the giver's list is right)."""

    def unfolded(self, net: Net, m: Msg) -> Unfold | bytes:
        rows, stay = own_rows(net), [key_bytes(k) for k in m.excepted]
        return Unfold(frozenset(rows).difference(stay), set_apart(effective(net, STAR), rows, stay))
