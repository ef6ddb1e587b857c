"""A link between two networks without root: a TCP relay that delays, limits, and breaks on command.

Bytes of each direction of each connection stand in a queue with the time at which they are due, so the delay costs no
throughput. A *cut* direction delivers nothing and reads nothing, as if its packets were dropped: TCP holds the bytes
back, and they arrive after `heal`, or the ends give up. A *reset* breaks all connections and refuses new ones.

    python -m outrider.demo.relay --listen 127.0.0.1:0 --connect 127.0.0.1:7443 --delay-ms 10

takes orders on stdin, one JSON object per line: {"do": "cut", "direction": "forward"} (`backward`, `both`),
{"do": "reset"}, {"do": "heal"}, {"do": "stats"}, {"do": "stop"}. `forward` is from the listening side to the other.
{"do": "rate", "bytesPerS": 12500000, "forward": [0, 1], "backward": [2, 3]} lets these directions of these relays
share a link of that rate; without `bytesPerS` it is as fast as it can. {"do": "delay", "delayMs": 250} changes the
delay. `stats` tells the bytes that have passed, and how long the slowest piece took since the delay was changed.
"""

import argparse
import asyncio
import contextlib
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import uvloop

from outrider.demo.orders import orders, say

Direction = Literal["forward", "backward", "both"]

READ_BYTES = 64 * 1024
IN_FLIGHT_BYTES = 32 * 1024 * 1024
"""Bytes on their way in one direction of one connection; more than any link imitated here can hold."""

BUFFER_S = 0.05
"""What waits to enter a link, at its rate: a deeper buffer would let small messages stand behind bulk for seconds."""


class Rate:
    """What a link carries in one direction, for all that pass it: each piece after those before it."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0

    def passed_at(self, size: int, now: float) -> float:
        """When a piece that comes now is through."""
        self._free_at = max(self._free_at, now) + size / self._bytes_per_s
        return self._free_at

    def full_s(self, now: float) -> float:
        """How long nothing more fits into the buffer before it; not positive if something does."""
        return self._free_at - now - BUFFER_S


class _Way:
    """One direction over all connections: how fast, whether open, how much passed, and how long the slowest took."""

    def __init__(self, delay_s: float, rate: Rate | None) -> None:
        self.delay_s = delay_s
        self.rate = rate
        self.bytes = 0
        self.slowest_s = 0.0
        self.open = asyncio.Event()
        self.open.set()

    def due(self, size: int, now: float) -> float:
        """When a piece that comes now has passed the link."""
        return (now if self.rate is None else self.rate.passed_at(size, now)) + self.delay_s

    async def room(self) -> None:
        """Wait until the link takes something more."""
        loop = asyncio.get_running_loop()
        while self.rate is not None and (full_s := self.rate.full_s(loop.time())) > 0:
            await asyncio.sleep(full_s)


@dataclass
class _Queue:
    """Pieces on their way in one direction of one connection, with when each is due and when it came.

    An empty piece is the end of the stream.
    """

    pieces: deque[tuple[float, float, bytes]] = field(default_factory=deque)
    size: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, due: float, came: float, piece: bytes) -> None:
        self.pieces.append((due, came, piece))
        self.size += len(piece)
        self.changed.set()

    def pop(self) -> tuple[float, bytes]:
        """When the first piece came, and the piece."""
        _, came, piece = self.pieces.popleft()
        self.size -= len(piece)
        self.changed.set()
        return came, piece

    async def change(self) -> None:
        self.changed.clear()
        await self.changed.wait()


class Relay:
    """One listener whose connections go to one address."""

    def __init__(
        self,
        *,
        listen: tuple[str, int],
        connect: tuple[str, int],
        delay_ms: float = 0.0,
        bytes_per_s: float | None = None,
    ) -> None:
        self._listen = listen
        self._connect = connect
        self._ways = {
            d: _Way(delay_ms / 1000, None if bytes_per_s is None else Rate(bytes_per_s))
            for d in ("forward", "backward")
        }
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port listened on; the real one after `start`."""
        return self._listen[1]

    @property
    def forward_bytes(self) -> int:
        """Bytes delivered from the listening side to the other."""
        return self._ways["forward"].bytes

    @property
    def backward_bytes(self) -> int:
        """Bytes delivered to the listening side."""
        return self._ways["backward"].bytes

    async def start(self) -> None:
        """Listen."""
        host, port = self._listen
        self._server = await asyncio.start_server(self._accept, host, port)
        self._listen = host, self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse new connections and break those that are there."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def limit(self, direction: Direction, rate: Rate | None) -> None:
        """Let this direction pass a link of that rate from now on, which others may pass too."""
        for name in _names(direction):
            self._ways[name].rate = rate

    def delay(self, delay_ms: float) -> None:
        """Let what comes from now on take so long, in each direction."""
        for way in self._ways.values():
            way.delay_s, way.slowest_s = delay_ms / 1000, 0.0

    @property
    def slowest_ms(self) -> dict[str, float]:
        """How long the slowest piece of each direction took since the delay was changed."""
        return {name: way.slowest_s * 1000 for name, way in self._ways.items()}

    def cut(self, direction: Direction = "both") -> None:
        """Deliver nothing in this direction until `heal`."""
        for name in _names(direction):
            self._ways[name].open.clear()

    async def reset(self) -> None:
        """Break all connections and refuse new ones until `heal`."""
        await self.stop()

    async def heal(self) -> None:
        """Deliver again in both directions, and listen again."""
        for way in self._ways.values():
            way.open.set()
        if self._server is None:
            await self.start()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        far: asyncio.StreamWriter | None = None
        ended = False
        try:
            far_reader, far = await asyncio.open_connection(*self._connect)
            async with asyncio.TaskGroup() as group:
                for way, source, target in (("forward", reader, far), ("backward", far_reader, writer)):
                    queue = _Queue()
                    group.create_task(self._take(self._ways[way], source, queue))
                    group.create_task(self._deliver(self._ways[way], queue, target))
            ended = True
        except (OSError, ExceptionGroup):
            pass  # one end broke the connection, or refused it; the other end is told by the abort
        except asyncio.CancelledError:
            pass  # by `stop` alone; asyncio would report the cancellation of a handler as an error
        finally:
            self._connections.discard(task)
            for end in (writer, far):
                if end is not None and ended:
                    end.close()
                elif end is not None:
                    _break(end)

    async def _take(self, way: _Way, source: asyncio.StreamReader, queue: _Queue) -> None:
        """Read what one end sends, no faster than the link carries it."""
        loop = asyncio.get_running_loop()
        while True:
            await way.open.wait()
            await way.room()
            while queue.size >= IN_FLIGHT_BYTES:
                await queue.change()
            piece = await source.read(READ_BYTES)
            now = loop.time()
            queue.put(way.due(len(piece), now), now, piece)
            if not piece:
                return

    async def _deliver(self, way: _Way, queue: _Queue, target: asyncio.StreamWriter) -> None:
        """Write each piece to the other end when it is due and the direction is open."""
        loop = asyncio.get_running_loop()
        while True:
            while not queue.pieces:
                await queue.change()
            if (wait_s := queue.pieces[0][0] - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            await way.open.wait()
            came, piece = queue.pop()
            if not piece:
                with contextlib.suppress(OSError):
                    target.write_eof()
                return
            target.write(piece)
            way.bytes += len(piece)
            way.slowest_s = max(way.slowest_s, loop.time() - came)
            await target.drain()


def _break(end: asyncio.StreamWriter) -> None:
    """Close so that the other side sees a reset, not an end."""
    if (sock := end.get_extra_info("socket")) is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.transport.abort()


def _names(direction: Direction) -> tuple[str, ...]:
    if direction not in get_args(Direction):
        raise ValueError(f"{direction!r} is not a direction: write forward, backward or both")
    return ("forward", "backward") if direction == "both" else (direction,)


# ------------------------------------------------------------------------------------------- as a process


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host or "127.0.0.1", int(port)


def _share(relays: list[Relay], order: dict[str, Any]) -> None:
    """One link for the directions that the order names."""
    rate = None if order.get("bytesPerS") is None else Rate(order["bytesPerS"])
    directions: tuple[Direction, ...] = ("forward", "backward")
    for direction in directions:
        for number in order.get(direction, []):
            relays[number].limit(direction, rate)


async def _obey(relays: list[Relay]) -> None:
    async for order in orders():
        do = order.get("do")
        if do == "rate":
            _share(relays, order)
        chosen = relays if "relay" not in order else [relays[order["relay"]]]
        try:
            for relay in chosen:
                match do:
                    case "cut":
                        relay.cut(order.get("direction", "both"))
                    case "delay":
                        relay.delay(float(order["delayMs"]))
                    case "reset":
                        await relay.reset()
                    case "heal":
                        await relay.heal()
                    case "rate" | "stats" | "stop":
                        pass
                    case _:
                        raise ValueError(f"{do!r} is not an order")
        except (KeyError, ValueError, OSError) as e:
            say({"error": str(e)})
            continue
        passed = [{"forward": r.forward_bytes, "backward": r.backward_bytes} for r in relays]
        say({"done": do, "bytes": passed, "slowestMs": [r.slowest_ms for r in relays]})
        if do == "stop":
            return


async def _main(options: argparse.Namespace) -> None:
    relays = [
        Relay(listen=_address(a), connect=_address(b), delay_ms=options.delay_ms, bytes_per_s=options.bytes_per_s)
        for a, b in zip(options.listen, options.connect, strict=True)
    ]
    for relay in relays:
        await relay.start()
    say({"ready": True, "ports": [relay.port for relay in relays]})
    await _obey(relays)
    for relay in relays:
        await relay.stop()


def main() -> None:
    """Run relays until stdin ends or `stop` is ordered."""
    parser = argparse.ArgumentParser(prog="outrider.demo.relay", description="A TCP link that delays and breaks.")
    parser.add_argument("--listen", action="append", required=True, metavar="HOST:PORT", help="repeat for more links")
    parser.add_argument("--connect", action="append", required=True, metavar="HOST:PORT", help="one for each --listen")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="one way")
    parser.add_argument("--bytes-per-s", type=int, default=None, help="of each direction of each link")
    options = parser.parse_args()
    if len(options.listen) != len(options.connect):
        parser.error("each --listen needs a --connect")
    uvloop.run(_main(options))


if __name__ == "__main__":
    main()
