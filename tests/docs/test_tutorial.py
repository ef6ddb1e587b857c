"""The tutorial is executed: every command of the page, in two shells, and what it printed is what the page shows."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/tutorial/first-migration.md"

PORTS = (7770, 7780, 7781, 7870, 7880, 7881)
"""What the page's two networks listen on."""

BLOCK_LIMIT_S = 120

_PART = re.compile(
    r"^\*\*(?P<who>Terminal A|Terminal B|Both terminals)\*\*$|^```(?P<kind>sh|text)\n(?P<body>.*?)^```$", re.M | re.S
)

_CHANGES = [
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UUID"),
    (r"\bm-[0-9a-f]{16}\b", "MIGRATION"),
    (r"\b[0-9a-f]{32,64}\b", "HEX"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?", "TIME"),
    (r"\d\d:\d\d:\d\d\.\d{3}Z", "TIME"),
    (r"\+\d+\.\d{3} s", "+TIME"),
    (r"process \d+", "process PID"),
    (r"(?<=127\.0\.0\.1:)(?!7[78]\d\d\b)\d{4,5}", "PORT"),
    (r"[\d,]+ bytes", "SIZE"),
    (r"\b([0-9A-F]{4} ){7}[0-9A-F]{4}\b", "FINGERPRINT"),
    (r"Python 3\.\d+", "Python"),
    (r"\b(x86_64|aarch64)\b", "MACHINE"),
    (r"^(\s*wheel\s+\S+) \S+,", r"\1 VERSION,"),
    (r"All \d+ checks", "All checks"),
    (r"\s+", " "),
]
"""What differs from run to run and from machine to machine."""

_BY_CHANCE = re.compile(r"; waiting for |^\s*partner\s|\sPeerIs\s|^….*|^\s*…$")
"""Lines that show a moment: which of them a run shows depends on when it looked."""

_FINGERPRINT = re.compile(r"\b(?:[0-9A-F]{4} ){7}[0-9A-F]{4}\b")


class Block(NamedTuple):
    """Commands of one terminal, and what the page says that they print."""

    who: str
    commands: str
    printed: str


def blocks() -> list[Block]:
    """The page, block by block; the text after commands is of the last of them."""
    found: list[Block] = []
    who = "Both terminals"
    for part in _PART.finditer(PAGE.read_text(encoding="utf-8")):
        if part["who"]:
            who = part["who"]
        elif part["kind"] == "sh":
            found.append(Block(who, part["body"], ""))
        else:
            found[-1] = found[-1]._replace(printed=part["body"])
    return found


class Terminal:
    """A shell that stays; what its commands print, errors too, goes to the file that was asked for last."""

    def __init__(self, home: Path) -> None:
        environment = {**os.environ, "HOME": str(home), "OUTRIDER": str(ROOT), "COLUMNS": "200"}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        self._shell = subprocess.Popen(
            ["bash", "--norc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment, cwd=home, text=True, bufsize=1, start_new_session=True,
        )  # fmt: skip

    def run(self, commands: str) -> str:
        """Run commands to their end; what they printed."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        late = threading.Timer(BLOCK_LIMIT_S, self.close)
        late.start()
        self._shell.stdin.write(f"{commands}\necho ::end\n")
        printed = []
        while (line := self._shell.stdout.readline()).rstrip() != "::end":
            assert line, f"the shell ended, or took more than {BLOCK_LIMIT_S} s, after:\n{commands}{''.join(printed)}"
            printed.append(line)
        late.cancel()
        return "".join(printed)

    def close(self) -> None:
        """End the shell and all that it started."""
        if self._shell.poll() is None:
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait()


def plain(line: str) -> str:
    """A line without what differs from run to run."""
    for pattern, replacement in _CHANGES:
        line = re.sub(pattern, replacement, line)
    return line.strip()


def missing(expected: str, printed: str) -> list[str]:
    """Lines of the page that the run did not print."""
    there = {plain(line) for line in printed.splitlines()}
    wanted = [line for line in expected.splitlines() if line.strip() and not _BY_CHANCE.search(line)]
    return [line for line in wanted if plain(line) not in there]


@pytest.fixture
def terminals() -> Iterator[dict[str, Terminal]]:
    for tool in ("bash", "curl", "jq"):
        if shutil.which(tool) is None:
            pytest.skip(f"the tutorial needs {tool}")
    for port in PORTS:
        with socket.socket() as busy:
            if busy.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"port {port}, which the tutorial uses, is taken on this machine")
    with tempfile.TemporaryDirectory(prefix="tutorial-") as home:
        found = {}
        for who, place in (("Terminal A", "rail"), ("Terminal B", "port")):
            directory = Path(home) / "first-migration" / place
            directory.mkdir(parents=True)
            found[who] = Terminal(Path(home))
            found[who].run(f"cd {directory}")
        yield found
        for terminal in found.values():
            terminal.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorial_runs_as_it_is_written(terminals: dict[str, Terminal]) -> None:
    prepare, *rest = blocks()
    assert "make .venv/.ready" in prepare.commands  # what the fixture stands for
    said: dict[str, str] = {}  # fingerprints of the page, and of this run
    for block in rest:
        commands = block.commands
        for of_the_page, of_this_run in said.items():
            commands = commands.replace(of_the_page, of_this_run)
        for who, terminal in terminals.items():
            if block.who in (who, "Both terminals"):
                printed = terminal.run(commands)
                assert not missing(block.printed, printed), f"{who}, after:\n{commands}\nprinted:\n{printed}"
                said |= zip(_FINGERPRINT.findall(block.printed), _FINGERPRINT.findall(printed), strict=True)


def test_a_line_that_was_not_printed_is_missed() -> None:
    expected = "a: network 999-70 (plmn)\n  worker    runs, process 10385\n"
    assert missing(expected, "a: network 999-70 (plmn)\n  worker    runs, process 7\n") == []
    assert missing(expected, "a: network 999-70 (plmn)\n  worker    is dead\n") == ["  worker    runs, process 10385"]
