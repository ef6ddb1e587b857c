"""Where keepers spend their time while a service moves: py-spy beside each, if it is installed."""

import asyncio
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from outrider.demo.processes import ProcessFailed

TOP = 10
RATE = 100
"""Looks a second. Each stops the process for about a millisecond, so the figures of such a run are a little worse."""

LOOK_S = 0.1
ATTACH_S = 0.5
"""By then py-spy has ended if it may not look at a process."""

END_LIMIT_S = 20.0
_WAITING = ("(threading.py:", "(concurrent/futures/thread.py:")
"""Where a thread stands that has nothing to do; on some machines py-spy takes it for busy."""


class Hot(msgspec.Struct, frozen=True):
    """A function, and the samples in which it was the one that ran: how many, and their share of those that saw any."""

    function: str
    share: float
    samples: int


def tool() -> str | None:
    """The path of py-spy: beside this Python, or on the PATH."""
    return shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")


class Profile:
    """Recorders of processes, each into a file of collapsed stacks, as flame graph tools read them."""

    def __init__(self, pids: Callable[[], dict[str, int]], directory: Path, prefix: str) -> None:
        """`pids` names the processes that there are now; the target's keeper is not there from the beginning."""
        self._pids = pids
        self._directory = directory
        self._prefix = prefix
        self._files: dict[str, tuple[Path, asyncio.subprocess.Process]] = {}
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look, also at processes that come later; `ProcessFailed` if the first cannot be looked at."""
        self._directory.mkdir(parents=True, exist_ok=True)
        await self._look()
        self._watching = asyncio.create_task(self._watch())
        await asyncio.sleep(ATTACH_S)
        for name, (_, recorder) in self._files.items():
            if recorder.returncode is not None:
                _, said = await recorder.communicate()
                raise ProcessFailed(f"py-spy cannot look at {name}: {said.decode(errors='replace').strip()[-500:]}")

    async def stop(self) -> dict[str, list[Hot]]:
        """End the recorders, and read what they wrote."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        return {name: await _read(*recorder) for name, recorder in self._files.items()}

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self._look()

    async def _look(self) -> None:
        for name, pid in self._pids().items():
            if name not in self._files:
                file = self._directory / f"{self._prefix}-{name.replace(' ', '-').lower()}.folded"
                file.unlink(missing_ok=True)
                self._files[name] = file, await _record(pid, file)


async def _record(pid: int, file: Path) -> asyncio.subprocess.Process:
    path = tool()
    if path is None:
        raise ProcessFailed("py-spy is not installed: pip install 'outrider[bench]'")
    return await asyncio.create_subprocess_exec(
        path, "record", "--pid", str(pid), "--format", "raw", "--rate", str(RATE), "--function", "--output", str(file),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def _read(file: Path, recorder: asyncio.subprocess.Process) -> list[Hot]:
    if recorder.returncode is None:
        recorder.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(END_LIMIT_S):
            await recorder.communicate()
    except TimeoutError:
        recorder.kill()
        await recorder.communicate()
    # A process that ended as soon as it had begun leaves nothing.
    return hot(await asyncio.to_thread(file.read_text, errors="replace")) if file.exists() else []  # noqa: ASYNC240


def hot(folded: str) -> list[Hot]:
    """The functions that ran in most samples of a file of collapsed stacks; threads that wait for work do not run."""
    samples: Counter[str] = Counter()
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        function = stack.rpartition(";")[2]
        # A thread without a frame of Python is one of a library's own.
        if function and count.isdigit() and not any(place in function for place in _WAITING):
            samples[function] += int(count)
    total = sum(samples.values())
    return [Hot(function, round(count / total, 3), count) for function, count in samples.most_common(TOP)]
