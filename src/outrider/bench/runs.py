"""All runs that were asked for: sizes, rounds, and in each round ours and the peer's, in turn first."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from outrider.bench import relocation, valkey
from outrider.bench.bars import bars
from outrider.bench.figures import Measured, Peer, Result, Size
from outrider.bench.options import Options
from outrider.bench.show import summary
from outrider.demo.machine import this_machine
from outrider.demo.processes import ProcessFailed


@dataclass(frozen=True)
class Wanted:
    """What to run."""

    sizes: list[int]
    repeat: int = 1
    peer: bool = True
    """Valkey too, if it is there."""


def measure(wanted: Wanted, options: Options, command: str, say: Callable[[str], None]) -> Result:
    """Run all, and judge. A run that breaks is told and left out; `ProcessFailed` if no run of ours was made."""
    load_average = round(os.getloadavg()[0], 2)
    no_peer = valkey.missing() if wanted.peer else "no peer was asked for"
    if no_peer is not None and wanted.peer:
        say(f"Valkey is not measured: {no_peer}")
    sizes = [_size(contexts, wanted.repeat, options, no_peer is None, say) for contexts in wanted.sizes]
    made = [size for size in sizes if size.runs]
    if not made:
        raise ProcessFailed("no run of ours was made")
    names = {peer.name for size in sizes for peer in size.peers}
    return Result(
        command=command,
        machine=this_machine(),
        load_average=load_average,
        fsync="every commit synced (synchronous=FULL); Valkey keeps nothing on disk",
        peer=", ".join(names) or f"NOT MEASURED: {no_peer}",
        sizes=sizes,
        bars=bars(made, no_peer),
    )


def _size(contexts: int, repeat: int, options: Options, peer: bool, say: Callable[[str], None]) -> Measured:
    runs: list[Size] = []
    peers: list[Peer] = []
    broken: list[str] = []

    def ours(round_: int) -> None:
        runs.append(asyncio.run(relocation.run(options, contexts, say, round_)))

    def theirs(round_: int) -> None:
        peers.append(asyncio.run(valkey.run(options, contexts, say, round_)))

    for round_ in range(1, repeat + 1):
        # Whoever runs second finds a machine that the first has warmed, or filled the caches of.
        first, second = (theirs, ours) if round_ % 2 else (ours, theirs)
        for one in (first, second) if peer else (ours,):
            try:
                one(round_)
            except ProcessFailed as failed:
                broken.append(f"{contexts} contexts, round {round_}, {one.__name__}: {failed}")
                say(broken[-1])
    measured = Measured(contexts=contexts, runs=runs, peers=peers, broken=broken)
    return msgspec.structs.replace(measured, summary=summary(measured))
