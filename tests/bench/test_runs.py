"""Rounds: who runs first alternates, and a run that breaks costs its own figures only."""

import pytest

from outrider.bench import dump, relocation, runs, valkey
from outrider.bench.options import Link, Options
from outrider.bench.runs import Wanted, measure
from outrider.demo.processes import ProcessFailed


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What runs in which order; each run breaks, so that none takes its time."""
    order: list[str] = []

    def breaking(name: str):
        async def run(options: Options, contexts: int, say: object, round_: int, seeds: object = None) -> None:
            order.append(f"{name} {contexts} {round_}")
            raise ProcessFailed("it broke")

        return run

    monkeypatch.setattr(relocation, "run", breaking("ours"))
    monkeypatch.setattr(valkey, "run", breaking("valkey"))
    monkeypatch.setattr(dump, "run", breaking("dump"))
    monkeypatch.setattr(runs.valkey, "missing", lambda: None)
    return order


def test_ours_and_the_peer_are_first_in_turn_and_every_round_is_tried(order: list[str]):
    said: list[str] = []
    with pytest.raises(ProcessFailed, match="no run of ours was made"):
        measure(Wanted([10], repeat=3), Options(), "outrider bench relocation", said.append)
    assert order == ["valkey 10 1", "ours 10 1", "ours 10 2", "valkey 10 2", "valkey 10 3", "ours 10 3"]
    assert said[-1] == "10 contexts, round 3, ours: it broke"
    assert len(said) == 6


def test_without_a_peer_only_ours_runs(order: list[str]):
    with pytest.raises(ProcessFailed):
        measure(Wanted([10, 20], peer=False), Options(), "outrider bench relocation", lambda _: None)
    assert order == ["ours 10 1", "ours 20 1"]


def test_a_dump_runs_after_ours_and_before_in_turn(order: list[str]):
    with pytest.raises(ProcessFailed):
        measure(Wanted([10], repeat=2, dump=True), Options(), "outrider bench relocation", lambda _: None)
    assert order == ["valkey 10 1", "ours 10 1", "dump 10 1", "dump 10 2", "ours 10 2", "valkey 10 2"]


@pytest.mark.parametrize(
    "options", [Options(workload="storm"), Options(workload="visit"), Options(link=Link(reset_every_s=2.0))]
)
def test_a_peer_that_cannot_do_the_same_is_not_measured_and_the_reason_is_told(order: list[str], options: Options):
    said: list[str] = []
    with pytest.raises(ProcessFailed):
        measure(Wanted([10]), options, "outrider bench relocation", said.append)
    assert order == ["ours 10 1"]
    assert said[0].startswith("Valkey is not measured: ")
