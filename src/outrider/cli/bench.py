"""`outrider bench`: measure, on this machine, what the design promises."""

import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from outrider.cli.client import AsJson

app = typer.Typer(no_args_is_help=True, help="Measure what the design promises, on this machine.")


class Peers(StrEnum):
    """Who runs beside, to compare with."""

    VALKEY = "valkey"
    NONE = "none"


@app.callback()
def bench() -> None:
    """Measure what the design promises, on this machine."""


@app.command()
def relocation(
    contexts: Annotated[str, typer.Option(help="Sizes, in UE contexts of about 1 KB.")] = "10000",
    writes: Annotated[float, typer.Option(help="Writes per second, open loop, over all contexts.", min=0.1)] = 1_000,
    peers: Annotated[Peers, typer.Option(help="Who moves the same contexts in the same run.")] = Peers.VALKEY,
    repeat: Annotated[int, typer.Option(help="Runs of each size, for median and spread.", min=1)] = 1,
    rtt_ms: Annotated[float, typer.Option(help="Round trip between the networks.", min=0)] = 0.0,
    before: Annotated[float, typer.Option(help="Seconds of load before, to compare with.", min=0.1)] = 8.0,
    after: Annotated[float, typer.Option(help="Seconds of load after.", min=0)] = 4.0,
    probe: Annotated[float, typer.Option(help="Seconds of closed loop before: what can be served.", min=0)] = 4.0,
    move_limit: Annotated[
        float | None, typer.Option(help="Seconds that a move may take.", show_default="60, and 1 for each 4000", min=1)
    ] = None,
    profile: Annotated[Path | None, typer.Option(help="Record both keepers with py-spy into this folder.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the figures here as JSON, too.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep all files of the runs in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Move a service with many contexts from one network to another while a load generator writes to it.

    Example: outrider bench relocation --contexts 10000,100000 --writes 1000 --repeat 3 --report figures.json
    """
    import msgspec
    from rich.console import Console

    from outrider.bench.options import Link, Options
    from outrider.bench.profile import tool
    from outrider.bench.runs import Wanted, measure
    from outrider.bench.show import show
    from outrider.cli.outcome import FAULT, MISUSE
    from outrider.demo.processes import ProcessFailed

    try:
        sizes = [int(part) for part in contexts.split(",")]
        if not sizes or min(sizes) < 1:
            raise ValueError(contexts)
    except ValueError:
        typer.secho(f"--contexts is a list of numbers, such as 10000,100000; not {contexts!r}", err=True, fg="red")
        raise typer.Exit(MISUSE) from None
    if profile is not None and tool() is None:
        typer.secho("--profile needs py-spy: pip install 'outrider[bench]'", err=True, fg="red")
        raise typer.Exit(MISUSE)
    console = Console(stderr=as_json)
    say = partial(console.print, markup=False)
    options = Options(
        writes_per_s=writes,
        link=Link(rtt_ms=rtt_ms),
        before_s=before,
        after_s=after,
        probe_s=probe,
        move_limit_s=move_limit,
        keep=keep,
        profile=profile,
    )
    wanted = Wanted(sizes, repeat, peers is Peers.VALKEY)
    try:
        result = measure(wanted, options, "outrider " + " ".join(sys.argv[1:]), say)
    except ProcessFailed as failed:
        say(f"The measurement could not be run to its end.\n{failed}", style="red")
        raise typer.Exit(FAULT) from None
    encoded = msgspec.json.format(msgspec.json.encode(result), indent=2)
    if report is not None:
        report.write_bytes(encoded)
    if as_json:
        typer.echo(encoded.decode())
    else:
        show(result, console)
    if any(size.broken for size in result.sizes):
        raise typer.Exit(FAULT)
