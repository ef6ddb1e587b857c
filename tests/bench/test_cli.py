"""What the command refuses before it starts anything."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from outrider.bench import plots, profile
from outrider.cli.main import app
from outrider.cli.outcome import MISUSE


@pytest.mark.parametrize("sizes", ["", "ten", "0", "10,-1"])
def test_sizes_that_are_no_numbers_of_contexts_are_misuse(sizes: str):
    done = CliRunner().invoke(app, ["bench", "relocation", "--contexts", sizes])
    assert done.exit_code == MISUSE
    assert "--contexts is a list of numbers" in done.output


def test_a_profile_without_its_tool_is_misuse_and_says_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(profile, "tool", lambda: None)
    done = CliRunner().invoke(app, ["bench", "relocation", "--profile", str(tmp_path)])
    assert done.exit_code == MISUSE
    assert "pip install 'outrider[bench]'" in done.output


def test_a_peer_that_is_not_known_is_misuse():
    assert CliRunner().invoke(app, ["bench", "relocation", "--peers", "redis"]).exit_code == MISUSE


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["relocation", "--workload", "flood"], "--workload is one of uniform, idle, zipf"),
        (["relocation", "--without", "luck"], "--without is one of holds, compression, log, shadow"),
        (["suite", "--report", "figures", "--only", "visit,flood"], "--only is one of uniform, idle, zipf"),
    ],
)
def test_what_is_not_known_is_misuse_and_what_is_is_named(args: list[str], said: str):
    done = CliRunner().invoke(app, ["bench", *args])
    assert done.exit_code == MISUSE
    assert said in done.output


@pytest.mark.parametrize("args", [["relocation", "--plots", "figures"], ["suite", "--report", "figures"]])
def test_drawings_without_their_library_are_misuse_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, args: list[str]
):
    monkeypatch.setattr(plots, "missing", lambda: plots.INSTALL)
    done = CliRunner().invoke(app, ["bench", *args])
    assert done.exit_code == MISUSE
    assert "needs matplotlib: pip install 'outrider[bench]'" in done.output
