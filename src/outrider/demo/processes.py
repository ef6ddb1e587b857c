"""Processes of a run: started here, spoken to in lines of JSON, and ended here by their pid."""

import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec


class ProcessFailed(Exception):
    """A process of the run ended, or a command failed; says which, and what it said last."""


async def together(*work: Coroutine[Any, Any, Any]) -> list[Any]:
    """Do all at the same time; if one fails, the others are ended first."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def command(*args: str, directory: Path | None = None, accept: tuple[int, ...] = (0,)) -> Any:
    """Run an `outrider` command with `--json` and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "outrider.cli.main", *args, "--json",
        cwd=directory, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    if process.returncode not in accept:
        said = (err or out).decode(errors="replace").strip()[-1500:]
        raise ProcessFailed(f"outrider {' '.join(args)}\nended with {process.returncode}:\n{said}")
    return msgspec.json.decode(out) if out.strip() else None


class Running:
    """A long-lived process that says one JSON object per line; orders go to its standard input."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self.said: dict[str, dict[str, Any]] = {}
        """The last line of each kind."""
        self._process = process
        self._log = log
        self._news: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._ordering = asyncio.Lock()
        self._reading = asyncio.create_task(self._read(), name=f"read {name}")

    @classmethod
    async def start(cls, name: str, log: Path, *args: str, env: dict[str, str] | None = None) -> "Running":
        """Start `python -m …` with its errors in a log file, and wait until it is ready."""
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *args,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
                env={**os.environ, **(env or {})}, limit=1 << 22,
            )  # fmt: skip
        running = cls(name, process, log)
        try:
            await running.heard("ready")
        except BaseException:
            await running.end()
            raise
        return running

    async def order(self, do: str, **more: Any) -> dict[str, Any]:
        """Give an order and wait until it is done; orders that are given together are obeyed one after the other."""
        async with self._ordering:
            self.forget("done")
            self.tell(do, **more)
            while True:
                said = await self.heard("done")
                if "error" in said:
                    raise ProcessFailed(f"{self.name} could not {do}: {said['error']}")
                if said["done"] == do:
                    return said
                self.forget("done")

    def tell(self, do: str, **more: Any) -> None:
        """Give an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode({"do": do, **more}) + b"\n")

    def forget(self, kind: str) -> None:
        """Wait for the next line of that kind, not the last."""
        self.said.pop(kind, None)
        self._news[kind].clear()

    async def heard(self, kind: str) -> dict[str, Any]:
        """The line of that kind; `ProcessFailed` if the process ends without it."""
        waiting = asyncio.create_task(self._news[kind].wait())
        ended = asyncio.create_task(self._process.wait())
        try:
            await asyncio.wait({waiting, ended, self._reading}, return_when=asyncio.FIRST_COMPLETED)
            if kind not in self.said:
                raise ProcessFailed(f"{self.name} ended with {await self._process.wait()}: {self._last()}")
            return self.said[kind]
        finally:
            waiting.cancel()
            ended.cancel()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.returncode is None

    async def end(self, limit_s: float = 10.0) -> None:
        """End it: politely, then not; and reap it."""
        if self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(limit_s):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await asyncio.gather(self._reading, return_exceptions=True)

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self._process.kill()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            try:
                said = msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError:
                continue
            for kind in said.keys() & {"ready", "done", "progress", "error", "pid"}:
                self.said[kind] = said
                self._news[kind].set()
            if "error" in said:
                self.said["done"] = said
                self._news["done"].set()

    def _last(self) -> str:
        text = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        return "\n".join(text[-8:]) or "it said nothing"
