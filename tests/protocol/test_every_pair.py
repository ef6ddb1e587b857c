"""Every state, every event, and every combination of the facts that a decision may depend on, against what is expected.

EXPECTED is written from PROTOCOL.md §1-§3 and §8, not from the table: which facts lead to which row and to which
commands. Facts that a line does not name must make no difference. Exactly one line fits each combination that does
anything; where no line fits, nothing may change.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import pytest

from outrider.protocol import ownership as o
from outrider.protocol.ownership import NO_VOL, OWNERSHIP, Held, Ownership, Row, Vol

# state   | event     | facts                       | row after | volatile   | commands
EXPECTED = """
  OWNED   | Want      | for-peer                    | same      | same       | -
  OWNED   | Want      | -for-peer -proved           | same      | same       | not-owner(ARRIVAL_NOT_PROVED)
  OWNED   | Want      | -for-peer proved -allowed   | same      | same       | not-owner()
  OWNED   | Want      | held -for-peer proved allowed | same    | same       | not-owner(HELD_FOR_ANOTHER)
  OWNED   | Want      | -held proved allowed        | same      | held       | hold
  GRANTED | Want      | by-peer                     | same      | same       | -
  GRANTED | Want      | -by-peer                    | same      | same       | not-owner()
  FOREIGN | Want      | any                         | same      | same       | not-owner()

  OWNED   | Drained   | held in-time -aborted       | given     | none       | grant
  OWNED   | Drained   | held -in-time               | same      | not-held   | release put-off
  OWNED   | Drained   | held in-time aborted        | same      | not-held   | release put-off
  OWNED   | HoldEnded | held                        | same      | not-held   | release put-off
  OWNED   | Aborted   | held-for-it                 | same      | not-held   | release put-off
  GRANTED | Aborted   | own-mig                     | same      | same       | recall

  GRANTED | Resend    | -aborted                    | same      | same       | grant-again
  GRANTED | Resend    | aborted                     | same      | same       | recall
  GRANTED | Accepted  | by-peer equal -fenced       | settled   | none       | shadow
  GRANTED | Accepted  | by-peer above -fenced       | settled   | none       | shadow
  GRANTED | Refused   | by-peer equal -fenced       | back      | none       | release
  GRANTED | Need      | by-peer equal               | same      | same       | grant-whole

  OWNED   | Grant     | -here                       | same      | same       | store-lost
  GRANTED | Grant     | -here                       | same      | same       | store-lost
  FOREIGN | Grant     | -here                       | same      | same       | store-lost
  OWNED   | Grant     | here below                  | same      | same       | accepted-before
  OWNED   | Grant     | here equal                  | same      | same       | accepted-before
  OWNED   | Grant     | here above                  | same      | same       | alarm
  GRANTED | Grant     | here below                  | same      | same       | accepted-before
  GRANTED | Grant     | here equal                  | same      | same       | accepted-before
  GRANTED | Grant     | here above -admitted -wrong | refused   | not-wanted | refused(cause) forward
  GRANTED | Grant     | here above wrong            | refused   | not-wanted | refused(DIGEST_MISMATCH) forward alarm
  GRANTED | Grant     | here above admitted need    | same      | same       | need
  GRANTED | Grant     | here above admitted fits    | taken     | none       | install accepted release
  FOREIGN | Grant     | here below                  | same      | same       | accepted-before
  FOREIGN | Grant     | here equal -refused         | same      | same       | accepted-before
  FOREIGN | Grant     | here equal refused          | same      | same       | refused(REFUSED_BEFORE)
  FOREIGN | Grant     | here above -admitted -wrong | refused   | not-wanted | refused(cause) forward
  FOREIGN | Grant     | here above wrong            | refused   | not-wanted | refused(DIGEST_MISMATCH) forward alarm
  FOREIGN | Grant     | here above admitted need    | same      | same       | need
  FOREIGN | Grant     | here above admitted fits    | taken     | none       | install accepted release

  OWNED   | Recall    | -here                       | same      | same       | store-lost
  GRANTED | Recall    | -here                       | same      | same       | store-lost
  FOREIGN | Recall    | -here                       | same      | same       | store-lost
  OWNED   | Recall    | here below                  | same      | same       | accepted-before
  OWNED   | Recall    | here equal                  | same      | same       | accepted-before
  OWNED   | Recall    | here above                  | same      | same       | alarm
  GRANTED | Recall    | here below                  | same      | same       | accepted-before
  GRANTED | Recall    | here equal                  | same      | same       | accepted-before
  GRANTED | Recall    | here above                  | refused   | not-wanted | refused(RECALLED) forward
  FOREIGN | Recall    | here below                  | same      | same       | accepted-before
  FOREIGN | Recall    | here equal -refused         | same      | same       | accepted-before
  FOREIGN | Recall    | here equal refused          | same      | same       | refused(REFUSED_BEFORE)
  FOREIGN | Recall    | here above                  | refused   | not-wanted | refused(RECALLED) forward

  FOREIGN | Demand    | -wanted known               | same      | wanted     | want
  FOREIGN | NotOwner  | any                         | same      | not-wanted | forward

  OWNED   | Synced    | equal -synced               | same      | synced     | release
  OWNED   | Fenced    | equal                       | lost      | none       | drop-tail forward
  GRANTED | SyncAsked | -fenced by-peer equal       | asked     | none       | synced
  GRANTED | SyncAsked | -fenced by-peer above       | asked     | none       | synced
  FOREIGN | SyncAsked | -fenced by-peer equal       | asked     | none       | synced
  FOREIGN | SyncAsked | -fenced by-peer above       | asked     | none       | synced
  OWNED   | SyncAsked | below                       | same      | same       | fenced
  GRANTED | SyncAsked | -fenced below               | same      | same       | fenced
  FOREIGN | SyncAsked | -fenced below               | same      | same       | fenced
  GRANTED | SyncAsked | fenced                      | same      | same       | fenced
  FOREIGN | SyncAsked | fenced                      | same      | same       | fenced
  GRANTED | Fence     | any                         | fenced    | same       | -
  FOREIGN | Fence     | any                         | fenced    | same       | -
  GRANTED | LeaseOut  | fenced                      | reclaimed | none       | release
  FOREIGN | LeaseOut  | fenced                      | reclaimed | none       | release
  GRANTED | DeclaredLost | by-peer                  | reclaimed | none       | release
  FOREIGN | DeclaredLost | by-peer                  | reclaimed | none       | release
"""

OWNED, GRANTED, FOREIGN = Ownership.OWNED, Ownership.GRANTED, Ownership.FOREIGN
EPOCH = 5


def _x(relation: Callable[[int, int], bool]) -> Callable[[Row, Vol, Any], bool]:
    return lambda row, vol, e: relation(e.x, row.epoch)


FACTS: dict[str, Callable[[Row, Vol, Any], bool]] = {
    "any": lambda row, vol, e: True,
    "held": lambda row, vol, e: vol.held is not None,
    "held-for-it": lambda row, vol, e: vol.held is not None and vol.held.mig == e.mig,
    "for-peer": lambda row, vol, e: vol.held is not None and vol.held.peer == e.peer,
    "wanted": lambda row, vol, e: vol.wanted,
    "synced": lambda row, vol, e: vol.synced,
    "refused": lambda row, vol, e: row.refused,
    "fenced": lambda row, vol, e: row.fenced,
    "known": lambda row, vol, e: row.peer is not None,
    "own-mig": lambda row, vol, e: row.mig == e.mig,
    "by-peer": lambda row, vol, e: e.peer == row.peer,
    "proved": lambda row, vol, e: e.proved,
    "allowed": lambda row, vol, e: e.allowed,
    "in-time": lambda row, vol, e: e.in_time,
    "aborted": lambda row, vol, e: e.aborted,
    "here": lambda row, vol, e: e.to_this_store,
    "admitted": lambda row, vol, e: e.admitted,
    "fits": lambda row, vol, e: e.fit == "fits",
    "need": lambda row, vol, e: e.fit == "need",
    "wrong": lambda row, vol, e: e.fit == "wrong",
    "below": _x(lambda x, epoch: x < epoch),
    "equal": _x(lambda x, epoch: x == epoch),
    "above": _x(lambda x, epoch: x > epoch),
}


def _held(vol: Vol) -> Held:
    assert vol.held is not None
    return vol.held


ROWS: dict[str, Callable[[Row, Vol, Any], Row]] = {
    "same": lambda row, vol, e: row,
    "given": lambda row, vol, e: Row(GRANTED, max(row.epoch, e.floor) + 1, _held(vol).peer, mig=_held(vol).mig),
    "taken": lambda row, vol, e: Row(OWNED, e.x, mig=e.mig),
    "refused": lambda row, vol, e: Row(FOREIGN, e.x, e.peer, refused=True, mig=e.mig or row.mig),
    "settled": lambda row, vol, e: Row(FOREIGN, row.epoch, row.peer, mig=row.mig),
    "back": lambda row, vol, e: Row(OWNED, row.epoch + 1, mig=row.mig),
    "asked": lambda row, vol, e: Row(FOREIGN, e.x, e.peer, mig=row.mig),
    "fenced": lambda row, vol, e: Row(row.state, row.epoch, row.peer, row.refused, True, row.mig),
    "reclaimed": lambda row, vol, e: Row(OWNED, row.epoch + (2 if row.refused else 1), mig=row.mig),
    "lost": lambda row, vol, e: Row(FOREIGN, row.epoch, e.peer, mig=row.mig),
}
VOLATILE: dict[str, Callable[[Vol, Any], Vol]] = {
    "same": lambda vol, e: vol,
    "none": lambda vol, e: NO_VOL,
    "held": lambda vol, e: Vol(Held(e.peer, e.mig), vol.wanted, vol.synced),
    "not-held": lambda vol, e: Vol(None, vol.wanted, vol.synced),
    "wanted": lambda vol, e: Vol(vol.held, True, vol.synced),
    "not-wanted": lambda vol, e: Vol(vol.held, False, vol.synced),
    "synced": lambda vol, e: Vol(vol.held, vol.wanted, True),
}


def _owner(row: Row) -> str | None:
    return None if row.state is OWNED else row.peer


class Case(NamedTuple):
    """What went in, and the row that is expected after it."""

    row: Row
    vol: Vol
    event: Any
    after: Row


COMMANDS: dict[str, Callable[[Case], object]] = {
    "hold": lambda c: o.Hold(),
    "release": lambda c: o.Release(),
    "install": lambda c: o.Install(),
    "shadow": lambda c: o.BecomeShadow(),
    "drop-tail": lambda c: o.DropTail(),
    "alarm": lambda c: o.Alarm,
    "grant": lambda c: o.SendGrant(_held(c.vol).peer, c.after.epoch),
    "grant-again": lambda c: o.SendGrant(str(c.row.peer), EPOCH),
    "grant-whole": lambda c: o.SendGrant(c.event.peer, EPOCH, full=True),
    "recall": lambda c: o.SendRecall(str(c.row.peer), EPOCH),
    "accepted": lambda c: o.SendAccepted(c.event.peer, c.event.x, c.event.x, None),
    "accepted-before": lambda c: o.SendAccepted(c.event.peer, c.event.x, EPOCH, _owner(c.row)),
    "refused(cause)": lambda c: o.SendRefused(c.event.peer, c.event.x, c.event.cause),
    "refused(RECALLED)": lambda c: o.SendRefused(c.event.peer, c.event.x, "RECALLED"),
    "refused(REFUSED_BEFORE)": lambda c: o.SendRefused(c.event.peer, c.event.x, "REFUSED_BEFORE"),
    "refused(DIGEST_MISMATCH)": lambda c: o.SendRefused(c.event.peer, c.event.x, "DIGEST_MISMATCH"),
    "need": lambda c: o.SendNeed(c.event.peer, c.event.x),
    "store-lost": lambda c: o.StoreLost(c.event.peer),
    "not-owner()": lambda c: o.SendNotOwner(c.event.peer, EPOCH, _owner(c.row)),
    "not-owner(ARRIVAL_NOT_PROVED)": lambda c: o.SendNotOwner(c.event.peer, EPOCH, _owner(c.row), "ARRIVAL_NOT_PROVED"),
    "not-owner(HELD_FOR_ANOTHER)": lambda c: o.SendNotOwner(c.event.peer, EPOCH, None, "HELD_FOR_ANOTHER"),
    "put-off": lambda c: o.SendNotOwner(_held(c.vol).peer, EPOCH, None, "RELOCATION_PUT_OFF"),
    "want": lambda c: o.SendWant(str(c.row.peer), c.event.mig),
    "forward": lambda c: o.ForwardQueue(c.event.peer),
    "synced": lambda c: o.SendSynced(c.event.peer, c.event.x),
    "fenced": lambda c: o.SendFenced(c.event.peer, c.event.x),
}


class Line(NamedTuple):
    """One line of EXPECTED."""

    state: str
    event: str
    facts: tuple[str, ...]
    row: str
    vol: str
    commands: tuple[str, ...]

    def fits(self, row: Row, vol: Vol, event: Any) -> bool:
        return all(FACTS[fact.removeprefix("-")](row, vol, event) is not fact.startswith("-") for fact in self.facts)


def _lines() -> Iterator[Line]:
    for text in filter(str.strip, EXPECTED.splitlines()):
        state, event, facts, row, vol, commands = (column.strip() for column in text.split("|"))
        yield Line(state, event, tuple(facts.split()), row, vol, tuple(c for c in commands.split() if c != "-"))


LINES = list(_lines())
BOTH = (True, False)
MIGS, PEERS, XS = ("m", "other"), ("P", "Q"), (EPOCH - 1, EPOCH, EPOCH + 1)

ROWS_TRIED = [
    *(Row(OWNED, EPOCH, mig=mig) for mig in MIGS),
    *(Row(GRANTED, EPOCH, "P", fenced=f, mig=mig) for f, mig in product(BOTH, MIGS)),
    *(Row(FOREIGN, EPOCH, peer, r, f, mig) for peer, r, f, mig in product(("P", None), BOTH, BOTH, MIGS)),
]
VOLS_TRIED = [Vol(h, w, s) for h, w, s in product((None, Held("P", "m"), Held("Q", "other")), BOTH, BOTH)]
EVENTS_TRIED: list[Any] = [
    *(o.Want(*facts) for facts in product(PEERS, MIGS, BOTH, BOTH)),
    *(o.Drained(*facts) for facts in product(BOTH, BOTH, (0, EPOCH + 3))),
    o.HoldEnded(),
    *(
        o.Grant(peer, x, mig, fit, here, admitted, "NO_ROOM")  # type: ignore[arg-type]
        for peer, x, mig, fit, here, admitted in product(PEERS, XS, MIGS, ("fits", "need", "wrong"), BOTH, BOTH)
    ),
    *(o.Recall(peer, x, mig, here) for peer, x, mig, here in product(PEERS, XS, ("", "m"), BOTH)),
    *(o.Accepted(*facts) for facts in product(PEERS, XS)),
    *(o.Refused(*facts, "NO_ROOM") for facts in product(PEERS, XS)),
    *(o.Need(*facts) for facts in product(PEERS, XS)),
    *(o.Resend(aborted) for aborted in BOTH),
    *(o.Aborted(mig) for mig in MIGS),
    *(o.Demand(mig) for mig in MIGS),
    *(o.NotOwner(*facts) for facts in product(PEERS, XS)),
    *(o.Synced(x) for x in XS),
    *(o.SyncAsked(*facts) for facts in product(PEERS, XS)),
    o.Fence(),
    o.LeaseOut(),
    *(o.DeclaredLost(peer) for peer in PEERS),
    *(o.Fenced(*facts) for facts in product(PEERS, XS)),
]
KINDS = list(dict.fromkeys(type(e) for e in EVENTS_TRIED))


def test_every_event_of_the_table_is_tried() -> None:
    assert set(KINDS) == {rule.on for rule in OWNERSHIP.rules}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("state", Ownership, ids=lambda state: state.name)
def test_pair(state: Ownership, kind: type) -> None:
    lines = [line for line in LINES if (line.state, line.event) == (state.name, kind.__name__)]
    used = set()
    rows = [row for row in ROWS_TRIED if row.state is state]
    for row, vol, event in product(rows, VOLS_TRIED, [e for e in EVENTS_TRIED if type(e) is kind]):
        step = OWNERSHIP.step(row, vol, event)
        fitting = [line for line in lines if line.fits(row, vol, event)]
        assert len(fitting) <= 1, f"two expectations for {row} {vol} {event}: {fitting}"
        if not fitting:
            assert (step.row, step.vol, step.commands) == (row, vol, ()), (row, vol, event)
            continue
        line = fitting[0]
        used.add(line)
        after = ROWS[line.row](row, vol, event)
        assert step.row == after, (row, vol, event, step.why)
        assert step.vol == VOLATILE[line.vol](vol, event), (row, vol, event, step.why)
        expected = [COMMANDS[name](Case(row, vol, event, after)) for name in line.commands]
        found = [type(c) if isinstance(c, o.Alarm) else c for c in step.commands]
        assert sorted(map(repr, found)) == sorted(map(repr, expected)), (row, vol, event, step.why)
        assert step.why
    assert used == set(lines), f"never met: {set(lines) - used}"


def test_an_event_that_is_none_changes_nothing() -> None:
    for row, vol in product(ROWS_TRIED, VOLS_TRIED):
        step = OWNERSHIP.step(row, vol, object())
        assert (step.row, step.vol, step.commands, step.why) == (row, vol, (), "nothing to do")
