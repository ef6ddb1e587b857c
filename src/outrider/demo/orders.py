"""How the demo talks to the processes it starts: one JSON object per line, orders on stdin, answers on stdout."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec


async def orders() -> AsyncIterator[dict[str, Any]]:
    """The orders as they come; ends when stdin does. A line that is no JSON object is answered, and skipped."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            yield msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError as e:
            say({"error": f"An order is one JSON object per line: {e}"})


def say(value: object) -> None:
    """One line to whoever started this process."""
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()
