"""How commands ask the running node of a folder: JSON over its internal listener, with the operator's token."""

import asyncio
import getpass
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer

from outrider.cli.outcome import UNREACHABLE, ending
from outrider.core.refusal import Refused

if TYPE_CHECKING:
    from outrider.network.reach import Reach
    from outrider.sbi.http import Response

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NetworkDir = Annotated[
    Path, typer.Option("--dir", envvar="OUTRIDER_DIR", help="The network's folder.", exists=True, file_okay=False)
]

_SPAN = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h|d)$")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str | None) -> float | None:
    """A duration such as `90s`, `10m`, `2h` or `7d`."""
    if text is None:
        return None
    match = _SPAN.match(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no duration: write 90s, 10m, 2h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def user() -> str:
    """Who gives a command, as the machine knows it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return "the operator"


class Operator:
    """The operator's requests to the node; a "no" of the node is raised as `Refused`."""

    def __init__(self, reach: "Reach") -> None:
        self._reach = reach

    async def ask(
        self,
        method: str,
        path: str,
        json: object = msgspec.UNSET,
        *,
        body: bytes = b"",
        headers: Sequence[tuple[str, str]] = (),
        timeout_s: float = 10.0,
    ) -> Any:
        """The JSON of the answer, None if it has none. The scope is the API's name, the first part of the path."""
        scope = path.split("/")[1]
        response = await self._reach.request(
            method, path, scope=scope, headers=headers, body=body, json=json, timeout_s=timeout_s
        )
        if response.status >= 400:
            raise _refused(response)
        return response.json() if response.body else None

    async def content(self, path: str, *, headers: Sequence[tuple[str, str]] = ()) -> bytes:
        """The body of an answer that is no JSON."""
        response = await self._reach.request("GET", path, scope=path.split("/")[1], headers=headers)
        if response.status >= 400 or not response.body:
            raise _refused(response)
        return response.body


def _refused(response: "Response") -> Refused:
    from outrider.sbi.problem import refusals_from

    return Refused(*refusals_from(response, f"The node answered {response.status}."))


def run(directory: Path, as_json: bool, do: Callable[[Operator], Awaitable[T]]) -> T:
    """Do something with the node of a folder, and end the command as `outcome` says if that fails."""
    from outrider.network.reach import Reach

    async def connected() -> T:
        async with Reach(directory) as reach:
            return await do(Operator(reach))

    with ending(as_json):
        try:
            return asyncio.run(connected())
        except Refused as refused:
            if refused.refusal.code not in ("NODE_DOWN", "TARGET_NF_NOT_REACHABLE"):
                raise
            typer.secho(str(refused.refusal), err=True, fg="red")
            raise typer.Exit(UNREACHABLE) from None
    raise AssertionError("unreachable")  # `ending` swallows nothing
