"""The simplest peer: stop the service, send its store compressed, start it there. Its pause is its total.

It is given the best case. The store's file is sent as it stands, with zstd 1, from one process to another through the
same relay as ours; stopping costs nothing, and it counts as started when the store at the target is open and has taken
a durable write. There is no load, for nobody could serve it.

As a process, with a file: `send` and `receive` are orders on stdin.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import zstandard

from outrider.bench.figures import SETTLED, Peer
from outrider.bench.link import HOST, relay_to
from outrider.bench.openloop import History
from outrider.bench.options import Options
from outrider.bench.seed import Seeds, seed_file
from outrider.bench.shapes import SHAPES
from outrider.bench.steps import step
from outrider.bench.timeline import Span, seen
from outrider.core.ids import PARTITIONS, partition_key
from outrider.demo import usage
from outrider.demo.orders import orders, say
from outrider.demo.processes import Running
from outrider.demo.usage import Used
from outrider.protocol.ownership import Ownership, Row
from outrider.store.port import SetRow, SetValue
from outrider.store.sqlite import SqliteStore

NAME = "dump and restore"
PIECE_BYTES = 1 << 20
START_LIMIT_S = 30.0


async def run(
    options: Options, contexts: int, say: Callable[[str], None], round_: int = 1, seeds: Seeds | None = None
) -> Peer:
    """Measure one size."""
    directory = Path(tempfile.mkdtemp(prefix="outrider-dump-"))
    processes: list[Running] = []
    try:
        here, there = directory / "a.db", directory / "b.db"
        await asyncio.to_thread(_owning, here)
        limit_s = options.seed_limit_s(contexts)
        if seeds is None:
            state_bytes, seed_s = await asyncio.to_thread(
                seed_file, here, contexts, limit_s, SHAPES[options.work.shape]
            )
        else:
            state_bytes, seed_s = await asyncio.to_thread(seeds.put, here, contexts, limit_s, options.work.shape)
        async with step("the start of the two ends", START_LIMIT_S):
            receiver = await _process("receiver", directory, there)
            processes.append(receiver)
            relay = await relay_to(receiver.said["ready"]["port"], options.link, directory)
            processes.append(relay)
            sender = await _process("sender", directory, here)
            processes.append(sender)
        command_s = time.monotonic()
        async with step("the dump", options.limit_s(contexts)):
            receiving = asyncio.create_task(receiver.order("receive"))
            await sender.order("send", port=relay.said["ready"]["ports"][0])
            await receiving
        moved_s = time.monotonic()
        wire_bytes = sum((await relay.order("stats"))["bytes"][0].values())
        used = {p.name: use for p in (sender, receiver) if (use := usage.used(p.pid)) is not None}
    finally:
        for process in processes:
            await process.end()
        shutil.rmtree(directory, ignore_errors=True)
    say(f"{NAME} moved them in {moved_s - command_s:.2f} s")
    return _peer(contexts, round_, state_bytes, seed_s, Span(command_s, moved_s), wire_bytes, used)


def _peer(
    contexts: int, round_: int, state_bytes: int, seed_s: float, span: Span, wire_bytes: int, used: dict[str, Used]
) -> Peer:
    total_s = span.to_s - span.from_s
    nobody = seen(History.empty(), {"during": span}, span.from_s, 0.0, {})
    return Peer(
        name=NAME,
        contexts=contexts,
        round=round_,
        state_bytes=state_bytes,
        fill_s=round(seed_s, 1),
        ended=SETTLED,
        total_s=round(total_s, 3),
        states_s={},
        wire_bytes=wire_bytes,
        seen=msgspec.structs.replace(nobody, pause_ms={"during": round(total_s * 1000, 1)}),
        sample={},
        used=used,
    )


def _owning(path: Path) -> None:
    """A store as it is at home before any context is in it."""
    store = SqliteStore.open(path)
    nothing, owned = Row(Ownership.FOREIGN, 0), Row(Ownership.OWNED, 1)
    store.commit([SetRow(partition_key(p), nothing, owned) for p in range(PARTITIONS)])
    store.close()


async def _process(name: str, directory: Path, file: Path) -> Running:
    return await Running.start(name, directory / f"{name}.log", "outrider.bench.dump", str(file))


# ------------------------------------------------------------------------------------------- as a process


async def _send(file: Path, port: int) -> None:
    reader, writer = await asyncio.open_connection(HOST, port)
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    with file.open("rb") as content:
        while piece := content.read(PIECE_BYTES):
            writer.write(packer.compress(piece))
            await writer.drain()
    writer.write(packer.flush())
    writer.write_eof()
    await reader.read()
    writer.close()


async def _receive(file: Path, reader: asyncio.StreamReader) -> None:
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    with file.open("wb") as content:
        while piece := await reader.read(PIECE_BYTES):
            content.write(unpacker.decompress(piece))
        content.flush()
        os.fsync(content.fileno())
    store = SqliteStore.open(file)
    store.commit([SetValue("served", b"again")])
    store.close()


async def _main(file: Path) -> None:
    came: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _receive(file, reader)
            came.set_result(None)
        except Exception as error:  # it is told to whoever waits for the store
            came.set_exception(error)
        writer.close()

    server = await asyncio.start_server(take, HOST, 0)
    say({"ready": True, "port": server.sockets[0].getsockname()[1]})
    async for order in orders():
        match order.get("do"):
            case "send":
                await _send(file, order["port"])
            case "receive":
                await came
            case other:
                say({"error": f"{other!r} is not an order"})
                continue
        say({"done": order["do"]})
    server.close()


def main() -> None:
    """Run one end until stdin ends."""
    parser = argparse.ArgumentParser(prog="outrider.bench.dump", description="One end of a dump and restore.")
    parser.add_argument("file", type=Path)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(parser.parse_args().file))
    sys.exit(0)


if __name__ == "__main__":
    main()
