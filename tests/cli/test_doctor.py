"""What `outrider doctor` finds, and how it ends."""

import json
import resource
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from outrider.cli.main import app
from outrider.core import limits
from outrider.host import doctor, machine, sandbox
from outrider.host.machine import Check, Level


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


def test_it_tries_everything_and_says_each_in_a_sentence(tmp_path: Path) -> None:
    result = run("--dir", str(tmp_path), "--json")
    found = json.loads(result.stdout)
    checks = {check["name"]: check for check in found["checks"]}
    named = {"python", "sqlite", "kernel", "http2", "disk", "fsync", "open files", "file size", "isolation: verdict"}
    assert named <= checks.keys()
    assert sum(name.startswith("isolation: try ") for name in checks) >= 9 or not sandbox.available().complete
    assert all(check["sentence"].strip() for check in checks.values())
    assert all(check["remedy"] for check in checks.values() if check["level"] != "OK")
    assert found["verdict"] == max((c["level"] for c in checks.values()), key=list(Level).index)
    assert result.exit_code == (1 if found["verdict"] == "FAIL" else 0)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_check_ends_it_with_1_and_prints_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SQLITE", (99, 0))
    result = run("--dir", str(tmp_path))
    assert result.exit_code == 1
    assert "brings its own SQLite" in result.stdout
    assert "keep a network or its services from running here" in result.stdout


def test_a_warning_ends_it_with_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def facts() -> list[doctor.Fact]:
        return []

    monkeypatch.setattr(doctor, "isolation_facts", facts)
    monkeypatch.setattr(machine, "SLOW_SYNC_MS", 0.0)
    result = run("--dir", str(tmp_path))
    assert result.exit_code == 0
    assert "WARN" in result.stdout


def test_no_isolation_is_a_failure_with_a_remedy_and_a_neutral_fact_is_not() -> None:
    absent = doctor.Fact("landlock", False, "the kernel has no Landlock")
    checks = machine.isolation([absent, doctor.Fact("cpu", None, "not limited"), doctor.Fact("user", True, "not root")])
    assert [check.level for check in checks] == [Level.FAIL, Level.OK, Level.OK]
    assert "Landlock" in checks[0].remedy


def test_a_disk_below_the_reserve_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = machine.shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(limits, "DISK_RESERVE_BYTES", free * 2)
    assert machine.disk(tmp_path).level is Level.FAIL
    monkeypatch.setattr(limits, "DISK_RESERVE_BYTES", free // 2)
    assert machine.disk(tmp_path).level is Level.WARN
    monkeypatch.setattr(limits, "DISK_RESERVE_BYTES", free // 1000)
    assert machine.disk(tmp_path).level is Level.OK


def test_a_folder_that_cannot_be_written_is_a_failure() -> None:
    assert machine.fsync(Path("/proc")).level is Level.FAIL


@pytest.mark.parametrize(("soft", "level"), [(100, Level.FAIL), (1024, Level.WARN), (8192, Level.OK), (-1, Level.OK)])
def test_open_files(monkeypatch: pytest.MonkeyPatch, soft: int, level: Level) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (soft, -1))
    check = machine.open_files()
    assert check.level is level
    assert bool(check.remedy) == (level is not Level.OK)


async def test_the_http2_stack_is_really_used(monkeypatch: pytest.MonkeyPatch) -> None:
    check = await machine.http2()
    assert check.level is Level.OK
    assert "over HTTP/2 took" in check.sentence

    class Dead:
        def __init__(self, handler: object) -> None: ...

        async def start(self) -> None:
            raise OSError("no loopback")

    monkeypatch.setattr(machine, "SbiServer", Dead)
    assert (await machine.http2()).level is Level.FAIL


def test_a_missing_folder_is_misuse() -> None:
    assert run("--dir", "/nowhere/at/all").exit_code == 2


def test_every_finding_is_a_whole_sentence(tmp_path: Path) -> None:
    checks: list[Check] = [machine.python(), machine.sqlite(), machine.kernel(), machine.disk(tmp_path)]
    assert all(check.sentence.endswith(".") for check in checks)
