"""Where a process is asked: each request is a task of it, and when it ends none of them is answered any more."""

from collections.abc import Callable, Coroutine
from typing import Any

from outrider.sbi.http import Handler, Request, Response

Answered = Callable[[Response | None], None]
"""Gets the answer; None if the process has ended before it answered."""


class Port:
    """The listener of one process after the other; while there is none, nobody listens."""

    def __init__(self, begin: Callable[[Coroutine[Any, Any, None]], None], said: Callable[[str], None]) -> None:
        """`begin` starts a task of the process that runs; `said` is told what a handler fails at."""
        self._begin = begin
        self._said = said
        self._handler: Handler | None = None
        self._answering: dict[int, Answered] = {}
        self._requests = 0

    def listen(self, handler: Handler) -> None:
        """A process listens from now on."""
        self._handler = handler

    def take(self, request: Request, answered: Answered) -> bool:
        """A request has come; False if nobody listens."""
        handler = self._handler
        if handler is None:
            return False
        self._requests += 1
        self._answering[self._requests] = answered
        self._begin(self._answer(handler, request, self._requests))
        return True

    async def _answer(self, handler: Handler, request: Request, number: int) -> None:
        try:
            response = await handler(request)
        except Exception as error:
            self._said(f"fails to answer {request.method} {request.path}: {error!r}")
            response = Response(500)
        answered = self._answering.pop(number, None)
        if answered is not None:
            answered(response)

    def gone(self) -> None:
        """The process has ended."""
        self._handler = None
        answering, self._answering = self._answering, {}
        for answered in answering.values():
            answered(None)
