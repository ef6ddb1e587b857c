"""Every (role, phase, event) of the migration machine, against a table written by hand."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.protocol import migration as m
from outrider.protocol.migration import MIGRATION, RULES
from outrider.protocol.phase import (
    ENDS,
    Command,
    Ending,
    Fact,
    Phase,
    Role,
    Row,
    demands,
    may_clear,
    may_have_moved,
    over,
    waiting_for,
)

P, F, C = Phase, Fact, Command
WHY = Ending("CAUSE", "somebody says so", "999-71")

SHORT = {
    "PM": P.PERMITTING, "PR": P.PREPARING, "CO": P.COPYING, "RL": P.RELOCATING, "SE": P.SETTLED, "RN": P.RETURNING,
    "AG": P.ABORTING, "RD": P.RETIRED, "AD": P.ABORTED,
}  # fmt: skip

EVENTS: dict[str, Any] = {
    "Begin": m.Begin(), "Resume": m.Resume(), "agreed": m.OfferJudged(), "refused": m.OfferJudged(WHY),
    "permitted": m.Judged(), "forbidden": m.Judged(WHY), "Prepared": m.Prepared(), "CopyDurable": m.CopyDurable(),
    "AllMoved": m.AllMoved(), "ReturnAsked": m.ReturnAsked(WHY), "TermsEnded": m.TermsEnded(WHY),
    "StopAsked": m.StopAsked(WHY), "DeclaredLost": m.DeclaredLost(WHY), "Failed": m.Failed(WHY),
    "Stopped": m.Stopped(), "Decided": m.Decided(), "Receiving": m.Receiving(),
    "Empty": m.Empty(), "Whole": m.Whole(), "Cleared": m.Cleared(), "Closed": m.Closed(),
    "PeerForgot": m.PeerForgot(), "PeerSilent": m.PeerSilent(),
} | {f"peer {phase.value}": m.PeerIs(phase) for phase in Phase}  # fmt: skip

# Columns are the phases in their order. A dot: the row stays as it is (but for what the partner said). Two letters:
# the phase entered. +FACT: the fact is added.
SOURCE = """
                 NEGOT    PERMIT        PREPAR COPYING RELOC SETTL RETURNING  ABORTING   RETIRED ABORTED
Begin            .        .             .      .       .     .     .          .          .       .
Resume           .        .             .      .       .     .     .          .          .       .
agreed           PM       .             .      .       .     .     .          .          .       .
refused          AD+HOME  .             .      .       .     .     .          .          .       .
permitted        .        PR+PERMITTED  .      .       .     .     .          .          .       .
forbidden        .        AG            .      .       .     .     .          .          .       .
Prepared         .        .             .      .       .     .     .          .          .       .
CopyDurable      .        .             .      RL      .     .     .          .          .       .
AllMoved         .        .             .      .       SE    .     .          .          .       .
ReturnAsked      .        .             .      RN      RN    RN    .          .          .       .
TermsEnded       AG       AG            AG     RN      RN    RN    .          .          .       .
StopAsked        AG       AG            AG     AG      AG    AG    AG         .          .       .
DeclaredLost     .        .             .      AG+LOST AG+LOST AG+LOST AG+LOST +LOST     .       .
Failed           AG       AG            AG     AG      AG    AG    AG         .          .       .
Stopped          .        .             .      .       .     .     .          +STOPPED   .       .
Decided          .        .             .      .       .     .     .          .          .       .
Receiving        .        .             .      .       .     .     +RECEIVING +RECEIVING .       .
Empty            .        .             .      .       .     .     .          .          .       .
Whole            .        .             .      .       .     .     .          .          .       .
Cleared          .        .             .      .       .     .     .          .          .       .
Closed           .        .             .      .       .     .     .          .          +CLOSED .
PeerForgot       .        AG            AG     AG      .     .     .          .          .       .
PeerSilent       .        .             .      .       .     .     .          .          .       .
peer_NEGOTIATING .        .             .      .       .     .     .          .          .       .
peer_PERMITTING  .        .             .      .       .     .     .          .          .       .
peer_PREPARING   .        .             .      .       .     .     .          .          .       .
peer_COPYING     .        .             .      .       .     .     .          .          .       .
peer_RELOCATING  .        .             .      .       .     .     .          .          .       .
peer_SETTLED     .        .             .      .       .     .     .          .          .       .
peer_RETURNING   .        .             .      RN      RN    RN    .          .          .       .
peer_ABORTING    AG       AG            AG     AG      AG    AG    AG         .          .       .
peer_RETIRED     .        .             .      .       .     .     .          .          .       .
peer_ABORTED     AG       AG            AG     AG      AG    AG    AG         .          .       .
"""

TARGET = """
                 NEGOT       PERMIT      PREPAR     COPYING RELOC SETTL RETURNING ABORTING  RETIRED  ABORTED
Begin            .           .           .          .       .     .     .         .         .        .
Resume           .           .           .          .       .     .     .         .         .        .
agreed           PM          .           .          .       .     .     .         .         .        .
refused          AD+CLEARED  .           .          .       .     .     .         .         .        .
permitted        .           +PERMITTED  .          .       .     .     .         .         .        .
forbidden        .           AG          .          .       .     .     .         .         .        .
Prepared         .           .           +PREPARED  .       .     .     .         .         .        .
CopyDurable      .           .           .          .       .     .     .         .         .        .
AllMoved         .           .           .          .       .     .     .         .         .        .
ReturnAsked      .           .           .          RN      RN    RN    .         .         .        .
TermsEnded       AG          AG          AG         RN      RN    RN    .         .         .        .
StopAsked        AG          AG          AG         AG      AG    AG    AG        .         .        .
DeclaredLost     .           .           .          .       .     .     .         .         .        .
Failed           AG          AG          AG         AG      AG    AG    AG        .         .        .
Stopped          .           .           .          .       .     .     .         +STOPPED  .        .
Decided          .           .           .          .       .     .     .         .         .        .
Receiving        .           .           .          .       .     .     .         .         .        .
Empty            .           .           .          .       .     .     +RETURNED +RETURNED .        .
Whole            .           .           .          .       .     .     .         .         .        .
Cleared          .           .           .          .       .     .     .         .         +CLEARED .
Closed           .           .           .          .       .     .     .         .         .        .
PeerForgot       .           AG          AG         AG      .     .     .         .         .        .
PeerSilent       .           .           .          .       .     .     .         .         .        .
peer_NEGOTIATING .           .           .          .       .     .     .         .         .        .
peer_PERMITTING  .           .           .          .       .     .     .         .         .        .
peer_PREPARING   AG          AG          .          .       .     .     .         .         .        .
peer_COPYING     AG          AG          AG         .       .     .     .         .         .        .
peer_RELOCATING  AG          AG          AG         RL      .     .     .         .         .        .
peer_SETTLED     AG          AG          AG         SE      SE    .     .         .         .        .
peer_RETURNING   AG          AG          AG         RN      RN    RN    .         .         .        .
peer_ABORTING    AG          AG          AG         AG      AG    AG    AG        .         .        .
peer_RETIRED     AG          AG          AG         .       .     .     .         .         .        .
peer_ABORTED     AG          AG          AG         AG      AG    AG    AG        .         .        .
"""

HOME = """
                 NEGOT    PERMIT        PREPAR COPYING RELOC SETTL RETURNING  ABORTING   RETIRED ABORTED
Begin            .        .             .      .       .     .     .          .          .       .
Resume           .        .             .      .       .     .     .          .          .       .
agreed           PM       .             .      .       .     .     .          .          .       .
refused          AD+HOME  .             .      .       .     .     .          .          .       .
permitted        .        PR+PERMITTED  .      .       .     .     .          .          .       .
forbidden        .        AG            .      .       .     .     .          .          .       .
Prepared         .        .             .      .       .     .     .          .          .       .
CopyDurable      .        .             .      RL      .     .     .          .          .       .
AllMoved         .        .             .      .       SE    .     .          .          .       .
ReturnAsked      .        .             .      RN      RN    RN    .          .          .       .
TermsEnded       AG       AG            AG     RN      RN    RN    .          .          .       .
StopAsked        AG       AG            AG     AG      AG    AG    AG         .          .       .
DeclaredLost     .        .             .      .       .     .     .          .          .       .
Failed           AG       AG            AG     AG      AG    AG    AG         .          .       .
Stopped          .        .             .      .       .     .     .          +STOPPED   .       .
Decided          .        .             .      .       .     .     .          .          .       .
Receiving        .        .             .      .       .     .     +RECEIVING +RECEIVING .       .
Empty            .        .             .      .       .     .     .          .          .       .
Whole            .        .             .      .       .     .     .          .          .       .
Cleared          .        .             .      .       .     .     .          .          .       .
Closed           .        .             .      .       .     .     .          .          +CLOSED .
PeerForgot       .        AG            AG     AG      .     .     .          .          .       .
PeerSilent       .        .             .      .       .     .     .          .          .       .
peer_NEGOTIATING .        .             .      .       .     .     .          .          .       .
peer_PERMITTING  .        .             .      .       .     .     .          .          .       .
peer_PREPARING   .        .             .      .       .     .     .          .          .       .
peer_COPYING     .        .             .      .       .     .     .          .          .       .
peer_RELOCATING  .        .             .      .       .     .     .          .          .       .
peer_SETTLED     .        .             .      .       .     .     .          .          .       .
peer_RETURNING   .        .             .      RN      RN    RN    .          .          .       .
peer_ABORTING    AG       AG            AG     AG      AG    AG    AG         .          .       .
peer_RETIRED     .        .             .      .       .     .     .          .          .       .
peer_ABORTED     AG       AG            AG     AG      AG    AG    AG         .          .       .
"""

GIVER = """
                 NEGOT      PERMIT     PREPAR     COPYING    RELOC      SETTL     RETURNING  ABORTING   RETIRED  ABORTED
Begin            .          .          .          .          .          .          .          .          .          .
Resume           .          .          .          .          .          .          .          .          .          .
agreed           PM         .          .          .          .          .          .          .          .          .
refused          AD+DECIDED .          .          .          .          .          .          .          .          .
permitted        .          +PERMITTED .          .          .          .          .          .          .          .
forbidden        .          AG         .          .          .          .          .          .          .          .
Prepared         .          .          +PREPARED  .          .          .          .          .          .          .
CopyDurable      .          .          .          +COPIED    .          .          .          .          .          .
AllMoved         .          .          .          .          +MOVED     .          .          .          .          .
ReturnAsked      .          .          .          RN         RN         RN         .          .          .          .
TermsEnded       AG         AG         AG         RN         RN         RN         .          .          .          .
StopAsked        AG         AG         AG         AG         AG         AG         AG         .          .          .
DeclaredLost     .          .          .          .          .          .          .          .          .          .
Failed           AG         AG         AG         AG         AG         AG         AG         .          .          .
Stopped          .          .          .          .          .          .          +STOPPED   +STOPPED   .          .
Decided          .          .          .          .          .          .          +DECIDED   +DECIDED   .          .
Receiving        .          .          .          .          .          .          .          .          .          .
Empty            .          .          .          .          .          .          .          .          .          .
Whole            .          .          .          .          .          .          .          .          .          .
Cleared          .          .          .          .          .          .          .          .          .          .
Closed           .          .          .          .          .          .          .          .          .          .
PeerForgot       .          AG         AG         AG         .          .          .          .          .          .
PeerSilent       .          .          .          .          .          .          .          .          .          .
peer_NEGOTIATING .          .          .          .          .          .          .          .          .          .
peer_PERMITTING  .          .          .          .          .          .          .          .          .          .
peer_PREPARING   AG         AG         .          .          .          .          .          .          .          .
peer_COPYING     AG         AG         AG         .          .          .          .          .          .          .
peer_RELOCATING  AG         AG         AG         RL         .          .          .          .          .          .
peer_SETTLED     AG         AG         AG         SE         SE         .          .          .          .          .
peer_RETURNING   AG         AG         AG         RN         RN         RN         .          .          .          .
peer_ABORTING    AG         AG         AG         AG         AG         AG         AG         .          .          .
peer_RETIRED     AG         AG         AG         .          .          .          .          .          .          .
peer_ABORTED     AG         AG         AG         AG         AG         AG         AG         .          .          .
"""


TABLES = {Role.SOURCE: SOURCE, Role.TARGET: TARGET, Role.HOME: HOME, Role.GIVER: GIVER}


def at(role: Role, phase: Phase, *facts: Fact, peer_facts: tuple[Fact, ...] = (), **more: Any) -> Row:
    """A row as it plainly is when a side has come to a phase."""
    mine, theirs = set(facts), set(peer_facts)
    giver = {F.PREPARED} if role is Role.HOME and phase.rank >= P.COPYING.rank else set()
    if phase.rank >= P.PREPARING.rank:
        mine.add(F.PERMITTED)
    if phase.rank >= P.COPYING.rank:
        (theirs if role.leads else mine).add(F.PREPARED)
    if phase is P.RETIRED:
        (theirs if role.leads else mine).add(F.RETURNED if role is not Role.GIVER else F.DECIDED)
        (mine if role.leads else theirs).update({F.RECEIVING, F.HOME})
    ended = phase in (P.RETURNING, P.ABORTING, *ENDS)
    fields: dict[str, Any] = {
        "move_all": True,
        "peer": phase,
        "giver_facts": frozenset(giver),
        "ending": msgspec.structs.replace(WHY, phase=P.SETTLED) if ended else None,
    }
    return Row(role, phase=phase, facts=frozenset(mine), peer_facts=frozenset(theirs), **(fields | more))


def _cells(table: str) -> list[tuple[str, Phase, str]]:
    lines = [line.split() for line in table.strip().splitlines()]
    return [(n.replace("_", " "), phase, c) for n, *cells in lines[1:] for phase, c in zip(P, cells, strict=True)]


@pytest.mark.parametrize(
    ("role", "event", "phase", "expected"),
    [(role, *cell) for role, table in TABLES.items() for cell in _cells(table)],
)
def test_every_event_in_every_phase(role: Role, event: str, phase: Phase, expected: str) -> None:
    row = at(role, phase)
    step = MIGRATION.step(row, None, EVENTS[event])
    entered, _, fact = expected.partition("+")
    assert step.row.phase is (SHORT[entered] if entered.strip(".") else phase)
    assert {f.value for f in step.row.facts - row.facts} == ({fact} if fact else set())
    assert step.row.facts >= row.facts


def test_the_tables_have_every_event() -> None:
    for table in TABLES.values():
        assert {name for name, _, _ in _cells(table)} == set(EVENTS)
    assert {type(e) for e in EVENTS.values()} | {m.Overdue} == set(m.EVENTS)


# ---------------------------------------------------------------- what the plain rows above do not show


def go(row: Row, *events: Any) -> Row:
    for event in events:
        row = MIGRATION.step(row, None, event).row
    return row


def test_the_source_copies_when_the_target_is_prepared() -> None:
    row = at(Role.SOURCE, P.PREPARING)
    assert go(row, m.PeerIs(P.PREPARING, frozenset({F.PREPARED}))).phase is P.COPYING
    assert go(row, m.PeerIs(P.PREPARING, frozenset({F.PERMITTED}))).phase is P.PREPARING


def test_the_target_prepares_only_what_it_permits() -> None:
    asked = m.PeerIs(P.PREPARING)
    assert go(at(Role.TARGET, P.PERMITTING, F.PERMITTED), asked).phase is P.PREPARING
    refused = go(at(Role.TARGET, P.PERMITTING), asked)
    assert refused.phase is P.ABORTING
    assert refused.ending is not None
    assert refused.ending.cause == "PARTNER_OUT_OF_ORDER"


@pytest.mark.parametrize("phase", [P.COPYING, P.RELOCATING, P.SETTLED, P.RETURNING])
def test_a_prepared_target_follows_over_phases_that_it_did_not_hear_of(phase: Phase) -> None:
    assert go(at(Role.TARGET, P.PREPARING, F.PREPARED), m.PeerIs(phase)).phase is phase


def test_home_begins_the_copy_when_both_others_are_prepared() -> None:
    prepared = frozenset({F.PREPARED})
    row = at(Role.HOME, P.PREPARING)
    target, giver = m.PeerIs(P.PREPARING, prepared), m.PeerIs(P.PREPARING, prepared, giver=True)
    assert go(row, target).phase is P.PREPARING
    assert go(row, giver).phase is P.PREPARING
    assert go(row, target, giver).phase is go(row, giver, target).phase is P.COPYING


@pytest.mark.parametrize("phase", [P.RETURNING, P.ABORTING])
def test_home_is_whole_only_when_the_target_has_nothing_and_the_giver_gives_nothing(phase: Phase) -> None:
    row = at(Role.HOME, phase, F.STOPPED, F.RECEIVING)
    returned = m.PeerIs(phase, frozenset({F.RETURNED}))
    decided = m.PeerIs(phase, frozenset({F.DECIDED}), giver=True)
    assert C.CHECK_WHOLE not in demands(row)
    assert C.CHECK_WHOLE not in demands(go(row, returned))
    assert C.CHECK_WHOLE not in demands(go(row, decided))
    assert C.CHECK_WHOLE in demands(go(row, returned, decided))


def test_a_giver_that_has_given_nothing_ends_without_the_others() -> None:
    for phase in m.BEFORE:
        row = go(at(Role.GIVER, phase), m.StopAsked(WHY), m.Stopped(), m.Decided())
        assert row.phase is P.ABORTED
    for phase in m.SERVING:
        stopped = go(at(Role.GIVER, phase), m.StopAsked(WHY), m.Stopped(), m.Decided())
        assert stopped.phase is P.ABORTING
        assert go(stopped, m.PeerIs(P.ABORTED)).phase is P.ABORTED


def test_a_giver_stops_its_keeper_first_on_every_way_back() -> None:
    for row in (at(Role.GIVER, P.RETURNING), go(at(Role.GIVER, P.RELOCATING), m.StopAsked(WHY))):
        assert demands(row)[0] is C.STOP_GRANTING
        assert C.CHECK_DECIDED in demands(go(row, m.Stopped()))


def test_a_migration_of_arrivals_never_settles_by_itself() -> None:
    assert go(at(Role.SOURCE, P.RELOCATING, move_all=False), m.AllMoved()).phase is P.RELOCATING


@pytest.mark.parametrize("phase", m.LIVE)
def test_overdue_counts_for_its_own_phase_only(phase: Phase) -> None:
    row = at(Role.SOURCE, phase)
    assert go(row, m.Overdue(phase, WHY)).phase is P.ABORTING
    other = next(p for p in m.LIVE if p is not phase)
    assert go(row, m.Overdue(other, WHY)) == row


def test_the_source_is_whole_only_after_the_target_is_empty() -> None:
    row = at(Role.SOURCE, P.RETURNING, F.RECEIVING)
    assert go(row, m.Whole()).phase is P.RETURNING
    retired = go(row, m.PeerIs(P.RETURNING, frozenset({F.RETURNED})), m.Whole())
    assert retired.phase is P.RETIRED
    assert F.HOME in retired.facts


def test_the_target_retires_only_when_it_is_empty() -> None:
    row = at(Role.TARGET, P.RETURNING)
    assert go(row, m.PeerIs(P.RETIRED)).phase is P.RETURNING
    assert go(row, m.Empty(), m.PeerIs(P.RETIRED)).phase is P.RETIRED


def test_an_abort_that_comes_when_home_is_done_ends_retired() -> None:
    row = go(at(Role.TARGET, P.RETURNING), m.Empty(), m.StopAsked(WHY), m.Stopped())
    assert row.phase is P.ABORTING
    assert go(row, m.PeerIs(P.RETIRED, frozenset({F.HOME}))).phase is P.RETIRED


def test_the_source_ends_its_abort_when_all_is_home_and_the_target_is_clear_in_either_order() -> None:
    row = go(at(Role.SOURCE, P.COPYING), m.StopAsked(WHY), m.Stopped())
    clear = m.PeerIs(P.ABORTED, frozenset({F.CLEARED}))
    assert go(row, m.Whole(), clear).phase is P.ABORTED
    assert go(row, clear, m.Whole()).phase is P.ABORTED
    assert go(row, m.Whole()).phase is P.ABORTING


@pytest.mark.parametrize("event", [m.PeerForgot(), m.PeerSilent()])
def test_a_silent_partner_ends_an_abort_only_when_all_is_home(event: Any) -> None:
    row = go(at(Role.SOURCE, P.SETTLED), m.StopAsked(WHY), m.Stopped())
    assert go(row, event).phase is P.ABORTING
    assert go(row, m.Whole(), event).phase is P.ABORTED


def test_whole_counts_in_an_abort_only_after_the_keeper_has_stopped() -> None:
    row = go(at(Role.SOURCE, P.SETTLED), m.StopAsked(WHY))
    assert F.HOME not in go(row, m.Whole()).facts
    assert F.HOME in go(row, m.Stopped(), m.Whole()).facts


def test_the_target_erases_only_after_home_has_everything() -> None:
    row = go(at(Role.TARGET, P.SETTLED), m.StopAsked(WHY), m.Stopped(), m.Empty())
    assert not may_clear(row)
    assert go(row, m.Cleared()).phase is P.ABORTING
    home = go(row, m.PeerIs(P.ABORTING, frozenset({F.HOME})))
    assert C.CLEAR in demands(home)
    assert go(home, m.Cleared()).phase is P.ABORTED


def test_a_target_that_never_was_prepared_clears_by_itself() -> None:
    row = go(at(Role.TARGET, P.PREPARING), m.Failed(WHY), m.Stopped())
    assert demands(row)[0] is C.CLEAR
    assert go(row, m.Cleared()).phase is P.ABORTED


def test_the_ending_names_the_phase_that_it_met() -> None:
    row = go(at(Role.SOURCE, P.COPYING), m.PeerIs(P.ABORTING, frozenset(), WHY))
    assert row.ending == msgspec.structs.replace(WHY, phase=P.COPYING)


# ------------------------------------------------------------------------------------------ commands


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("phase", P)
def test_a_restart_gives_what_the_row_demands_and_changes_nothing(role: Role, phase: Phase) -> None:
    row = at(role, phase)
    step = MIGRATION.step(row, None, m.Resume())
    assert (step.row, step.commands) == (row, demands(row))


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("phase", m.LIVE)
def test_an_abort_stops_the_own_keeper_before_it_tells_the_partner(role: Role, phase: Phase) -> None:
    step = MIGRATION.step(at(role, phase), None, m.StopAsked(WHY))
    assert step.commands == (C.STOP_GRANTING, C.TELL_PARTNER)


def test_keys_are_taken_back_only_if_they_can_have_moved() -> None:
    for phase in m.LIVE:
        row = go(at(Role.SOURCE, phase), m.StopAsked(WHY), m.Stopped())
        assert (C.TAKE_BACK in demands(row)) == may_have_moved(row) == (phase.rank >= P.COPYING.rank)


def test_what_a_lost_store_had_is_taken_back_by_the_own_keeper_after_it_has_stopped() -> None:
    for phase in (P.COPYING, P.RELOCATING, P.SETTLED, P.RETURNING):
        row = go(at(Role.SOURCE, phase), m.DeclaredLost(WHY))
        assert demands(row) == (C.STOP_GRANTING, C.TELL_PARTNER)
        stopped = go(row, m.Stopped())
        assert demands(stopped) == (C.TELL_PARTNER, C.DECLARE_LOST)
        assert go(stopped, m.Whole()).facts >= {F.HOME, F.LOST}
        assert row.ending == msgspec.structs.replace(WHY, phase=phase)


def test_an_abort_that_waits_for_a_lost_store_gets_its_cause_and_keeps_what_it_met() -> None:
    waiting = go(at(Role.SOURCE, P.SETTLED), m.StopAsked(Ending("OPERATOR_ABORT", "stop")), m.Stopped(), m.Receiving())
    row = go(waiting, m.DeclaredLost(WHY))
    assert (row.phase, row.ending) == (P.ABORTING, msgspec.structs.replace(WHY, phase=P.SETTLED))
    assert C.DECLARE_LOST in demands(row)
    home = go(row, m.Whole())
    assert go(home, m.DeclaredLost(Ending("AGAIN", "too late"))) == home


@pytest.mark.parametrize("role", [Role.SOURCE, Role.HOME, Role.GIVER])
@pytest.mark.parametrize("phase", [P.COPYING, P.RELOCATING])
def test_the_keeper_gives_before_the_partner_hears_of_it(role: Role, phase: Phase) -> None:
    """Else a UE could find the service at the target, ask for its context, and be told that nothing is given."""
    opens = C.START_COPY if phase is P.COPYING else C.RELOCATE
    commands = demands(at(role, phase))
    assert commands.index(opens) < commands.index(C.TELL_PARTNER)


def test_who_arrives_while_the_copy_runs_finds_the_service_at_the_target() -> None:
    assert demands(at(Role.TARGET, P.COPYING))[0] is C.MAKE_DISCOVERABLE
    assert C.MAKE_DISCOVERABLE not in demands(at(Role.TARGET, P.PREPARING, F.PREPARED))


def test_an_abort_of_the_copy_takes_back_who_came_early_before_the_target_erases() -> None:
    row = go(at(Role.SOURCE, P.COPYING), m.StopAsked(WHY), m.Stopped())
    assert demands(row) == (C.TAKE_BACK, C.TELL_PARTNER)
    target = go(at(Role.TARGET, P.COPYING), m.PeerIs(P.ABORTING, frozenset(), WHY), m.Stopped())
    assert not may_clear(target)
    taking = go(target, m.PeerIs(P.ABORTING, frozenset({F.STOPPED, F.RECEIVING})))
    assert demands(taking) == (C.TELL_PARTNER, C.GIVE_BACK, C.CHECK_EMPTY)


def test_an_abort_of_a_copy_from_which_nobody_came_early_needs_no_answer() -> None:
    row = go(at(Role.SOURCE, P.COPYING), m.StopAsked(WHY), m.Stopped(), m.Receiving(), m.Whole(), m.PeerSilent())
    assert row.phase is P.ABORTED


def test_the_target_gives_back_only_when_the_source_takes() -> None:
    for row in (at(Role.TARGET, P.RETURNING), go(at(Role.TARGET, P.SETTLED), m.StopAsked(WHY), m.Stopped())):
        assert C.GIVE_BACK not in demands(row)
        open_ = go(row, m.PeerIs(P.RETURNING if row.phase is P.RETURNING else P.ABORTING, frozenset({F.RECEIVING})))
        assert C.GIVE_BACK in demands(open_)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("phase", P)
def test_every_state_has_a_sentence_and_what_it_waits_for(role: Role, phase: Phase) -> None:
    assert phase.sentence
    assert phase.waiting_for
    assert waiting_for(at(role, phase))


def test_rule_ids_are_unique_and_every_rule_enters_what_it_says() -> None:
    ids = [rule.id for rule in RULES]
    assert len(set(ids)) == len(ids)
    for rule in RULES:
        assert rule.to.rank >= rule.at.rank, rule.id
        assert rule.at not in ENDS or rule.to is rule.at, rule.id


# ---------------------------------------------------------------------------------- any order of events

_facts = st.frozensets(st.sampled_from(Fact))
_events = st.one_of(
    st.sampled_from([e for e in EVENTS.values() if not isinstance(e, m.PeerIs)]),
    st.builds(m.PeerIs, st.sampled_from(Phase), _facts, st.none() | st.just(WHY)),
    st.builds(m.Overdue, st.sampled_from(Phase), st.just(WHY)),
)
FORBIDDEN_BACK = {
    C.SEND_OFFER,
    C.CHECK_PERMISSIONS,
    C.START_COPY,
    C.AWAIT_COPY,
    C.RELOCATE,
    C.AWAIT_MOVED,
    *demands(at(Role.TARGET, P.PREPARING)),
}


@given(st.sampled_from(Role), st.booleans(), st.lists(_events, max_size=40))
def test_whatever_happens(role: Role, move_all: bool, events: list[Any]) -> None:
    row, ends = Row(role, move_all), []
    for event in events:
        step = MIGRATION.step(row, None, event)
        after = step.row
        assert after.phase.rank >= row.phase.rank, "phases never go backwards"
        assert after.facts >= row.facts, "facts are never taken back"
        assert after.role is role
        if row.phase in ENDS:
            assert after.phase is row.phase, "an end is never left"
        elif after.phase in ENDS:
            ends.append(after.phase)
        if after.phase in (P.RETURNING, P.ABORTING, *ENDS):
            assert not FORBIDDEN_BACK & set(step.commands), "nothing new begins on the way back"
            assert after.ending is not None, "it says why"
        if after != row and step.commands:
            assert step.commands == demands(after)
        if after.phase in m.LIVE:
            assert MIGRATION.step(after, None, m.StopAsked(WHY)).row.phase is P.ABORTING, "it can always be stopped"
        assert step.why
        row = after
    assert len(ends) <= 1
    assert not over(row) or row.phase in ENDS


@given(st.sampled_from(Role), st.lists(_events, max_size=25))
def test_hearing_the_same_twice_is_hearing_it_once(role: Role, events: list[Any]) -> None:
    row = Row(role)
    for event in events:
        row = MIGRATION.step(row, None, event).row
        if isinstance(event, m.PeerIs):
            assert MIGRATION.step(row, None, event).row.phase in (row.phase, P.ABORTING, P.RETIRED, P.ABORTED) or (
                MIGRATION.step(row, None, event).row.phase.rank > row.phase.rank
            )
            assert MIGRATION.step(row, None, event).row.peer_facts == row.peer_facts
