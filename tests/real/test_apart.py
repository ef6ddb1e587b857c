"""Two networks on one machine have nothing in common: neither opens the other's files, and identities stay at home.

A whole demo runs. Each system call that opens, renames or deletes a file is traced, from before the service is
deployed, where the machine has strace; everywhere, what the processes hold open and have mapped is looked at again and
again. What the target keeps is searched for SUPIs when the contexts are there and no UE is, and again when UEs are.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from rich.console import Console

from outrider.demo import course
from outrider.demo import run as demo
from outrider.demo.live import Screen, View
from outrider.demo.processes import Running
from outrider.demo.stage import HOME, TARGET, Stage

SUPI = b"imsi-99970"
CALLS = "open,openat,openat2,creat,execve,rename,renameat,renameat2,unlink,unlinkat,readlink,readlinkat"


class Observer:
    """Follows the processes of the two networks, and notes which files each uses."""

    def __init__(self, directory: Path) -> None:
        self.sides = {"a": directory / "a", "b": directory / "b"}
        self.used: dict[str, set[str]] = {"a": set(), "b": set()}
        self.kinds: dict[str, set[str]] = {"a": set(), "b": set()}
        self.supis: dict[str, int] = {}
        self.contexts_before = 0
        self._directory = directory
        self._traces: list[tuple[str, subprocess.Popen[bytes], Path]] = []

    async def watch(self) -> None:
        """Look at what is open and mapped, for ever."""
        while True:
            for pid, side, kind in self._processes():
                self.kinds[side].add(kind)
                self.used[side] |= set(_held(pid))
            await asyncio.sleep(0.05)

    def _processes(self) -> Iterator[tuple[int, str, str]]:
        """Node, keeper and worker of each side, known by the folder in their command line."""
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                command = Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            kinds = {"network\0run": "node", "outrider.host.keeper": "keeper", "host/launcher.py": "worker"}
            kind = next((kind for mark, kind in kinds.items() if mark in command), None)
            for side, folder in self.sides.items():
                if kind is not None and (f"{folder}/" in command or f"{folder}\0" in command):
                    yield int(entry), side, kind

    def trace(self) -> bool:
        """Trace the nodes and all that they start from now on, if the machine can."""
        if shutil.which("strace") is None:
            return False
        for pid, side, _ in list(self._processes()):
            output = self._directory / f"strace-{side}-{pid}"
            arguments = ["strace", "-f", "-qq", "-s", "4096", "-e", f"trace={CALLS}", "-o", str(output), "-p", str(pid)]
            self._traces.append((side, subprocess.Popen(arguments, stderr=subprocess.DEVNULL), output))
        return True

    def end(self) -> None:
        """Stop tracing, and add what was traced to what was seen."""
        for side, tracer, output in self._traces:
            if tracer.poll() is None:
                tracer.send_signal(signal.SIGINT)
            tracer.wait(10)
            for line in output.read_text(errors="replace").splitlines():
                self.used[side] |= set(line.split('"')[1::2])

    def foreign(self, side: str) -> list[str]:
        """Which files of the other side a side has used."""
        other = self.sides["b" if side == "a" else "a"]
        return sorted(path for path in self.used[side] if path == str(other) or path.startswith(f"{other}/"))

    def own(self, side: str) -> list[str]:
        return sorted(path for path in self.used[side] if path.startswith(f"{self.sides[side]}/"))

    def search(self, when: str) -> None:
        """Count the target's files that name a SUPI: stores with their logs, journals, log files."""
        target = self.sides["b"]
        files = [p for top in ("services", "log", "run") for p in (target / top).rglob("*") if p.is_file()]
        files += [p for p in (target / "lmsf").iterdir() if p.is_file()]
        found = [p for p in files if p.parent.name != "scratch" and SUPI in _read(p)]
        self.supis[when] = len(found)

    def count_contexts(self) -> None:
        [store] = self.sides["b"].glob("services/*/data/contexts.db")
        db = apsw.Connection(str(store), flags=apsw.SQLITE_OPEN_READONLY)
        self.contexts_before = int(str(db.execute("SELECT count(*) FROM head WHERE substr(k, 1, 1) = x'75'").get))
        db.close()


def _held(pid: int) -> Iterator[str]:
    """Files that a process has open or mapped."""
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{descriptor}")
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if "/" in line:
                yield line[line.index("/") :]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_neither_network_opens_the_others_files_and_no_supi_is_at_the_target_before_its_ue(
    tmp_path: Path, service_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Observer(tmp_path / "run")
    traced = False
    real_deploy: Callable[..., Any] = Stage.deploy
    real_order: Callable[..., Any] = Running.order
    real_bytes: Callable[..., Any] = Stage.relay_bytes
    asked = 0

    async def deploy(stage: Stage, source: Path) -> str:
        nonlocal traced
        traced = seen.trace()
        return str(await real_deploy(stage, source))

    async def order(process: Running, do: str, **more: Any) -> Any:
        if do == "travel":  # the contexts are at the target, and no UE has set out yet
            seen.count_contexts()
            seen.search("before arrival")
        return await real_order(process, do, **more)

    async def relay_bytes(stage: Stage) -> Any:
        nonlocal asked
        asked += 1
        if asked == 2:  # the group is there
            seen.search("after arrival")
        return await real_bytes(stage)

    monkeypatch.setattr(Stage, "deploy", deploy)
    monkeypatch.setattr(Running, "order", order)
    monkeypatch.setattr(Stage, "relay_bytes", relay_bytes)
    watching = asyncio.create_task(seen.watch())
    try:
        with Screen(View(HOME, TARGET), Console(quiet=True)) as screen:
            options = course.Options(service_dir, ues=20, rate=0.5, keep=tmp_path / "run")
            report = await demo.run(options, screen)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        seen.end()
    assert (report.requests_lost, report.requests_duplicated, report.owner_conflicts) == (0, 0, 0)

    assert seen.kinds == {"a": {"node", "keeper", "worker"}, "b": {"node", "keeper", "worker"}}
    for side in ("a", "b"):
        # The observation itself works: each side's own store is in it, and where calls are traced, so are its keys.
        assert any(path.endswith("contexts.db") for path in seen.own(side))
        assert not traced or any("keeper.json" in path for path in seen.own(side))
        assert seen.foreign(side) == []

    assert seen.contexts_before >= report.ues
    assert seen.supis["before arrival"] == 0
    assert seen.supis["after arrival"] > 0, "the search finds what is there"
