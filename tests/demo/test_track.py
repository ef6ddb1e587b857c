"""Tracks are read with every mistake named, and made up so that some are early, late, and never go."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.demo.track import Move, TrackError, make_onward_track, make_track, parse_track, read_track, write_track

HOME, TARGET = "999-70", "999-71-000007ed9d5"


def parse(text: str, ues: int = 10) -> list[Move]:
    return parse_track(text.splitlines(), name="t.csv", ues=ues, networks=[HOME, TARGET], home=HOME)


def test_moves_come_in_the_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"ue,time_s,network\n2,3.5,{TARGET}\n\n# a note\n1,1,{TARGET}\n")
    moves = read_track(path, ues=2, networks=[HOME, TARGET], home=HOME)
    assert moves == [Move(1, 1.0, TARGET), Move(2, 3.5, TARGET)]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "t.csv:1: the first line must be ue,time_s,network"),
        ("ue;time_s;network\n", "t.csv:1: the first line must be ue,time_s,network"),
        (f"ue,time_s,network\n1,1,{TARGET}\n11,1,{TARGET}\n", "t.csv:3: ue '11' is not a number from 1 to 10"),
        (f"ue,time_s,network\nx,1,{TARGET}\n", "t.csv:2: ue 'x' is not a number from 1 to 10"),
        (f"ue,time_s,network\n1,soon,{TARGET}\n", "t.csv:2: time_s 'soon' is not a number"),
        (f"ue,time_s,network\n1,-1,{TARGET}\n", "t.csv:2: time_s '-1' is not a time from 0 on"),
        (f"ue,time_s,network\n1,nan,{TARGET}\n", "t.csv:2: time_s 'nan' is not a time from 0 on"),
        ("ue,time_s,network\n1,1,001-01\n", "t.csv:2: network '001-01' is none of 999-70, 999-71-000007ed9d5"),
        ("ue,time_s,network\n1,1\n", "t.csv:2: 2 columns instead of 3"),
        (f"ue,time_s,network\n1,1,{HOME}\n", "t.csv:2: UE 1 is in 999-70 already"),
        (f"ue,time_s,network\n1,1,{TARGET}\n1,1,{HOME}\n", "t.csv:3: UE 1 moves twice at 1.0 s"),
    ],
)
def test_a_wrong_line_is_named_with_its_reason(text: str, error: str) -> None:
    with pytest.raises(TrackError) as caught:
        parse(text)
    assert error in str(caught.value).splitlines()


def test_all_wrong_lines_are_named_up_to_a_bound() -> None:
    with pytest.raises(TrackError) as caught:
        parse("ue,time_s,network\n" + "0,0,x\n" * 25)
    lines = str(caught.value).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "and 15 more"


@given(ues=st.integers(1, 300), seed=st.integers(0, 2**32))
def test_a_made_track_is_valid_and_the_same_for_the_same_seed(ues: int, seed: int) -> None:
    moves = make_track(ues=ues, home=HOME, target=TARGET, seed=seed)
    assert moves == make_track(ues=ues, home=HOME, target=TARGET, seed=seed)
    assert sorted(parse(write_track(moves), ues)) == sorted(moves)


def test_in_a_made_track_some_are_early_some_late_some_never_go_and_all_who_go_come_back() -> None:
    moves = make_track(ues=300, home=HOME, target=TARGET, seed=1, over_s=4.0)
    out = {m.ue: m.time_s for m in moves if m.network == TARGET}
    back = {m.ue: m.time_s for m in moves if m.network == HOME}
    assert out.keys() == back.keys()
    assert len(out) == 285
    assert sum(t <= 0.4 for t in out.values()) >= 15
    assert sum(t > 4.0 for t in out.values()) == 15
    assert all(out[ue] < back[ue] for ue in out)


@given(ues=st.integers(1, 100), seed=st.integers(0, 2**32))
def test_a_track_onward_waits_at_both_instants_and_brings_everybody_home(ues: int, seed: int) -> None:
    track = make_onward_track(ues=ues, home=HOME, between=TARGET, target="999-72", seed=seed)
    text = write_track(track.moves).splitlines()
    assert len(parse_track(text, name="", ues=ues, networks=[HOME, TARGET, "999-72"], home=HOME)) == len(track.moves)
    where = dict.fromkeys(range(1, ues + 1), HOME)
    for move in track.moves:
        assert (move.network == TARGET) == (move.time_s < track.onward_s)
        assert move.network != "999-72" or track.onward_s <= move.time_s < track.home_s
        if move.time_s >= track.home_s:
            assert TARGET not in where.values()
        where[move.ue] = move.network
    assert set(where.values()) == {HOME}
