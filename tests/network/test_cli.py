import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from outrider.cli import network, partner
from outrider.network import state

app = typer.Typer()
app.add_typer(network.app, name="network")
app.add_typer(partner.app, name="partner")

A, B = "999-70", "999-71-000007ed9d5"


def run(*args: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args], input=stdin)


def ok(*args: str | Path) -> Any:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def nets(tmp_path: Path) -> tuple[Path, Path]:
    a, b = tmp_path / "a", tmp_path / "b"
    ok("network", "init", a, "--id", A, "--name", "Rail", "--sbi-port", "0")
    ok("network", "init", b, "--id", B, "--sbi-port", "0", "--border-port", "9780")
    return a, b


def test_two_networks_exchange_one_file_each_way(nets: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = nets
    for_b, for_a = tmp_path / "for-b.json", tmp_path / "for-a.json"
    said_by_a = ok("partner", "invite", B, "--dir", a, "-o", for_b)["fingerprint"]
    said_by_b = ok("partner", "invite", A, "--dir", b, "-o", for_a)["fingerprint"]
    assert ok("partner", "add", for_b, "--dir", b, "--fingerprint", said_by_a)["state"] == "ready"
    added = ok("partner", "add", for_a, "--dir", a, "--fingerprint", said_by_b.lower(), "--address", "192.0.2.9")
    assert added["address"] == {"host": "192.0.2.9", "controlPort": 9780, "bulkPort": 9781}
    [listed] = ok("partner", "list", "--dir", b)
    assert (listed["network"], listed["name"], listed["fingerprint"]) == (A, "Rail", said_by_a)
    assert ok("partner", "remove", A, "--dir", b) == {"removed": A}
    assert ok("partner", "list", "--dir", b) == []


def test_wrong_fingerprint_is_refused_and_nothing_is_stored(nets: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = nets
    card = tmp_path / "card.json"
    ok("partner", "invite", B, "--dir", a, "-o", card)
    result = run("partner", "add", card, "--dir", b, "--fingerprint", "DEAD BEEF")
    assert result.exit_code == 1
    assert "FINGERPRINT_DIFFERS" in result.output
    assert ok("partner", "list", "--dir", b) == []


def test_card_is_not_added_without_a_word_about_its_fingerprint(nets: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = nets
    card = tmp_path / "card.json"
    ok("partner", "invite", B, "--dir", a, "-o", card)
    assert run("partner", "add", card, "--dir", b).exit_code == 2
    assert run("partner", "add", card, "--dir", b, "--yes").exit_code == 0


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["network", "init", "DIR/a", "--id", A], 1),
        (["network", "init", "DIR/c", "--id", "99"], 2),
        (["network", "init", "DIR/c", "--id", A, "--kind", "wlan"], 2),
        (["network", "init", "DIR/c", "--id", A, "--kind", "snpn"], 1),
        (["network", "init", "DIR/c", "--id", A, "--border-port", "0"], 2),
        (["network", "init", "DIR/c", "--id", A, "--border-host", "a b"], 1),
        (["network", "run", "DIR/none"], 2),
        (["network", "run", "DIR/a", "--only", "udsf"], 2),
        (["network", "status", "--dir", "DIR/a"], 3),
        (["partner", "invite", A, "--dir", "DIR/a"], 1),
        (["partner", "invite", "x", "--dir", "DIR/a"], 2),
        (["partner", "remove", B, "--dir", "DIR/a"], 1),
        (["partner", "add", "DIR/a/network.toml", "--dir", "DIR/a", "--yes"], 1),
        (["partner", "list", "--dir", "DIR"], 1),
    ],
)
def test_exit_code_says_what_kind_of_no_it_is(nets: tuple[Path, Path], args: list[str], code: int) -> None:
    directory = str(nets[0].parent)
    result = run(*(a.replace("DIR", directory) for a in args))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "command", ["network init", "network run", "network status", "partner invite", "partner add", "partner list"]
)
def test_help_of_each_command_has_an_example(command: str) -> None:
    result = run(*command.split(), "--help")
    assert f"Example: outrider {command}" in result.output


def test_text_for_people_says_what_to_do_next(nets: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = nets
    invited = run("partner", "invite", B, "--dir", a, "-o", tmp_path / "card.json")
    assert "Read the fingerprint to the partner" in invited.output
    assert (
        f"Next: outrider partner invite {A}"
        in run("partner", "add", tmp_path / "card.json", "--dir", b, "--yes").output
    )
    assert "waiting for the card" in run("partner", "list", "--dir", a).output


RUN = "import sys; from outrider.cli.network import app; sys.argv[0] = 'outrider'; app()"


@pytest.fixture
def running(nets: tuple[Path, Path]) -> Iterator[tuple[Path, "subprocess.Popen[str]", dict[str, Any]]]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "run", str(nets[0]), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(process.communicate()[1])
    yield nets[0], process, json.loads(line)
    process.kill()
    process.wait()


def test_node_runs_tells_its_state_and_ends_cleanly(
    running: tuple[Path, "subprocess.Popen[str]", dict[str, Any]],
) -> None:
    folder, process, ready = running
    assert ready["ready"] is True
    assert ready["network"] == A
    status = ok("network", "status", "--dir", folder)
    assert status["pid"] == process.pid
    assert status["functions"] == ["nrf", "lmsf", "n32", "basic"]
    assert f"{A} (plmn) Rail is up since" in run("network", "status", "--dir", folder).output
    os.kill(process.pid, signal.SIGTERM)
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert all(json.loads(line)["event"] for line in log.splitlines())
    assert run("network", "status", "--dir", folder).exit_code == 3


def test_node_that_was_killed_is_told_as_down_and_starts_again(
    running: tuple[Path, "subprocess.Popen[str]", dict[str, Any]],
) -> None:
    folder, process, _ = running
    process.kill()
    process.wait()
    result = run("network", "status", "--dir", folder)
    assert result.exit_code == 3
    assert "does not answer" in result.output
    with state.lock(folder):
        pass


def test_port_that_is_taken_ends_the_node_with_its_cause(nets: tuple[Path, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        file = nets[0] / "network.toml"
        file.write_text(file.read_text().replace("port = 0", f"port = {holder.getsockname()[1]}"))
        ended = subprocess.run(
            [sys.executable, "-c", RUN, "run", str(file)], capture_output=True, text=True, check=False, timeout=30
        )
    assert ended.returncode == 1
    assert "PORT_TAKEN" in ended.stderr
