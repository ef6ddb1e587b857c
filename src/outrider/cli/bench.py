"""`outrider bench`: measure, on this machine, what the design promises."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from outrider.cli.bench_args import can_draw, command, misuse, one_of, sizes
from outrider.cli.bench_growth import growth
from outrider.cli.client import AsJson

app = typer.Typer(no_args_is_help=True, help="Measure what the design promises, on this machine.")


class Peers(StrEnum):
    """Who runs beside, to compare with."""

    VALKEY = "valkey"
    DUMP = "dump"
    ALL = "all"
    NONE = "none"


Contexts = Annotated[str, typer.Option(help="Sizes, in UE contexts of about 1 KB.")]
Repeat = Annotated[int, typer.Option(help="Runs of each size, for median and spread.", min=1)]
Before = Annotated[float, typer.Option(help="Seconds of load before, to compare with.", min=0.1)]
After = Annotated[float, typer.Option(help="Seconds of load after.", min=0)]
Probe = Annotated[float, typer.Option(help="Seconds of closed loop before: what can be served.", min=0)]
MoveLimit = Annotated[
    float | None, typer.Option(help="Seconds that a move may take.", show_default="60, and 1 for each 4000", min=1)
]
WhichPeers = Annotated[Peers, typer.Option(help="Who moves the same contexts in the same run.")]


@app.callback()
def bench() -> None:
    """Measure what the design promises, on this machine."""


@app.command()
def relocation(
    contexts: Contexts = "10000",
    workload: Annotated[str, typer.Option(help="Who writes what, and how contexts come to move.")] = "uniform",
    writes: Annotated[float, typer.Option(help="Writes per second, open loop, over all contexts.", min=0.1)] = 1_000,
    peers: WhichPeers = Peers.VALKEY,
    repeat: Repeat = 1,
    rtt_ms: Annotated[float, typer.Option(help="Round trip between the networks.", min=0)] = 0.0,
    mbit: Annotated[
        float | None, typer.Option(help="Rate of the link, each direction.", show_default="no limit", min=0.1)
    ] = None,
    reset_every: Annotated[
        float | None,
        typer.Option(help="Seconds between two resets of all connections.", show_default="never", min=0.1),
    ] = None,
    without: Annotated[
        str | None, typer.Option(help="A mechanism that is taken out: holds, compression, log or shadow.")
    ] = None,
    group: Annotated[
        int | None, typer.Option(help="UEs that arrive: storm, train.", show_default="2000, or a fifth", min=1)
    ] = None,
    within: Annotated[
        float | None, typer.Option(help="Seconds in which they arrive.", show_default="10, train 20", min=0.1)
    ] = None,
    before: Before = 8.0,
    after: After = 4.0,
    probe: Probe = 4.0,
    move_limit: MoveLimit = None,
    profile: Annotated[Path | None, typer.Option(help="Record both keepers with py-spy into this folder.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the figures here as JSON, too.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the figures here as a page, too.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Draw the figures into this folder.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep all files of the runs in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Move a service with many contexts from one network to another while a load generator writes to it.

    Example: outrider bench relocation --contexts 10000,100000 --writes 1000 --repeat 3 --report figures.json
    """
    import msgspec
    from rich.console import Console

    from outrider.bench.ablation import WITHOUT
    from outrider.bench.markdown import page
    from outrider.bench.options import Link, Options
    from outrider.bench.plots import draw
    from outrider.bench.profile import tool
    from outrider.bench.runs import Wanted, measure
    from outrider.bench.show import show
    from outrider.bench.workloads import WORKLOADS
    from outrider.cli.outcome import FAULT
    from outrider.demo.processes import ProcessFailed

    wanted_sizes = sizes(contexts)
    one_of("--workload", workload, WORKLOADS)
    if without is not None:
        one_of("--without", without, WITHOUT)
    if profile is not None and tool() is None:
        misuse("--profile needs py-spy: pip install 'outrider[bench]'")
    if plots is not None:
        can_draw("--plots")
    console = Console(stderr=as_json)
    say = partial(console.print, markup=False)
    options = Options(
        workload=workload,
        writes_per_s=writes,
        link=Link(rtt_ms, mbit, reset_every),
        without=without,
        group_ues=group,
        group_s=within,
        before_s=before,
        after_s=after,
        probe_s=probe,
        move_limit_s=move_limit,
        keep=keep,
        profile=profile,
    )
    wanted = Wanted(wanted_sizes, repeat, peers in (Peers.VALKEY, Peers.ALL), peers in (Peers.DUMP, Peers.ALL))
    try:
        result = measure(wanted, options, command(), say)
    except ProcessFailed as failed:
        say(f"The measurement could not be run to its end.\n{failed}", style="red")
        raise typer.Exit(FAULT) from None
    encoded = msgspec.json.format(msgspec.json.encode(result), indent=2)
    if report is not None:
        report.write_bytes(encoded)
    drawings = [] if plots is None else draw([result], plots)
    if markdown is not None:
        markdown.write_text(page([result], drawings, beside=markdown.parent))
    if as_json:
        typer.echo(encoded.decode())
    else:
        show(result, console)
    if any(size.broken for size in result.sizes):
        raise typer.Exit(FAULT)


@app.command()
def suite(
    report: Annotated[Path, typer.Option(help="Folder for report.json, report.md and the drawings.")],
    contexts: Contexts = "10000,100000",
    short: Annotated[bool, typer.Option("--short", help="Few workloads and little load: does all of it run?")] = False,
    only: Annotated[
        str | None, typer.Option(help="Workloads, separated by commas.", show_default="all of the series")
    ] = None,
    peers: WhichPeers = Peers.ALL,
    repeat: Repeat = 1,
    before: Before = 8.0,
    after: After = 4.0,
    probe: Probe = 4.0,
    move_limit: MoveLimit = None,
) -> None:
    """Run a series of workloads, link shapes and ablations, and write one report of all.

    Example: outrider bench suite --contexts 10000,100000,1000000 --repeat 3 --report figures
    """
    from rich.console import Console

    from outrider.bench import suite as series
    from outrider.bench.options import Options
    from outrider.bench.runs import Wanted
    from outrider.bench.workloads import WORKLOADS
    from outrider.cli.outcome import FAULT

    wanted_sizes, cases = sizes(contexts), series.SHORT if short else series.FULL
    if only is not None:
        for name in only.split(","):
            one_of("--only", name, WORKLOADS)
        cases = [case for case in series.FULL if case.workload in only.split(",")]
    can_draw("bench suite")
    say = partial(Console().print, markup=False)
    options = Options(before_s=before, after_s=after, probe_s=probe, move_limit_s=move_limit)
    wanted = Wanted(wanted_sizes, repeat, peers in (Peers.VALKEY, Peers.ALL), peers in (Peers.DUMP, Peers.ALL))
    found = series.run(cases, wanted, options, command(), report, say)
    say(f"{len(found.results)} of {len(cases)} measured; the report is {report / 'report.md'}")
    if found.broken or any(size.broken for result in found.results for size in result.sizes):
        raise typer.Exit(FAULT)


@app.command()
def serve(
    contexts: Annotated[int, typer.Option(help="UE contexts that are written to.", min=1)] = 10_000,
    seconds: Annotated[float, typer.Option(help="Of each measurement.", min=0.5)] = 10.0,
    repeat: Repeat = 3,
    as_json: AsJson = False,
) -> None:
    """Compare the requests per second of a service under a host with those of the same app bare on granian.

    Example: outrider bench serve --contexts 10000 --seconds 10 --repeat 3
    """
    import asyncio

    import msgspec
    from rich.console import Console

    from outrider.bench.serve import run
    from outrider.bench.show import show_served
    from outrider.cli.outcome import FAULT
    from outrider.demo.processes import ProcessFailed

    console = Console(stderr=as_json)
    say = partial(console.print, markup=False)
    try:
        served = asyncio.run(run(contexts, seconds, repeat, command(), say))
    except ProcessFailed as failed:
        say(f"The measurement could not be run to its end.\n{failed}", style="red")
        raise typer.Exit(FAULT) from None
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(served), indent=2).decode())
    else:
        show_served(served, console)


app.command()(growth)
