"""A profile says which functions ran."""

import asyncio
import sys
from pathlib import Path

import pytest

from outrider.bench.profile import Profile, hot, tool
from outrider.demo.processes import ProcessFailed

FOLDED = """\
main (a.py:1);commit (b.py:7) 30
main (a.py:1);send (c.py:9);commit (b.py:7) 30
main (a.py:1) 20
Thread.run (threading.py:9);_worker (concurrent/futures/thread.py:69) 500
Thread.run (threading.py:9);Condition.wait (threading.py:295) 500
 700
"""


def test_functions_are_listed_by_the_samples_in_which_they_ran_without_threads_that_wait():
    assert [(f.function, f.share) for f in hot(FOLDED)] == [("commit (b.py:7)", 0.75), ("main (a.py:1)", 0.25)]


def test_an_empty_profile_lists_nothing():
    assert hot("") == []


@pytest.mark.slow
async def test_a_process_is_recorded_while_it_runs(tmp_path: Path):
    if tool() is None:
        pytest.skip("py-spy is not installed: pip install 'outrider[bench]'")
    code = "def spin():\n    while True: pass\nprint(flush=True)\nspin()"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    profile = Profile(lambda: {"keeper A": process.pid}, tmp_path, "10-1")
    try:
        await profile.start()
        await asyncio.sleep(1.5)  # it is time that is sampled
        found = await profile.stop()
    finally:
        process.kill()
        await process.wait()
    assert "spin" in found["keeper A"][0].function
    assert (tmp_path / "10-1-keeper-a.folded").exists()


@pytest.mark.slow
async def test_a_process_that_cannot_be_looked_at_is_named_at_once(tmp_path: Path):
    if tool() is None:
        pytest.skip("py-spy is not installed: pip install 'outrider[bench]'")
    process = await asyncio.create_subprocess_exec("sleep", "60")
    profile = Profile(lambda: {"keeper A": process.pid}, tmp_path, "10-1")
    try:
        with pytest.raises(ProcessFailed, match="py-spy cannot look at keeper A"):
            await profile.start()
        assert await profile.stop() == {"keeper A": []}
    finally:
        process.kill()
        await process.wait()
