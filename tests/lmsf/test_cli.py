"""The commands of `outrider service` and `outrider migration`: exit codes, words and JSON; and once for real."""

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from outrider.cli import migration, network, package, partner, permission, service

A, B = "999-70", "999-71-000007ed9d5"
EXAMPLE = Path(__file__).parents[2] / "examples" / "group-coordination"
APPS = {
    "network": network.app,
    "partner": partner.app,
    "package": package.app,
    "permission": permission.app,
    "service": service.app,
    "migration": migration.app,
}


def run(noun: str, *args: object, code: int = 0) -> Any:
    """Run a command; its JSON if it was asked for, else its words (both streams)."""
    result = CliRunner().invoke(APPS[noun], [str(a) for a in args])
    assert result.exit_code == code, (noun, args, result.exit_code, result.output, result.exception)
    return json.loads(result.stdout) if "--json" in args else result.output


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    run("network", "init", tmp_path / "a", "--id", A, "--sbi-port", 0)
    return tmp_path / "a"


VERBS = {
    "service": ("deploy", "list", "show", "remove", "begin-anew"),
    "migration": ("start", "watch", "list", "show", "abort", "return", "declare-lost"),
}


@pytest.mark.parametrize(("noun", "verb"), [(noun, verb) for noun, verbs in VERBS.items() for verb in verbs])
def test_every_command_has_an_example(noun: str, verb: str) -> None:
    assert "Example: outrider" in run(noun, verb, "--help").replace("\n", " ")


@pytest.mark.parametrize(
    ("noun", "args"),
    [("service", ["list"]), ("service", ["show", "x"]), ("migration", ["list"]), ("migration", ["abort", "m-1"])],
)
def test_without_a_running_node_the_exit_code_is_3(directory: Path, noun: str, args: list[str]) -> None:
    assert "NODE_DOWN" in run(noun, *args, "--dir", directory, code=3)


@pytest.mark.parametrize(
    ("noun", "args"),
    [
        ("migration", ["start", "s", "--to", B, "--stay", "soon"]),
        ("migration", ["start", "s"]),
        ("migration", ["show"]),
        ("migration", ["declare-lost", "m-1"]),
        ("migration", ["declare-lost", "m-1", "--store", "s"]),
        ("migration", ["declare-lost", "m-1", "--store", "s", "--json"]),
        ("service", ["deploy", "/nowhere.lms"]),
        ("service", ["remove", "s"]),
        ("service", ["remove", "s", "--json"]),
        ("service", ["begin-anew", "s"]),
        ("service", ["begin-anew", "s", "--json"]),
    ],
)
def test_misuse_has_the_exit_code_2(directory: Path, noun: str, args: list[str]) -> None:
    CliRunner().invoke(APPS[noun], [*args, "--dir", str(directory)])
    result = CliRunner().invoke(APPS[noun], [*args, "--dir", str(directory)])
    assert result.exit_code == 2, result.output


def test_a_service_whose_store_is_lost_is_shown_with_cause_and_remedy_and_when_it_began_anew() -> None:
    shown = {
        "service": "s", "version": "1", "hosted": False, "home": A, "sentence": "There is no store.",
        "packageDigest": "d", "instances": [], "apiRoot": None, "migrationId": None, "keeper": None,
        "refusal": {"code": "STORE_LOST", "sentence": "There is no store.", "remedy": "Put it back."},
        "begunAnew": [{"atMs": 0, "by": "Ada", "lost": {"storeId": "s1"}, "sentence": "the disk burnt"}],
    }  # fmt: skip
    text = service.describe(shown)
    assert "s 1 (own): There is no store." in text
    assert "cause     STORE_LOST" in text
    assert "remedy    Put it back." in text
    assert "anew      1970-01-01T00:00:00+00:00 by Ada: store s1 was lost. the disk burnt" in text


def test_the_folder_can_come_from_the_environment(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTRIDER_DIR", str(directory))
    assert "NODE_DOWN" in run("service", "list", code=3)


@pytest.mark.parametrize(("text", "value"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1.5d", 129_600), (None, None)])
def test_durations(text: str | None, value: float | None) -> None:
    from outrider.cli.client import seconds

    assert seconds(text) == value


class Told:
    """Stands where the node stands, and answers what it is told to, the last of it for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: dict[str, Any]) -> None:
        self.asked: list[tuple[str, Any]] = []
        self._answers = list(answers)
        monkeypatch.setattr(migration, "run", lambda directory, as_json, do: asyncio.run(do(self)))
        monkeypatch.setattr(migration, "_POLL_S", 0)

    async def ask(self, method: str, path: str, json: object = None) -> Any:
        if method == "POST":
            self.asked.append((path.rpartition("/")[2], json))
        return dict(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])


def shown(phase: str, **more: Any) -> dict[str, Any]:
    ending = {"cause": "NO_ROOM", "sentence": "the target is full", "by": B} if phase.startswith("ABORT") else None
    return {
        "migrationId": "m-1", "service": "s", "source": A, "target": B, "phase": phase, "sentence": phase.lower(),
        "waitingFor": "something", "over": phase in ("ABORTED", "RETIRED"), "progress": None, "ending": ending,
        "refusals": [], "readLogOf": None, "undone": [], "inDoubt": [], "unreachableUes": 0, "createdMs": 0,
        "phases": {}, "loss": None, "partner": {"network": B, "answers": True, "phase": phase, "storeId": "s-1"},
    } | more  # fmt: skip


def test_waiting_says_each_state_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Told(monkeypatch, shown("NEGOTIATING"), shown("COPYING"), shown("COPYING"), shown("RELOCATING"))
    words = run("migration", "start", "s", "--to", B, "--dir", directory, "--wait")
    assert [words.count(f"→ {B}: {phase}, ") for phase in ("COPYING", "RELOCATING")] == [1, 1]


def test_aborting_again_says_that_and_why_it_was_aborted_before(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Told(monkeypatch, shown("ABORTED"))
    words = run("migration", "abort", "m-1", "--dir", directory)
    assert words.startswith("It was aborted already: the target is full (NO_ROOM).")
    assert run("migration", "abort", "m-1", "--dir", directory, "--json")["already"] is True


def test_aborting_what_runs_says_nothing_of_before(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Told(monkeypatch, shown("SETTLED"), shown("ABORTING"))
    assert "already" not in run("migration", "abort", "m-1", "--dir", directory)


def test_what_is_over_cannot_be_aborted(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Told(monkeypatch, shown("RETIRED"))
    assert "RETIRED" in run("migration", "abort", "m-1", "--dir", directory, code=1)


def test_what_is_lost_with_a_store_is_told(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [{"key": "ue:01", "ues": 1, "epoch": 3, "shadow": "behind"}]
    loss = {"storeId": "s-1", "ues": 7, "shared": 1, "shadow": {"unknown": 0, "behind": 1, "followed": 6},
            "behindEntries": 2, "keys": keys, "moreKeys": 0}  # fmt: skip
    node = Told(monkeypatch, shown("ABORTING", loss=loss))
    words = run("migration", "declare-lost", "m-1", "--store", "s-1", "--dir", directory, "--yes", "--reason", "fire")
    assert node.asked == [("declare-lost", {"storeId": "s-1", "sentence": "fire"})]
    assert "taken back: 7 UEs, shared objects: 1" in words
    assert "2 commits that it had told of are missing" in words
    assert "ue:01" in words


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for one in sockets:
        one.close()
    return ports


def _set_up(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two networks that know each other, and the example's package, built and signed."""
    a, b = tmp_path / "a", tmp_path / "b"
    run("network", "init", a, "--id", A, "--sbi-port", 0)
    run("network", "init", b, "--id", B, "--sbi-port", 0)
    ports = _free_ports(4)
    for one, other, (control, bulk) in ((a, B, ports[:2]), (b, A, ports[2:])):
        listen = ["--listen-control", control, "--listen-bulk", bulk]
        run("partner", "invite", other, "--dir", one, "-o", tmp_path / f"from-{one.name}", *listen)
    run("partner", "add", tmp_path / "from-a", "--dir", b, "--yes")
    run("partner", "add", tmp_path / "from-b", "--dir", a, "--yes")
    run("package", "keygen", "--vendor", "outrider-examples", "-o", tmp_path / "vendor.key")
    for one in (a, b):
        (one / "vendors" / "vendor.pub").write_bytes((tmp_path / "vendor.pub").read_bytes())
    built = run("package", "build", EXAMPLE, "--key", tmp_path / "vendor.key", "-o", tmp_path, "--json")
    return a, b, Path(built["file"])


@pytest.mark.slow
async def test_from_two_terminals_out_and_back(tmp_path: Path) -> None:
    from outrider.network.node import Node

    def go(noun: str, *args: object, code: int = 0) -> Any:
        return asyncio.to_thread(run, noun, *args, code=code)

    # The nodes run in this process, and the commands' stdout must be theirs alone.
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(sys.__stderr__))
    a, b, archive = await asyncio.to_thread(_set_up, tmp_path)
    nodes = [Node(a), Node(b)]
    for node in nodes:
        await node.start()
    try:
        deployed = await go("service", "deploy", archive, "--dir", a, "--json")
        name = deployed["service"]
        assert (deployed["state"], deployed["keeper"]["worker"]["alive"]) == ("RUNNING", True)
        assert "own" in await go("service", "list", "--dir", a)
        assert "nsmf-groupsession" in await go("service", "show", name, "--dir", a)

        refused = await go("migration", "start", name, "--to", B, "--dir", a, "--wait", "--json", code=1)
        assert (refused["phase"], refused["ending"]["cause"]) == ("ABORTED", "PERMISSION_MISSING")
        unknown = await go("migration", "start", "nothing", "--to", B, "--dir", a, "--json", code=1)
        assert unknown["refusals"][0]["code"] == "SERVICE_UNKNOWN"

        terms = ["--source", A, "--target", B, "--home", A, "--days", 1]
        for one in (a, b):
            await go("permission", "sign", archive, "--dir", one, *terms, "-o", tmp_path / f"{one.name}.permission")
        await go("permission", "upload", tmp_path / "b.permission", "--dir", b)
        handed = ["--permission", tmp_path / "a.permission"]
        started = await go("migration", "start", name, "--to", B, "--dir", a, *handed, "--move-all", "--json")
        migrated = started["migrationId"]
        words = await go("migration", "watch", migrated, "--dir", b, "--until", "SETTLED")
        assert words.strip().splitlines()[-1].split()[5].strip(",:") == "SETTLED"
        assert "hosted for 999-70" in await go("service", "list", "--dir", b)
        assert migrated in await go("migration", "list", "--dir", b)
        shown = await go("migration", "show", migrated, "--dir", a, "--events", "--contract", "--json")
        assert shown["contract"]["moveAll"] is True
        assert [e["phase"] for e in shown["events"]][-1] == "SETTLED"

        returned = await go("migration", "return", migrated, "--dir", b, "--wait", "--json")
        assert (returned["phase"], returned["over"]) == ("RETIRED", True)
        assert "No services yet" in await go("service", "list", "--dir", b)
        aborted = await go("migration", "abort", migrated, "--dir", a, "--json", code=1)
        assert aborted["phase"] == "RETIRED", "an end is never left"
        await go("service", "remove", name, "--dir", a, "--yes")
        assert "No services yet" in await go("service", "list", "--dir", a)
    finally:
        for node in nodes:
            await node.stop()
        structlog.configure(logger_factory=structlog.PrintLoggerFactory())
