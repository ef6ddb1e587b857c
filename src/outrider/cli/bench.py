"""`outrider bench`: measure, on this machine, what the design promises."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from outrider.cli.client import AsJson

app = typer.Typer(no_args_is_help=True, help="Measure what the design promises, on this machine.")


@app.callback()
def bench() -> None:
    """Measure what the design promises, on this machine."""


@app.command()
def relocation(
    contexts: Annotated[str, typer.Option(help="Sizes, in UE contexts of about 1 KB; one run for each.")] = "10000",
    writes: Annotated[float, typer.Option(help="Writes per second, open loop, over all contexts.", min=0.1)] = 1_000,
    rtt_ms: Annotated[float, typer.Option(help="Round trip between the networks.", min=0)] = 0.0,
    before: Annotated[float, typer.Option(help="Seconds of load before, to compare with.", min=0.1)] = 8.0,
    after: Annotated[float, typer.Option(help="Seconds of load after.", min=0)] = 4.0,
    report: Annotated[Path | None, typer.Option(help="Write the figures here as JSON, too.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep all files of the run in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Move a service with many contexts from one network to another while a load generator writes to it.

    Example: outrider bench relocation --contexts 10000,100000 --writes 1000 --report figures.json
    """
    import msgspec
    from rich.console import Console

    from outrider.bench import relocation
    from outrider.bench.result import Result, bars, show
    from outrider.cli.outcome import FAULT, MISUSE
    from outrider.demo.machine import this_machine
    from outrider.demo.processes import ProcessFailed

    try:
        sizes = [int(part) for part in contexts.split(",")]
        if not sizes or min(sizes) < 1:
            raise ValueError(contexts)
    except ValueError:
        typer.secho(f"--contexts is a list of numbers, such as 10000,100000; not {contexts!r}", err=True, fg="red")
        raise typer.Exit(MISUSE) from None
    console = Console(stderr=as_json)
    options = relocation.Options(sizes, writes, rtt_ms, before, after, keep=keep)
    load_average = round(os.getloadavg()[0], 2)
    try:
        measured = [asyncio.run(relocation.run(options, size, console.print)) for size in sizes]
    except ProcessFailed as failed:
        console.print(f"The measurement could not be run to its end.\n{failed}", style="red")
        raise typer.Exit(FAULT) from None
    result = Result(
        command="outrider " + " ".join(sys.argv[1:]),
        machine=this_machine(),
        load_average=load_average,
        fsync="every commit synced (synchronous=FULL)",
        sizes=measured,
        bars=bars(measured),
    )
    encoded = msgspec.json.format(msgspec.json.encode(result), indent=2)
    if report is not None:
        report.write_bytes(encoded)
    if as_json:
        typer.echo(encoded.decode())
    else:
        show(result, console)
