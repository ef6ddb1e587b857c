"""The series measures every case, and what breaks costs its own figures only."""

import json
from pathlib import Path

import pytest

from outrider.bench import suite
from outrider.bench.options import Options
from outrider.bench.runs import Wanted
from outrider.bench.workloads import WORKLOADS
from outrider.demo.processes import ProcessFailed


def test_every_workload_is_in_the_series_and_every_case_is_one_that_there_is():
    assert {case.workload for case in suite.FULL} == set(WORKLOADS)
    assert {case.workload for case in suite.SHORT} <= set(WORKLOADS)
    assert {case.without for case in suite.FULL} - {None} == {"holds", "compression", "log", "shadow"}


def test_large_contexts_are_fewer_and_cases_where_size_is_no_question_take_the_largest():
    assert suite.Case("large").wanted(Wanted([10_000, 64_000])).sizes == [1_000]
    assert suite.Case("uniform", all_sizes=True).wanted(Wanted([10, 20])).sizes == [10, 20]
    assert suite.Case("uniform").wanted(Wanted([10, 20])).sizes == [20]


def test_a_run_without_a_mechanism_has_no_peer():
    everybody = Wanted([10], peer=True, dump=True)
    assert suite.Case("uniform").wanted(everybody) == everybody
    assert suite.Case("uniform", without="holds").wanted(everybody) == Wanted([10], peer=False, dump=False)


def test_a_case_that_breaks_is_told_and_the_next_is_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    tried: list[str] = []

    def breaking(wanted: Wanted, options: Options, *_: object) -> None:
        tried.append(options.workload)
        raise ProcessFailed("it broke")

    monkeypatch.setattr(suite, "measure", breaking)
    found = suite.run(suite.SHORT, Wanted([10]), Options(), "outrider bench suite", tmp_path, lambda _: None)
    assert tried == [case.workload for case in suite.SHORT]
    assert found.broken == [f"{name}: it broke" for name in tried]
    assert not found.results


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_series_of_one_leaves_figures_a_page_and_drawings(tmp_path: Path):
    said: list[str] = []
    options = Options(warm_s=0.5, before_s=1, after_s=0.5, probe_s=0)
    cases = [suite.Case("uniform", 50)]
    suite.run(cases, Wanted([100], peer=False, dump=True), options, "outrider bench suite", tmp_path, said.append)
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert report["results"][0]["sizes"][0]["dumps"][0]["name"] == "dump and restore"
    assert "dump and restore | ours ÷ it" in (tmp_path / "report.md").read_text()
