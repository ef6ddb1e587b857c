"""`outrider bench growth`: curves of what a network costs as it grows."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from outrider.cli.bench_args import command, misuse, one_of
from outrider.cli.bench_args import sizes as numbers
from outrider.cli.client import AsJson


def growth(
    only: Annotated[
        str | None,
        typer.Option(
            help="Parts, by commas: contexts, services, partners, migrations, starts, journals.",
            show_default="all of them",
        ),
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="Few of everything: does all of it run?")] = False,
    contexts: Annotated[
        str | None, typer.Option(help="Contexts of one service: contexts, starts.", show_default="10000 to 1000000")
    ] = None,
    services: Annotated[
        str | None, typer.Option(help="Services on one node: services.", show_default="1,10,30,100")
    ] = None,
    partners: Annotated[str | None, typer.Option(help="Partners of one node.", show_default="1,10,50")] = None,
    migrations: Annotated[
        str | None, typer.Option(help="Migrations at once: migrations.", show_default="1,5,20,60")
    ] = None,
    moved: Annotated[
        int | None, typer.Option(help="Contexts of each of these migrations.", show_default="1000", min=1)
    ] = None,
    mbit: Annotated[
        float | None, typer.Option(help="Rate of the link that they share.", show_default="4", min=0.1)
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder for report.json, report.md and the drawings.", file_okay=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how cost grows with contexts, services, partners, concurrent migrations, state and journals.

    Example: outrider bench growth --only services,partners --services 1,10,100 --report growth
    """
    import msgspec
    from rich.console import Console

    from outrider.bench.growth.page import show
    from outrider.bench.growth.run import FULL, PARTS, SHORT, run
    from outrider.cli.outcome import FAULT

    names = list(PARTS) if only is None else only.split(",")
    for name in names:
        one_of("--only", name, PARTS)
    given = {
        name: sorted(set(numbers(text, f"--{name}")))
        for name, text in (
            ("contexts", contexts),
            ("services", services),
            ("partners", partners),
            ("migrations", migrations),
        )
        if text is not None
    }
    if partners is not None and max(given["partners"]) > 600:
        misuse("--partners goes up to 600: each has an identity of its own, and two ports")
    sizes = msgspec.structs.replace(SHORT if short else FULL, **given)
    sizes = msgspec.structs.replace(sizes, moved_contexts=moved or sizes.moved_contexts, mbit=mbit or sizes.mbit)
    console = Console(stderr=as_json)
    grown = run(names, sizes, command(), report, partial(console.print, markup=False))
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(grown), indent=2).decode())
    else:
        show(grown, console)
    if grown.broken:
        raise typer.Exit(FAULT)
