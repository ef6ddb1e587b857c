"""A subscriber to the groups' presence: takes notifications, notes each with its id, and is away when told.

    python -m outrider.demo.notify_sink --history sink.jsonl

takes orders on stdin, one JSON object per line: {"do": "refuse"} (answer 503), {"do": "close"} (do not listen),
{"do": "up"}, {"do": "stats"}, {"do": "stop"}.
"""

import argparse
import time
from pathlib import Path
from typing import Literal

import msgspec
import uvloop

from outrider.demo import histories
from outrider.demo.histories import Notified
from outrider.demo.orders import orders, say
from outrider.sbi import headers
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import problem
from outrider.sbi.server import SbiServer

PATH = "/notifications"

State = Literal["up", "refusing", "closed"]


class Notification(msgspec.Struct, frozen=True, rename="camel"):
    """The body of a notification, as far as the order of a member's events needs it."""

    subscription_id: str
    group_id: str
    member: str
    number: int
    event: str = ""


class Sink:
    """An h2c server whose every answer is in the history before it leaves."""

    def __init__(self, history: histories.Writer, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._history = history
        self._host = host
        self._port = port
        self._server: SbiServer | None = None
        self.state: State = "closed"
        self.accepted = 0
        self.refused = 0

    @property
    def uri(self) -> str:
        """Where it wants to be notified; known after the first `up`."""
        return f"http://{self._host}:{self._port}{PATH}"

    async def up(self) -> None:
        """Listen, always on the same port, and accept."""
        if self._server is None:
            self._server = SbiServer(self._answer, host=self._host, port=self._port)
            await self._server.start()
            self._port = self._server.port
        self.state = "up"

    def refuse(self) -> None:
        """Answer 503 until `up`."""
        self.state = "refusing"

    async def close(self) -> None:
        """Do not listen until `up`."""
        if self._server is not None:
            await self._server.stop()
            self._server = None
        self.state = "closed"

    async def _answer(self, request: Request) -> Response:
        if request.method != "POST" or request.path != PATH:
            return problem(404, "RESOURCE_URI_STRUCTURE_NOT_FOUND", f"Notifications go to {PATH}.")
        key = headers.idempotency_key(request.headers.get(headers.REQUEST_INFO))
        if key is None:
            return problem(400, "MANDATORY_IE_MISSING", f"A notification has an id, in {headers.REQUEST_INFO}.")
        said = msgspec.json.decode(request.body, type=Notification)
        refusing = self.state != "up"
        self.refused += refusing
        self.accepted += not refusing
        line = Notified(
            at=time.monotonic(),
            id=key,
            subscription=said.subscription_id,
            group=said.group_id,
            member=said.member,
            number=said.number,
            status=503 if refusing else 204,
            event=said.event,
        )
        self._history.write(line)
        if refusing:
            return problem(503, "NF_CONGESTION", "The subscriber is away.", headers=[("retry-after", "1")])
        return Response(204)


async def _main(options: argparse.Namespace) -> None:
    with histories.Writer(options.history) as history:
        sink = Sink(history, port=options.port)
        await sink.up()
        say({"ready": True, "uri": sink.uri})
        async for order in orders():
            do = order.get("do")
            match do:
                case "up":
                    await sink.up()
                case "refuse":
                    sink.refuse()
                case "close":
                    await sink.close()
                case "stats":
                    pass
                case "stop":
                    break
                case _:
                    say({"error": f"{do!r} is not an order"})
                    continue
            say({"done": do, "state": sink.state, "accepted": sink.accepted, "refused": sink.refused})
        await sink.close()


def main() -> None:
    """Take notifications until stdin ends or `stop` is ordered."""
    parser = argparse.ArgumentParser(prog="outrider.demo.notify_sink", description="A subscriber to presence.")
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    uvloop.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
