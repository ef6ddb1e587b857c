"""The keeper's side of a worker: hands out units, believes nothing, and starts it again when it dies.

Whatever a worker does — dies, hangs, floods, lies — a unit ends with a proposal that keeps the rules, or with a
`WorkerFault`, within its time. Nothing here commits anything, so a fault never has an effect.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from outrider.core import limits
from outrider.core.manifest import Manifest
from outrider.core.refusal import Refusal, Refused
from outrider.host import sandbox, worker_process
from outrider.host.sandbox import Isolation
from outrider.host.worker_link import Link, ReadShared, WorkerFault
from outrider.sdk import wire

__all__ = ["OnLog", "ReadShared", "Worker", "WorkerFault", "WorkerStatus"]

OnLog = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """How a worker is; `isolation` is what its launcher reported. `pid` is 0 while there is no process."""

    pid: int
    alive: bool
    restarts: int
    isolation: Isolation


class Worker:
    """One package's NF services in one sandboxed process, kept running."""

    def __init__(
        self,
        package_dir: Path,
        manifest: Manifest,
        *,
        scratch: Path,
        network: dict[str, str],
        instances: dict[str, str],
        on_log: OnLog,
        require_isolation: bool = True,
    ) -> None:
        self._place = worker_process.Place(package_dir.absolute(), scratch.absolute())
        self._manifest = manifest
        self._network = network
        self._instances = instances
        self._on_log = on_log
        self._require_isolation = require_isolation
        self._link: Link | None = None
        self._started: worker_process.Started | None = None
        self._isolation = Isolation()
        self._restarts = 0
        self._backoff_ms = limits.WORKER_RESTART_MIN_MS
        self._since_s = 0.0
        self._ready = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it; returns when its NF services are loaded.

        Raises `Refused`: SANDBOX_ABSENT where isolation is required and impossible, WORKER_NOT_READY if the package's
        code does not load.
        """
        if self._require_isolation and not (offer := sandbox.available()).complete:
            raise Refused(sandbox_absent(offer))
        await self._launch()
        self._supervisor = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        """Let its apps shut down, then end it; returns when it is reaped."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        self._ready.clear()
        if self._link is not None:
            self._link.close("The worker is stopped.")
        if self._started is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._started.process.wait(), limits.WORKER_STOP_LIMIT_MS / 1000)
            await self._started.end()
            self._started = None

    async def ready(self) -> None:
        """Returns when it is alive, after a restart too."""
        while not self._alive():
            # The supervisor may not have seen yet that the last one is gone.
            self._ready.clear()
            await self._ready.wait()

    def status(self) -> WorkerStatus:
        """How it is now."""
        alive = self._alive()
        pid = self._started.process.pid if self._started is not None and alive else 0
        return WorkerStatus(pid, alive, self._restarts, self._isolation)

    def run(
        self, run: wire.Run, *, limit_ms: float, read_shared: ReadShared
    ) -> Coroutine[Any, Any, wire.Proposal | WorkerFault]:
        """Run one unit; `run.unit` must be new among those in flight. The proposal keeps the rules (`sdk.rules`).

        `network` and `instances` are filled in where the run has none.
        """
        if self._link is None or not self._alive():
            return _away()
        if not run.network:
            run = msgspec.structs.replace(run, network=self._network, instances=self._instances)
        return self._link.run(run, limit_ms / 1000, read_shared)

    def _alive(self) -> bool:
        return self._link is not None and self._link.alive and self._ready.is_set()

    async def _launch(self) -> None:
        started = await worker_process.start(self._place, self._manifest, required=self._require_isolation)
        names = frozenset(spec.name for spec in self._manifest.nf_services)
        link = Link(names, self._on_log)
        try:
            async with asyncio.timeout(limits.WORKER_START_LIMIT_MS / 1000):
                self._isolation, _ = await started.report()
                if self._require_isolation and not self._isolation.complete:
                    raise Refused(sandbox_absent(self._isolation))
                await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=started.connection)
                await link.greeted()
        except BaseException as error:
            link.close("The worker did not start.")
            status = await started.end()
            if isinstance(error, Refused) or not isinstance(error, Exception):
                raise
            raise Refused(self._not_ready(error, link, status)) from error
        self._started, self._link = started, link
        self._since_s = time.monotonic()
        self._ready.set()

    def _not_ready(self, error: Exception, link: Link, status: int) -> Refusal:
        tail = self._place.output_tail()
        reason = "it took too long to load" if isinstance(error, TimeoutError) else link.reason or str(error)
        last = tail.splitlines()[-1] if tail else f"it ended with status {status}"
        return Refusal(
            "WORKER_NOT_READY",
            f"The worker of {self._manifest.service} {self._manifest.version} does not start: {reason} ({last}).",
            {"output": tail} if tail else {},
            "Run the package's test kit on this Python, and look at the output.",
            status=500,
        )

    async def _supervise(self) -> None:
        """End and reap each worker that dies or misbehaves, and start the next one."""
        while True:
            assert self._link is not None
            assert self._started is not None
            await self._watch(self._link)
            self._ready.clear()
            status = await self._started.end()
            lived_ms = (time.monotonic() - self._since_s) * 1000
            if lived_ms >= limits.WORKER_STEADY_MS:
                self._backoff_ms = limits.WORKER_RESTART_MIN_MS
            tail = self._place.output_tail()
            self._on_log(
                "error",
                f"The worker is gone ({_how(status)}): {self._link.reason} It is started again."
                + (f" Its last output: {tail}" if tail else ""),
            )
            await self._restart()

    async def _watch(self, link: Link) -> None:
        """Returns when the worker is lost; it is, too, when it fills the disk."""
        while True:
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`: of Python 3.11 it may swallow the cancellation of `stop`.
                async with asyncio.timeout(limits.WORKER_SCRATCH_CHECK_MS / 1000):
                    await link.lost()
                return
            if (excess := self._place.excess()) is not None:
                link.close(f"It has {excess}.")

    async def _restart(self) -> None:
        while True:
            await asyncio.sleep(self._backoff_ms / 1000)
            self._backoff_ms = min(2 * self._backoff_ms, limits.WORKER_RESTART_MAX_MS)
            try:
                await self._launch()
            except Refused as refused:
                self._on_log("error", str(refused.refusal))
            except OSError as error:
                self._on_log("error", f"The worker could not be started: {error}.")
            else:
                self._restarts += 1
                return


async def _away() -> WorkerFault:
    return WorkerFault("WORKER_DIED", "The worker is being started again.")


def sandbox_absent(isolation: Isolation) -> Refusal:
    """Why a foreign package's code does not run on this machine."""
    return Refusal(
        "SANDBOX_ABSENT",
        f"This machine cannot isolate foreign code ({isolation.why_not()}).",
        dict(isolation.absent),
        "Use a Linux kernel from 5.13 with Landlock and seccomp enabled, on x86_64 or aarch64.",
    )


def _how(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"
