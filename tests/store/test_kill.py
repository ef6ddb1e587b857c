"""`kill -9` at any moment: what was acknowledged is there, nothing is torn, what was not is whole or absent."""

import json
import random
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

from outrider.core.record import Kind
from outrider.store.sqlite import SqliteStore

HERE = Path(__file__).parent
KILLS = 30


def expected_after(history, batches):
    """What the units of so many batches leave: data by key, number of units by key, number of entries."""
    data = {key: {} for key in history["KEYS"]}
    units = dict.fromkeys(history["KEYS"], 0)
    for number in range(batches):
        for unit in history["batch"](number)[:-1]:
            units[unit.key] += 1
            data[unit.key][Kind.IDEMPOTENCY, unit.answer_id] = None
            for c in unit.changes:
                data[unit.key].pop((c.kind, c.id), None)
                if c.body is not None:
                    data[unit.key][c.kind, c.id] = c.body
    return data, units


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_was_acknowledged_survives_kills_at_random_moments(tmp_path):
    path = tmp_path / "c.db"
    history = runpy.run_path(str(HERE / "child_commits.py"))
    chance = random.Random(7)
    durable = 0
    for kill in range(1, KILLS + 1):
        with subprocess.Popen([sys.executable, HERE / "child_commits.py", path], stdout=subprocess.PIPE) as child:
            begun = acknowledged = int(child.stdout.readline())
            for _ in range(chance.randrange(1, 80)):
                acknowledged = int(child.stdout.readline())
            time.sleep(chance.random() * 0.004)  # somewhere in a commit
            child.kill()
            for line in child.stdout.read().split():
                acknowledged = int(line)
        store = SqliteStore.open(path)
        batches = int(store.value("batches"))
        assert begun == durable
        assert batches in (acknowledged, acknowledged + 1)
        data, units = expected_after(history, batches)
        for key in history["KEYS"]:
            context = store.context(key)
            assert context.head.n == units[key]
            found = {(r.kind, r.id): None if r.kind == Kind.IDEMPOTENCY else r.body for r in context.records}
            assert found == data[key]
        assert store.last_lsn() == sum(units.values())
        assert store.check() == []
        assert store.identity.incarnation == 2 * kill
        store.close()
        durable = batches


def steps_of(action, directory):
    child = subprocess.run(
        [sys.executable, HERE / "child_steps.py", action, directory], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("action", ["create", "open", "commit", "trim", "adopt"])
def test_a_death_at_any_step_leaves_all_or_nothing(tmp_path, action):
    found = steps_of(action, tmp_path)
    assert found["wrong"] == []
    assert found["steps"] > 10
    assert found["after"] > 0
    if action in ("commit", "trim", "adopt"):
        assert found["before"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_deaths_find_a_commit_that_is_made_in_two(tmp_path):
    """The same search over two transactions finds the state between them: it would find a torn commit."""
    assert steps_of("commit in two", tmp_path)["wrong"] != []
