"""`outrider demo`: the whole thing, on this machine, in one command."""

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
import typer

app = typer.Typer(invoke_without_command=True)


@app.callback()
def demo(
    service: Annotated[
        Path | None,
        typer.Option(help="The service's folder, with outrider.toml; the example's by default.", file_okay=False),
    ] = None,
    ues: Annotated[int, typer.Option(help="UEs in the group.", min=1)] = 300,
    rate: Annotated[float, typer.Option(help="Transactions per second of each UE.", min=0.01)] = 0.2,
    rtt_ms: Annotated[float, typer.Option(help="Round trip between the networks.", min=0)] = 20.0,
    track: Annotated[Path | None, typer.Option(help="CSV of ue,time_s,network.", exists=True)] = None,
    contexts: Annotated[
        int | None, typer.Option(help="Contexts that are copied: idle UEs with a session are added.", min=1)
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Run the same track without migration too: home routed, and no service.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of everything that is left to chance.")] = 1,
    report: Annotated[Path | None, typer.Option(help="Write the report here as JSON.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep all files of the run in this new folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON; the view goes to stderr.")] = False,
) -> None:
    """Two networks, a service, a group of UEs that travels, and an independent verdict.

    Example: outrider demo --ues 100 --report report.json
    """
    from rich.console import Console

    from outrider.cli.outcome import FAULT, ending
    from outrider.core.refusal import Refused
    from outrider.demo.course import Options
    from outrider.demo.example import example
    from outrider.demo.live import Screen, View
    from outrider.demo.processes import ProcessFailed
    from outrider.demo.report import show
    from outrider.demo.run import run
    from outrider.demo.stage import HOME, TARGET
    from outrider.demo.track import TrackError, read_track

    console = Console(stderr=as_json)
    service = service or example()
    if not (service / "outrider.toml").is_file():
        raise typer.BadParameter(f"{service} is not the folder of a service: it has no outrider.toml")
    with ending(as_json):
        try:
            if track is not None:
                read_track(track, ues=ues, networks=[HOME, TARGET], home=HOME)
            options = Options(service, ues, rate, rtt_ms, track, contexts, seed, keep, baseline)
            with Screen(View(HOME, TARGET), console) as screen:
                made = asyncio.run(run(options, screen))
        except TrackError as error:
            raise typer.BadParameter(str(error)) from None
        except (ProcessFailed, Refused) as failed:
            console.print(f"The demo could not be run to its end.\n{failed}", style="red")
            raise typer.Exit(FAULT) from None
    show(made, console)
    if as_json:
        typer.echo(msgspec.json.encode(made).decode())
    if report is not None:
        made.write(report)
    raise typer.Exit(0 if made.verdict == "PASS" else 1)
