"""Runs one unit of work through the NF services of a package: a `Run` in, a `Proposal` or a `Failure` out.

It knows neither sockets nor stores, so the worker process and the test kit run the same code.
"""

import traceback
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TypeVar

from outrider.sdk import asgi, wire
from outrider.sdk.service import Message, NfService, Timer
from outrider.sdk.unit import Calls, Frame, Reject, Reply, Unit, Work, entered

TRACEBACK_FRAMES = 6
TRACEBACK_CHARACTERS = 4_000

Handler = TypeVar("Handler")
ReadShared = Callable[[str], Awaitable[list[tuple[str, str, bytes]]]]


class Engine:
    """The NF services of one package, ready to run units; many at the same time."""

    def __init__(self, services: Mapping[str, NfService], log: Callable[[str, str], None]) -> None:
        self.services = services
        self._log = log
        self._lifespans = {name: asgi.Lifespan(service.app) for name, service in services.items()}

    async def start(self) -> None:
        """Run the apps' lifespan startup."""
        for lifespan in self._lifespans.values():
            await lifespan.start()

    async def stop(self) -> None:
        """Run the apps' lifespan shutdown."""
        for lifespan in reversed(self._lifespans.values()):
            await lifespan.stop()

    def handlers(self, what: str) -> list[tuple[str, str]]:
        """The (NF service, name) of all `timer` or `message` handlers."""
        return [(nf, name) for nf, service in self.services.items() for name in _handlers(service, what)]

    async def run(self, run: wire.Run, read: ReadShared) -> wire.Proposal | wire.Failure:
        """Run one unit to its end; never raises but for cancellation."""
        work = Work(run, Calls(read, self._sibling, self._handles))
        if run.kind == "timer":
            # It has fired, so it is armed no more; the keeper says the same by its generation.
            work.timers.pop((run.nf, run.name), None)
        try:
            return await self._dispatch(work, run)
        except (Exception, SystemExit) as error:
            return wire.Failure(run.unit, explain(error))
        finally:
            work.close()

    async def _dispatch(self, work: Work, run: wire.Run) -> wire.Proposal:
        frame = Frame()
        match run.kind:
            case "request":
                answer = await self._http(work, frame, run.nf, run.method, run.path, run.query, run.headers, run.body)
                return _propose(run.unit, frame, answer)
            case "timer":
                handler = _handler(run.nf, self._service(run.nf).timers, "on_timer", run.name)
                return await self._handle(work, frame, run.nf, handler(Timer(run.name, run.body)))
            case "message":
                receiver = _handler(run.nf, self._service(run.nf).messages, "on_message", run.name)
                return await self._handle(work, frame, run.nf, receiver(Message(run.name, run.body, run.entry_id)))
            case "arrival":
                for nf, service in self.services.items():
                    for arrived in service.arrivals:
                        with entered(Unit(work, frame, nf)):
                            await arrived()
                return _propose(run.unit, frame, asgi.Answer(200, [], b""))
            case other:
                raise LookupError(f"this worker does not know units of kind {other!r}")

    async def _handle(self, work: Work, frame: Frame, nf: str, handling: Awaitable[None]) -> wire.Proposal:
        try:
            with entered(Unit(work, frame, nf)):
                await handling
        except (Reject, BaseExceptionGroup) as error:
            return _propose(work.run.unit, frame, _rejected(_rejection(error)))
        return _propose(work.run.unit, frame, asgi.Answer(200, [], b""))

    async def _http(
        self,
        work: Work,
        frame: Frame,
        nf: str,
        method: str,
        path: str,
        query: str,
        headers: list[tuple[str, str]],
        body: bytes,
    ) -> asgi.Answer:
        service = self._service(nf)
        try:
            with entered(Unit(work, frame, nf)):
                state = self._lifespans[nf].state
                return await asgi.request(service, method, path, query, headers, body, state)
        except (Reject, BaseExceptionGroup) as error:
            return _rejected(_rejection(error))

    async def _sibling(
        self, work: Work, frame: Frame, nf: str, method: str, path: str, headers: list[tuple[str, str]], body: bytes
    ) -> Reply:
        self._service(nf)
        path, _, query = path.partition("?")
        try:
            return Reply(*await self._http(work, frame, nf, method, path, query, headers, body))
        except (Exception, SystemExit) as error:
            self._log("error", f"{nf}, called by a sibling, failed: {explain(error)}")
            return Reply(*_rejected(Reject(500, "SYSTEM_FAILURE", f"{nf} failed: {type(error).__name__}")))

    def _service(self, nf: str) -> NfService:
        if (service := self.services.get(nf)) is None:
            raise LookupError(f"this package has no NF service {nf!r}; it has {', '.join(sorted(self.services))}")
        return service

    def _handles(self, nf: str, what: str, name: str) -> bool:
        return name in _handlers(self._service(nf), what)


def _handlers(service: NfService, what: str) -> Mapping[str, object]:
    return service.timers if what == "timer" else service.messages


def _handler(nf: str, handlers: Mapping[str, Handler], what: str, name: str) -> Handler:
    if (handler := handlers.get(name)) is None:
        raise LookupError(f"{nf} has no {what} handler {name!r}")
    return handler


def _rejection(error: Reject | BaseExceptionGroup[BaseException]) -> Reject:
    """The rejection, also out of the task groups that a framework ran the handler in; raises anything else again."""
    inner: BaseException = error
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        inner = inner.exceptions[0]
    if isinstance(inner, Reject):
        return inner
    raise error


def _rejected(rejection: Reject) -> asgi.Answer:
    return asgi.Answer(rejection.status, rejection.headers, rejection.body)


def _propose(unit: int, frame: Frame, answer: asgi.Answer) -> wire.Proposal:
    frame.over = True
    if answer.status >= 400:
        return wire.Proposal(unit, answer.status, answer.headers, answer.body)
    return wire.Proposal(
        unit,
        answer.status,
        answer.headers,
        answer.body,
        [(nf, name, body) for (nf, name), body in frame.records.items()],
        [(nf, name, after_ms, data) for (nf, name), (after_ms, data) in frame.timers.items()],
        frame.sends,
    )


def explain(error: BaseException) -> str:
    """A traceback short enough for a log line: the innermost frames, and what was raised."""
    lines = traceback.format_exception(type(error), error, _innermost(error.__traceback__), chain=False)
    return "".join(lines).rstrip()[-TRACEBACK_CHARACTERS:]


def _innermost(trace: TracebackType | None) -> TracebackType | None:
    depth = sum(1 for _ in traceback.walk_tb(trace))
    while trace is not None and depth > TRACEBACK_FRAMES:
        trace = trace.tb_next
        depth -= 1
    return trace
