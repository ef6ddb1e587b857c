"""What surrounds a run: its phases, its processes and what they use, the live view, and input that makes no sense."""

import asyncio
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from outrider.demo.checker import Phase, Timeline
from outrider.demo.course import Options, Run, turning
from outrider.demo.example import example
from outrider.demo.live import View, draw
from outrider.demo.processes import ProcessFailed, Running, together
from outrider.demo.stage import HOME, TARGET, Stage
from outrider.demo.track import Move, write_track
from outrider.demo.usage import Ledger

BURN = "import time\nwhile time.process_time() < {}: pass\n"


def test_an_instant_has_every_phase_that_it_is_in() -> None:
    phases = [Phase("during", 1.0, 3.0), Phase("copy", 1.0, 2.0), Phase("during", 5.0, 6.0)]
    timeline = Timeline(HOME, TARGET, phases)
    assert [timeline.at(at_s) for at_s in (0.0, 1.0, 2.5, 4.0, 5.5)] == [
        set(), {"during", "copy"}, {"during"}, set(), {"during"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ([(1, 2.0, TARGET), (2, 3.0, TARGET), (1, 7.0, HOME), (2, 9.0, HOME)], (3.0, 7.0, 9.0)),
        ([(1, 2.0, TARGET), (1, 4.0, HOME), (2, 5.0, TARGET), (2, 8.0, HOME)], (5.0, 5.0, 8.0)),
        ([(1, 2.0, TARGET)], (2.0, 2.0, 2.0)),
        ([], (0.0, 0.0, 0.0)),
    ],
)
def test_the_group_turns_when_the_first_goes_home_but_not_before_the_last_is_there(
    tmp_path: Path, moves: list[tuple[int, float, str]], expected: tuple[float, float, float]
) -> None:
    (tmp_path / "track.csv").write_text(write_track(Move(*move) for move in moves))
    screen: Any = None
    assert turning(Run(Options(tmp_path, ues=2), Stage(tmp_path, rtt_ms=0), screen)) == expected


def test_a_ledger_knows_what_ended_processes_have_used() -> None:
    ledger = Ledger()
    before_s = ledger.look()
    subprocess.run([sys.executable, "-c", BURN.format(0.3)], check=True)
    assert ledger.look() - before_s >= 0.25  # /proc counts in hundredths, and what is below is lost
    assert ledger.by_kind()["commands"] >= 0.25


def test_a_ledger_tells_processes_by_what_they_are() -> None:
    ledger = Ledger()
    code = BURN.format(0.2) + "print(flush=True)\ninput()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, "outrider.demo.relay"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    ledger.look()
    child.communicate(b"\n")
    ledger.look()
    assert ledger.by_kind()["relay"] >= 0.15


async def test_if_one_of_several_fails_the_others_are_ended_first() -> None:
    ended = asyncio.Event()

    async def long() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def failing() -> None:
        raise ProcessFailed("no")

    with pytest.raises(ProcessFailed):
        await together(long(), failing())
    assert ended.is_set()
    assert await together(asyncio.sleep(0, 1), asyncio.sleep(0, 2)) == [1, 2]


async def test_a_process_that_nobody_waits_for_any_more_is_ended(tmp_path: Path) -> None:
    code = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\nos.rename('pid', 'started')\ntime.sleep(600)\n"
    (tmp_path / "sleeper.py").write_text(f"import os\nos.chdir({str(tmp_path)!r})\n{code}")
    starting = asyncio.create_task(
        Running.start("sleeper", tmp_path / "log", "sleeper", env={"PYTHONPATH": str(tmp_path)})
    )
    while not (tmp_path / "started").exists():
        await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not Path(f"/proc/{(tmp_path / 'started').read_text()}").exists()


def test_the_view_is_drawn_before_anything_was_answered() -> None:
    view = View(HOME, TARGET, progress={"latencyMs": {"count": 0, "p50": None, "p99": None, "max": None}})
    out = StringIO()
    Console(file=out, width=120).print(draw(view))
    assert "latency p50 0.0 ms" in out.getvalue()


def test_the_example_is_found_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (example() / "outrider.toml").is_file()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--service", "."], "outrider.toml"),
        (["--track", "track.csv", "--ues", "1"], "ue '2' is not a number from 1 to 1"),
    ],
)
def test_input_that_makes_no_sense_is_misuse_before_anything_is_started(
    tmp_path: Path, args: list[str], said: str
) -> None:
    (tmp_path / "track.csv").write_text(f"ue,time_s,network\n2,1.0,{TARGET}\n")
    command = [sys.executable, "-m", "outrider.cli.main", "demo", "--keep", "kept", *args]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "kept").exists()
