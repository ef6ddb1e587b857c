"""Growth: what is worked out of figures, and a short form of every part with real processes."""

import json
import os
from pathlib import Path

import apsw
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from outrider.bench.growth import cost, crowd, journals, partners, run, services, starts
from outrider.bench.growth.crowd import Move, jain, overlapping, shares
from outrider.bench.growth.page import Grown, draw, page
from outrider.bench.growth.run import PARTS, SHORT
from outrider.bench.growth.table import Curve, Part, at_most, flat
from outrider.cli.main import app
from outrider.cli.outcome import FAULT, MISUSE
from outrider.demo.machine import this_machine
from outrider.demo.processes import ProcessFailed
from outrider.demo.quantiles import quantiles


def said(_: str) -> None:
    """What is told while it runs."""


def move(begun: float | None, copied: float | None, settled: float | None = None) -> Move:
    return Move(service="s", ended="SETTLED", prepared_s=begun, copied_s=copied, settled_s=settled, moved_ues=1)


# ------------------------------------------------------------------------------------------------- figures


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=50))
def test_fairness_is_between_one_of_all_and_one(values: list[float]):
    assert 1 / len(values) - 1e-3 <= jain(values) <= 1 + 1e-3


def test_fairness_is_one_for_equals_and_one_nth_if_one_has_everything():
    assert jain([3.0] * 7) == 1
    assert jain([1.0, 0.0, 0.0, 0.0]) == 0.25


def test_a_copy_that_ran_alone_for_a_while_was_not_favoured():
    # One alone for 1 s; then both share, and the second goes on alone: each is due one second of the whole link.
    assert shares([move(0.0, 1.5), move(0.5, 2.0)]) == pytest.approx([1 / 1.0, 1 / 1.0])


def test_a_copy_that_waits_while_others_pass_is_seen():
    favoured = [move(0.0, 3.0), move(0.0, 1.0), move(1.0, 2.0), move(2.0, 3.0)]
    equal = [move(0.0, 3.0)] * 3
    assert jain(shares(favoured)) < 0.9 < jain(shares(equal)) == 1


@pytest.mark.parametrize(
    ("wire_bytes", "fairness", "verdict"),
    [(1_000_000, 0.95, "PASS"), (1_000_000, 0.85, "MISS"), (100_000, 0.85, "NOT MEASURED")],
)
def test_the_link_is_judged_only_where_copies_waited_for_it(wire_bytes: int, fairness: float, verdict: str):
    found = crowd.Crowd(
        migrations=2, contexts=1, mbit=4.0, state_bytes=1, wire_bytes=wire_bytes, total_s=5.0, settled=2,
        moves=[move(0.0, 2.0, 3.0), move(1.0, 2.5, 3.0)], jain=fairness, slowest_share=1.0, show_ms=quantiles([1.0]),
        list_ms=quantiles([1.0]), abort_ms=1.0, abort_ended="ABORTED", peak={}, cpu_s=1.0,
    )  # fmt: skip
    assert next(bar for bar in crowd.part([found], []).bars if "shared" in bar.kpi).verdict == verdict


def test_copies_that_never_ended_have_no_share():
    assert shares([move(None, None), move(1.0, None)]) == []


def test_how_many_move_at_once_counts_those_that_never_settled():
    assert overlapping([move(0, 1, 2), move(1, 2, 4), move(2, 3, None), move(None, None)]) == 2
    assert overlapping([]) == 0


def test_a_bar_names_where_the_worst_was():
    bar = at_most("latency", 5, "ms", {"1": 2.0, "10": 7.0, "100": None})
    assert (bar.verdict, bar.measured) == ("MISS", "7 ms at 10")
    assert at_most("latency", 5, "ms", {"1": None}).verdict == "NOT MEASURED"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [({"1": 10.0, "9": 13.0}, "PASS"), ({"1": 10.0, "9": 13.1}, "MISS"), ({"1": 10.0}, "NOT MEASURED")],
)
def test_what_must_not_grow_is_judged_by_its_ends(values: dict[str, float | None], verdict: str):
    assert flat("cost", 1.3, values).verdict == verdict


def test_a_process_has_memory_of_its_own_and_one_that_ended_has_none():
    own = cost.of(os.getpid())
    assert own.processes == 1
    assert 0 < own.pss_mb <= own.rss_mb
    assert own.open_files > 2
    assert cost.of(2**22 + 1) == cost.Cost()
    assert (own + own).pss_mb == pytest.approx(2 * own.pss_mb, abs=0.01)


def test_a_journal_gets_as_many_copies_as_are_wanted_each_under_its_own_name(tmp_path: Path):
    path = tmp_path / "lmsf.db"
    db = apsw.Connection(str(path))
    db.execute("CREATE TABLE document (kind, name, body); CREATE TABLE event (seq INTEGER PRIMARY KEY, migration, "
               "at_ms, event, phase, why)")  # fmt: skip
    db.execute("INSERT INTO document VALUES ('migration', 'm-real', ?)", (b'{"id":"m-real","told":true}',))
    db.execute("INSERT INTO event (migration, at_ms, event, phase, why) VALUES ('m-real', 1, 'e', 'p', 'w')")
    journals.multiply(path, "m-real", 1, 4)
    found = {name: json.loads(body)["id"] for name, body in db.execute("SELECT name, body FROM document")}
    assert len(found) == 4
    assert all(name == said_id for name, said_id in found.items())
    assert len(list(db.execute("SELECT DISTINCT migration FROM event"))) == 4
    with pytest.raises(ProcessFailed, match="0 documents"):
        journals.multiply(path, "m-other", 1, 2)


def test_the_page_has_every_row_bar_and_reason_and_a_drawing_needs_two_points(tmp_path: Path):
    one = Part(
        name="services", title="Services", ran="All real.", rows=[{"services": 1, "MB": 2.5}],
        curves=[Curve("memory", "services", ["MB"], "MB")], bars=[at_most("memory", 1, "MB", {"1": 2.5})],
        left_out=["100 services: 6.0 GB more are needed, 1.0 GB are available"],
    )  # fmt: skip
    two = msgspec.structs.replace(one, rows=[*one.rows, {"services": 10, "MB": None}, {"services": 30, "MB": 4.0}])
    grown = Grown("outrider bench growth", this_machine(), 0.0, [one], ["partners: it broke"])
    text = page(grown, [], tmp_path)
    assert "| 1 | 2.5 |" in text
    assert "**MISS**" in text
    assert "Not run: 100 services: 6.0 GB" in text
    assert "Not measured: partners: it broke." in text
    assert draw([one], tmp_path) == []
    assert [file.name for file in draw([two], tmp_path)] == ["growth-memory.svg"]


# ------------------------------------------------------------------------------------------------ the command


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--only", "services,luck"], "--only is one of contexts, services, partners"),
        (["--services", "1,none"], "--services is a list of numbers"),
        (["--partners", "900"], "--partners goes up to 600"),
    ],
)
def test_what_cannot_be_measured_is_misuse(args: list[str], told: str):
    done = CliRunner().invoke(app, ["bench", "growth", *args])
    assert done.exit_code == MISUSE
    assert told in " ".join(done.output.split())


def test_a_part_that_breaks_is_told_and_the_others_are_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    async def breaks(*_: object) -> Part:
        raise ProcessFailed("it broke")

    async def runs(*_: object) -> Part:
        return Part(name="partners", title="Partners", ran="", rows=[], curves=[], bars=[])

    monkeypatch.setitem(PARTS, "services", breaks)
    monkeypatch.setitem(PARTS, "partners", runs)
    args = ["bench", "growth", "--only", "services,partners", "--report", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == FAULT
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert report["broken"] == ["services: it broke"]
    assert [part["name"] for part in report["parts"]] == ["partners"]


def test_steps_for_which_there_is_no_memory_are_left_out_and_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crowd, "available_bytes", lambda: 3_000_000_000)
    why = crowd.no_room(200)
    assert why is not None
    assert "200 migrations need 22.5 GB of memory; 3.0 GB are available" in why
    assert crowd.no_room(20) is None
    monkeypatch.setattr(services, "available_bytes", lambda: 1_000_000_000)
    assert "1.0 GB are available" in (services._no_room(100, 70) or "")


# -------------------------------------------------------------------------------------- short forms, all real


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_services_are_deployed_measured_and_come_up_again():
    found = await services.run(SHORT.services, SHORT.idle_s, said)
    assert found.column("services") == SHORT.services
    assert all(row["processes"] == 1 + 2 * int(row["services"] or 0) for row in found.rows), (
        "a keeper and a worker each"
    )
    assert all(mb > 10 for mb in found.column("MB for each service"))
    assert found.left_out == []
    assert not any(bar.verdict == "NOT MEASURED" for bar in found.bars)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_partners_have_listeners_of_their_own_and_one_asks_through_its_own():
    found = await partners.run(SHORT.partners, SHORT.starts, SHORT.idle_s, said)
    few, many = found.column("open files")
    more = SHORT.partners[1] - SHORT.partners[0]
    assert many - few >= 2 * more, "two listeners for each further partner"
    assert all(ms > 0 for ms in found.column("through the border p50, ms"))


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_migrations_at_once_all_end_and_one_is_aborted_meanwhile():
    found = await crowd.run(SHORT.migrations, SHORT.moved_contexts, SHORT.mbit, said)
    (one,) = found.raw
    assert one.settled == one.migrations == SHORT.migrations[0]
    assert all(each.moved_ues == SHORT.moved_contexts for each in one.moves)
    assert one.abort_ms is not None
    assert one.abort_ended == "ABORTED"
    assert one.show_ms.count > 0
    assert 0 < one.jain <= 1


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_keeper_serves_again_after_it_was_killed_under_load():
    found = await starts.run(SHORT.contexts[:1], SHORT.writes_per_s, SHORT.warm_s, said)
    (one,) = found.raw
    assert one.recovery_s > 0
    assert one.start_s > 0
    assert one.busy_mb > 10


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_node_starts_with_ended_migrations_and_knows_them_all():
    found = await journals.run(SHORT.journals, SHORT.starts, said)
    assert found.column("ended migrations") == SHORT.journals
    assert all(seconds > 0 for seconds in found.column("start, s"))


def test_every_part_has_a_short_form():
    assert set(PARTS) == {"contexts", "services", "partners", "migrations", "starts", "journals"}
    assert run.FULL.services[-1] == 100
    assert run.FULL.partners[-1] == 50
