"""An event loop with its own time and its own chance, that knows which simulated process each callback belongs to.

Time stands still while something can run and leaps to the next timer when nothing can. Callbacks of one process run
in the order in which they became ready, as in any asyncio loop; which process runs next is drawn. So what is tried is
every order that several machines could have, and none that one loop could not.

A process is a name in the context of its callbacks: tasks and timers inherit it. `kill` is therefore `kill -9`: not
one callback of that process runs any more, no `finally`, no `except`.
"""

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import Any

PROCESS: contextvars.ContextVar[str] = contextvars.ContextVar("process", default="")
"""The simulated process that a callback belongs to; empty for the world itself, which no fault touches."""

STEP_S = 20e-6
"""A callback takes up to so long."""

THREAD_S = 400e-6
"""What a thread does begins, and is told to the loop, up to so long later."""

BEGIN_S = 1_000.0


class Stuck(Exception):
    """Nothing can run and nothing is due: whoever waits would wait for ever."""


def context(process: str) -> contextvars.Context:
    """A context for what a process does."""
    made = contextvars.copy_context()
    made.run(PROCESS.set, process)
    return made


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module."""

    def __init__(self, seed: str) -> None:
        super().__init__()
        self._chance = Random(f"{seed}/loop")
        self._time_s = BEGIN_S
        self._lines: dict[str, deque[asyncio.Handle]] = {}
        self._due: list[tuple[float, int, asyncio.Handle]] = []
        self._count = 0
        self._told_s: dict[str, float] = {}
        self._dead: set[str] = set()
        self._stopped: dict[str, float] = {}
        self._over = False
        self._kept: list[asyncio.Task[Any]] = []
        self.steps = 0

    # ------------------------------------------------------------------------------------- for the world

    def kill(self, process: str) -> None:
        """End a process between two of its callbacks."""
        self._kept += asyncio.all_tasks(self)  # else Python would run their `finally`, which a killed process does not
        self._dead.add(process)
        self._lines.pop(process, None)

    def killed(self, process: str) -> bool:
        """Whether a process was ended."""
        return process in self._dead

    def pause(self, process: str, until_s: float) -> None:
        """Let a process do nothing until then, as SIGSTOP or a machine without memory does."""
        self._stopped[process] = until_s

    def end(self) -> None:
        """Clear away what is left of all processes, and close."""
        self._over = True
        self.set_task_factory(_no_more)  # type: ignore[arg-type]
        left = {*self._kept, *asyncio.all_tasks(self)}
        asyncio._set_running_loop(self)
        try:
            for task in left:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    with suppress(BaseException):
                        task.get_coro().close()
        finally:
            asyncio._set_running_loop(None)
        self.close()

    # -------------------------------------------------------------------------------- what asyncio calls

    def time(self) -> float:
        """Virtual seconds."""
        return self._time_s

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Run it in the next turn of its process."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready_now(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """What another thread says to the loop is heard a moment later, in order."""
        process = PROCESS.get()
        when = max(self._time_s + self._chance.random() * THREAD_S, self._told_s.get(process, 0.0) + 1e-9)
        self._told_s[process] = when
        return self.call_at(when, callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Run it so many virtual seconds from now."""
        return self.call_at(self._time_s + max(0.0, delay), callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Run it at a virtual instant."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._due, (when, self._count, handle))
        return handle

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """A thread: it begins a moment later, does its work at one instant, and is heard a moment after that."""
        future: asyncio.Future[Any] = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:
                self.call_soon_threadsafe(_fail, future, error)
            else:
                self.call_soon_threadsafe(_finish, future, result)

        self.call_later(self._chance.random() * THREAD_S, work)
        return future

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _run_once(self) -> None:
        """Let one callback of one process run."""
        line = self._next_line()
        handle = line.popleft()
        if not handle.cancelled():
            self.steps += 1
            handle._run()
            self._time_s += self._chance.random() * STEP_S

    # --------------------------------------------------------------------------------------------- turns

    def _next_line(self) -> deque[asyncio.Handle]:
        while True:
            while self._due and self._due[0][0] <= self._time_s:
                self._ready_now(heapq.heappop(self._due)[2])
            lines = [line for name, line in self._lines.items() if line and not self._stands(name)]
            if lines:
                return lines[0] if len(lines) == 1 else lines[int(self._chance.random() * len(lines))]
            self._leap()

    def _stands(self, process: str) -> bool:
        until_s = self._stopped.get(process)
        if until_s is not None and until_s <= self._time_s:
            del self._stopped[process]
            return False
        return until_s is not None

    def _leap(self) -> None:
        """Nothing can run: go to the next instant at which something can."""
        ends = [until_s for name, until_s in self._stopped.items() if self._lines.get(name)]
        if self._due:
            ends.append(self._due[0][0])
        if not ends:
            raise Stuck
        self._time_s = max(self._time_s, min(ends))

    def _ready_now(self, handle: asyncio.Handle) -> None:
        if self._over or handle.cancelled():
            return
        process = handle._context.get(PROCESS, "")  # type: ignore[attr-defined]
        if process in self._dead:
            return
        line = self._lines.get(process)
        if line is None:
            line = self._lines[process] = deque()
        line.append(handle)


def _finish(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _no_more(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **_: Any) -> asyncio.Future[Any]:
    coro.close()
    return loop.create_future()
