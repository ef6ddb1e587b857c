"""A request and a response as values: what every SBI function is written in terms of."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec


class Request(msgspec.Struct, frozen=True):
    """An HTTP request, read whole. Header names are lower-case; `path` is without the query."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = {}
    body: bytes = b""
    params: Mapping[str, str] = {}
    """Variables of the route's template, decoded."""

    def json(self) -> Any:
        """The body as JSON; `msgspec.DecodeError` if it is none."""
        return msgspec.json.decode(self.body)

    def args(self) -> dict[str, list[str]]:
        """The query's parameters, decoded."""
        return parse_qs(self.query, keep_blank_values=True)


class Response(msgspec.Struct, frozen=True):
    """An HTTP response."""

    status: int
    headers: list[tuple[str, str]] = []
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The first header of that (lower-case) name."""
        return next((v for k, v in self.headers if k.lower() == name), None)

    def json(self) -> Any:
        """The body as JSON; `msgspec.DecodeError` if it is none."""
        return msgspec.json.decode(self.body)


Handler = Callable[[Request], Awaitable[Response]]
"""Anything that answers requests: a function, a router, a whole NF."""
