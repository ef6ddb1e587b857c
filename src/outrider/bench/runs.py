"""All runs that were asked for: sizes, rounds, and in each round ours and the peers', in turn first."""

import asyncio
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from outrider.bench import dump, relocation, valkey
from outrider.bench.bars import bars
from outrider.bench.bound import bound
from outrider.bench.figures import Measured, Peer, Result, Size
from outrider.bench.options import Options
from outrider.bench.seed import Seeds
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
    dump: bool = False
    """A dump and restore of the same store, too."""


def measure(
    wanted: Wanted, options: Options, command: str, say: Callable[[str], None], seeds: Seeds | None = None
) -> Result:
    """Run all, and judge. A run that breaks is told and left out; `ProcessFailed` if no run of ours was made."""
    if seeds is None and (wanted.repeat > 1 or wanted.dump):
        with tempfile.TemporaryDirectory(prefix="outrider-seeds-") as kept:
            return measure(wanted, options, command, say, Seeds(Path(kept)))
    load_average = round(os.getloadavg()[0], 2)
    no_peer = _no_peer(wanted, options)
    if no_peer is not None and wanted.peer:
        say(f"Valkey is not measured: {no_peer}")
    sizes = [_size(contexts, wanted, options, no_peer is None, say, seeds) for contexts in wanted.sizes]
    made = [size for size in sizes if size.runs]
    if not made:
        raise ProcessFailed("no run of ours was made")
    names = {peer.name for size in sizes for peer in (*size.peers, *size.dumps)}
    return Result(
        command=command,
        workload=options.workload,
        link=options.link,
        without=options.without,
        machine=this_machine(),
        load_average=load_average,
        fsync="every commit synced (synchronous=FULL); Valkey keeps nothing on disk",
        peer="; ".join([*sorted(names), *([] if no_peer is None else [f"Valkey NOT MEASURED: {no_peer}"])]),
        sizes=sizes,
        bars=bars(made, no_peer),
        bound=bound(options.link, options.keep),
    )


def _no_peer(wanted: Wanted, options: Options) -> str | None:
    """Why Valkey is not measured; None if it is."""
    if not wanted.peer:
        return "no peer was asked for"
    if not options.work.peers:
        return f"the workload {options.workload} is none that it can do"
    if options.link.reset_every_s is not None:
        return "a slot migration does not outlive its connection"
    return valkey.missing()


def _size(
    contexts: int, wanted: Wanted, options: Options, peer: bool, say: Callable[[str], None], seeds: Seeds | None
) -> Measured:
    runs: list[Size] = []
    peers: list[Peer] = []
    dumps: list[Peer] = []
    broken: list[str] = []

    def ours(round_: int) -> None:
        runs.append(asyncio.run(relocation.run(options, contexts, say, round_, seeds)))

    def theirs(round_: int) -> None:
        peers.append(asyncio.run(valkey.run(options, contexts, say, round_)))

    def dumped(round_: int) -> None:
        dumps.append(asyncio.run(dump.run(options, contexts, say, round_, seeds)))

    for round_ in range(1, wanted.repeat + 1):
        # Whoever runs second finds a machine that the first has warmed, or filled the caches of.
        order = [theirs] * peer + [ours] + [dumped] * (wanted.dump and options.work.peers)
        for one in order if round_ % 2 else reversed(order):
            try:
                one(round_)
            except ProcessFailed as failed:
                broken.append(f"{contexts} contexts, round {round_}, {one.__name__}: {failed}")
                say(broken[-1])
    measured = Measured(contexts=contexts, runs=runs, peers=peers, dumps=dumps, broken=broken)
    return msgspec.structs.replace(measured, summary=summary(measured))
