"""Whole worlds: some seeds of every scenario, and that a seed is a world, to the byte."""

import os
import subprocess
import sys
import time

import msgspec
import pytest

from outrider.sim.whole.play import play
from outrider.sim.whole.run import run
from outrider.sim.whole.scenario import NAMES, Plan, draw

CPU_LIMIT_S = 60


@pytest.mark.parametrize("name", NAMES)
def test_a_world_of_each_scenario_holds(name):
    result = play(draw("7", name, lmsfs=False))
    assert result.violations == []
    assert result.commits > 10


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_seeds_hold():
    """A fixed number of seeds, fewer where this machine cannot do them in a minute of its processor."""
    begun_s, failed, seeds = time.process_time(), [], 0
    while seeds < 130 and time.process_time() - begun_s < CPU_LIMIT_S:
        failed += run(first=seeds, seeds=10).failed
        seeds += 10
    assert [(r.seed, r.scenario, str(r.violations[0])) for r in failed] == []
    assert seeds >= 30


def _hashes(hash_seed):
    program = (
        "from outrider.sim.whole.scenario import draw\n"
        "from outrider.sim.whole.play import play\n"
        "plans = [draw('3', lmsfs=False), draw('5', lmsfs=False), draw('8', lmsfs=True), draw('14', lmsfs=True)]\n"
        "print([play(plan).hash for plan in plans])"
    )
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_a_seed_is_the_same_world_in_every_process():
    first, second = _hashes("1"), _hashes("2")
    assert first == second
    assert len(set(first.strip("[]\n").split(", "))) == 4


def test_a_scenario_is_data():
    plan = draw("11")
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
    assert draw("11") == plan
    assert draw("12") != plan
