"""What holds for every step of the ownership machine, whatever comes in (PROTOCOL.md §1, §3)."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.protocol import ownership as o
from outrider.protocol.ownership import OWNERSHIP, Held, Ownership, Row, Vol, serves
from outrider.protocol.table import Step

OWNED, GRANTED, FOREIGN = Ownership.OWNED, Ownership.GRANTED, Ownership.FOREIGN

peers, migs, epochs, yes = st.sampled_from(("P", "Q")), st.sampled_from(("m", "n")), st.integers(0, 6), st.booleans()
rows = st.one_of(
    st.builds(Row, st.just(OWNED), epochs, mig=st.none() | migs),
    st.builds(Row, st.just(GRANTED), epochs, peers, fenced=yes, mig=migs),
    st.builds(Row, st.just(FOREIGN), epochs, st.none() | peers, yes, yes, st.none() | migs),
)
vols = st.builds(Vol, st.none() | st.builds(Held, peers, migs), yes, yes)
events: st.SearchStrategy[Any] = st.one_of(
    st.builds(o.Want, peers, migs, yes, yes),
    st.builds(o.Drained, yes, yes, epochs),
    st.builds(o.HoldEnded),
    st.builds(o.Grant, peers, epochs, migs, st.sampled_from(("fits", "need", "wrong")), yes, yes),
    st.builds(o.Recall, peers, epochs, migs, yes),
    st.builds(o.Accepted, peers, epochs),
    st.builds(o.Refused, peers, epochs),
    st.builds(o.Need, peers, epochs),
    st.builds(o.Resend, yes),
    st.builds(o.Aborted, migs),
    st.builds(o.Demand, migs),
    st.builds(o.NotOwner, peers, epochs),
    st.builds(o.Synced, epochs),
    st.builds(o.SyncAsked, peers, epochs),
    st.builds(o.Fence),
    st.builds(o.LeaseOut),
    st.builds(o.DeclaredLost, peers),
    st.builds(o.Fenced, peers, epochs),
)
Stepped = Step[Row, Vol]


def _commands(step: Stepped, kind: type) -> list[Any]:
    return [c for c in step.commands if isinstance(c, kind)]


@given(rows, vols, events)
def test_an_epoch_never_falls(row: Row, vol: Vol, event: Any) -> None:
    assert OWNERSHIP.step(row, vol, event).row.epoch >= row.epoch


@given(rows, vols, events)
def test_a_row_changes_only_by_a_decision_of_this_network(row: Row, vol: Vol, event: Any) -> None:
    after = OWNERSHIP.step(row, vol, event).row
    if after == row:
        return
    allowed: dict[tuple[Ownership, Ownership], tuple[type, ...]] = {
        (OWNED, GRANTED): (o.Drained,),
        (OWNED, FOREIGN): (o.Fenced,),
        (GRANTED, OWNED): (o.Refused, o.Grant, o.LeaseOut, o.DeclaredLost),
        (GRANTED, FOREIGN): (o.Accepted, o.Grant, o.Recall, o.SyncAsked),
        (GRANTED, GRANTED): (o.Fence,),
        (FOREIGN, OWNED): (o.Grant, o.LeaseOut, o.DeclaredLost),
        (FOREIGN, FOREIGN): (o.Grant, o.Recall, o.SyncAsked, o.Fence),
    }
    assert isinstance(event, allowed[row.state, after.state])


@given(rows, vols, events)
def test_hearsay_moves_no_epoch(row: Row, vol: Vol, event: Any) -> None:
    if isinstance(event, o.NotOwner | o.Accepted | o.Need | o.Want | o.Demand | o.Synced | o.Fenced | o.Aborted):
        assert OWNERSHIP.step(row, vol, event).row.epoch == row.epoch


@given(rows, vols, events)
def test_what_is_said_stands_in_the_row_that_is_durable_first(row: Row, vol: Vol, event: Any) -> None:
    """A crash between the commit and the message, and a later question, give the same message again."""
    step = OWNERSHIP.step(row, vol, event)
    after = step.row
    for grant in _commands(step, o.SendGrant) + _commands(step, o.SendRecall):
        assert (after.state, after.epoch, after.peer) == (GRANTED, grant.x, grant.peer)
    for no in _commands(step, o.SendRefused):
        assert (after.state, after.epoch, after.refused) == (FOREIGN, no.x, True)
    for taken in _commands(step, o.SendAccepted):
        assert after.epoch >= taken.x
        assert not (after.state is FOREIGN and after.refused and after.epoch == taken.x)
    for _ in _commands(step, o.Install):
        assert after.state is OWNED
        assert after != row
    for _ in _commands(step, o.BecomeShadow):
        assert after.state is FOREIGN


@given(rows, vols, events)
def test_a_crash_after_the_commit_changes_no_answer(row: Row, vol: Vol, event: Any) -> None:
    """The question is asked again of the row alone, with nothing in memory."""
    if not isinstance(event, o.Grant | o.Recall):
        return
    first = OWNERSHIP.step(row, vol, event)
    if _commands(first, o.SendAccepted) or _commands(first, o.SendRefused):
        again = OWNERSHIP.step(first.row, Vol(), event)
        assert again.row == first.row
        for kind in (o.SendAccepted, o.SendRefused):
            assert [(c.peer, c.x) for c in _commands(again, kind)] == [(c.peer, c.x) for c in _commands(first, kind)]


@given(rows, vols, events)
def test_the_same_event_twice_changes_the_row_once(row: Row, vol: Vol, event: Any) -> None:
    once = OWNERSHIP.step(row, vol, event)
    assert OWNERSHIP.step(once.row, once.vol, event).row == once.row


@given(rows, vols, st.lists(events, max_size=30))
@settings(max_examples=200)
def test_an_epoch_that_was_refused_is_never_taken(row: Row, vol: Vol, many: list[Any]) -> None:
    refused: set[int] = set()
    for event in many:
        step = OWNERSHIP.step(row, vol, event)
        if step.row != row and isinstance(event, o.Grant) and step.row.state is OWNED:
            assert step.row.epoch not in refused
        if step.row != row and step.row.refused and isinstance(event, o.Grant | o.Recall):
            refused.add(step.row.epoch)
        row, vol = step.row, step.vol


@given(rows, vols, events)
def test_a_giver_decides_nothing_by_itself(row: Row, vol: Vol, event: Any) -> None:
    """In GRANTED only the grantee's answer, a newer grant, home's fence and lease, or a human end it (§3.3, §8)."""
    after = OWNERSHIP.step(row, vol, event).row
    if row.state is GRANTED and after.state is OWNED:
        of_peer = isinstance(event, o.DeclaredLost) and event.peer == row.peer
        assert isinstance(event, o.Refused | o.Grant) or (isinstance(event, o.LeaseOut) and row.fenced) or of_peer


@given(rows, vols, events)
def test_every_step_says_why(row: Row, vol: Vol, event: Any) -> None:
    assert OWNERSHIP.step(row, vol, event).why


@given(rows, vols, yes, yes)
def test_only_an_owner_with_permission_serves(row: Row, vol: Vol, permitted: bool, sync: bool) -> None:
    expected = row.state is OWNED and permitted and (vol.synced or not sync)
    assert serves(row, vol, permitted=permitted, sync=sync) is expected


def test_every_state_has_its_sentences() -> None:
    for state in Ownership:
        assert state.sentence
        assert state.waiting_for
