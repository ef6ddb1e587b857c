"""What was measured is drawn and tabled; what was not is said."""

from pathlib import Path

import pytest

from outrider.bench import plots
from outrider.bench.bars import bars
from outrider.bench.bound import Bound
from outrider.bench.figures import SETTLED, Measured, Peer, Result, Sample, Size
from outrider.bench.holds import Holds
from outrider.bench.markdown import page
from outrider.bench.openloop import Answer, Fate, History
from outrider.bench.options import Link
from outrider.bench.suite import Report, write
from outrider.bench.timeline import Seen, Span, seen
from outrider.demo.machine import this_machine

HOLDS = Holds(3, 1.0, 2.0, 3.0, 4.0, [1.0, 2.0, 4.0])


def load(rate: float = 100.0) -> Seen:
    history = History.empty()
    for step in range(300):
        history.note(step / 100, 1.0 + step % 7, Answer(Fate.SERVED))
    spans = {"before": Span(0, 1), "during": Span(1, 2), "copying": Span(1, 1.5), "after": Span(2, 3)}
    return seen(history, spans, 1.0, rate, {})


def run_of(contexts: int, rate: float = 100.0) -> Size:
    return Size(
        contexts=contexts, round=1, link=Link(), state_bytes=contexts * 1_000, seed_s=1.0, capacity_per_s=None,
        ended=SETTLED, total_s=contexts / 1_000, prepare_s=0.1, copy_s=0.1, relocate_s=0.2, moved_ues=contexts,
        marks_wrong=0, grant_bodies={}, wire_bytes=contexts * 200, seen=load(rate), sample={}, used={},
        waits={cause: {"p50": 1.0, "p99": 2.0, "max": 3.0, "count": 4.0} for cause in ("held", "arrival")},
        holds=HOLDS if rate else None,
        lag=[Sample(0.1, "COPYING", 5, 0, 2), Sample(0.9, "SETTLED", 10, 10, 0)],
    )  # fmt: skip


def peer_of(contexts: int) -> Peer:
    return Peer(
        name="Valkey 9.1.2", contexts=contexts, round=1, state_bytes=contexts * 1_000, fill_s=1.0, ended=SETTLED,
        total_s=contexts / 2_000, states_s={}, wire_bytes=contexts * 1_060, seen=load(), sample={}, used={},
        holds=HOLDS,
    )  # fmt: skip


def result(sizes: list[int], rate: float = 100.0) -> Result:
    measured = [Measured(contexts=n, runs=[run_of(n, rate)], peers=[peer_of(n)]) for n in sizes]
    return Result(
        command="outrider bench relocation", machine=this_machine(), load_average=0.0, fsync="every commit synced",
        peer="Valkey 9.1.2", sizes=measured, bars=bars(measured), bound=Bound(disk_bytes_per_s=1e8, link=Link()),
    )  # fmt: skip


def test_the_page_has_the_ratio_to_the_peer_and_says_what_was_not_measured(tmp_path: Path):
    text = page([result([1_000])], [tmp_path / "plots" / "lag.svg"], tmp_path)
    total = next(line for line in text.splitlines() if line.startswith("| total from the command, s"))
    assert total == "| total from the command, s | 1.00 | 0.50 | 2.00 |"
    nobody = next(line for line in text.splitlines() if line.startswith("NOT MEASURED: "))
    assert "writes/s that the service can serve" in nobody
    assert "keeper A" not in nobody
    assert "![lag](plots/lag.svg)" in text


def test_without_a_load_no_failed_request_is_claimed(tmp_path: Path):
    line = next(line for line in page([result([10], rate=0.0)], [], tmp_path).splitlines() if "no load" in line)
    assert line.count("NOT MEASURED") >= 3


def test_a_report_has_its_drawings_and_can_be_read_again(tmp_path: Path):
    if (why := plots.missing()) is not None:
        pytest.skip(why)
    write(Report([result([100, 1_000]), result([100], rate=0.0)], []), tmp_path)
    drawn = {file.name for file in tmp_path.glob("*.svg")}
    assert {"holds.svg", "total-uniform-100-writes-s.svg", "latency-uniform-100-writes-s-1000.svg"} <= drawn
    assert not [name for name in drawn if name.startswith("latency-uniform-no-load")]  # there was none
    assert all(file.read_text().startswith("<?xml") for file in tmp_path.glob("*.svg"))
    assert set(drawn) <= set((tmp_path / "report.md").read_text().replace("(", " ").replace(")", " ").split())


def test_no_move_is_faster_than_the_slower_of_link_and_disk():
    fast_disk = Bound(disk_bytes_per_s=1e12, link=Link(rtt_ms=20.0, mbit=8.0))
    assert fast_disk.seconds(state_bytes=10e6, wire_bytes=1e6) == pytest.approx(1.01)
    assert Bound(disk_bytes_per_s=1e6, link=Link()).seconds(10e6, 1e6) == pytest.approx(10.0)
