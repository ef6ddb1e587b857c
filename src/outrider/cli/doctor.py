"""`outrider doctor`: can a network run on this machine, and how well; each finding with what to do about it."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from outrider.cli.outcome import REFUSED, emit, ending

app = typer.Typer(help="Look at this machine: can a network run here, and what would make it better.")

_COLOURS = {"OK": "green", "WARN": "yellow", "FAIL": "red"}


@app.callback(invoke_without_command=True)
def doctor(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where the network's folder is, or is to be.", exists=True, file_okay=False)
    ] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check versions, isolation, HTTP/2, disk and limits. Exit code 1 if a network or its services cannot run here.

    Example: outrider doctor --dir a
    """
    from outrider.host import machine
    from outrider.host.doctor import isolation_facts

    where = directory.absolute()

    async def look() -> list[machine.Check]:
        return [
            machine.python(),
            machine.sqlite(),
            machine.kernel(),
            *machine.isolation(await isolation_facts()),
            await machine.http2(),
            machine.disk(where),
            machine.fsync(where),
            machine.open_files(),
            machine.file_size(),
        ]

    with ending(as_json):
        checks = asyncio.run(look())
    count = {level: sum(check.level is level for check in checks) for level in machine.Level}
    worst = next((level for level in reversed(machine.Level) if count[level]), machine.Level.OK)
    value = {"verdict": worst, "checks": [check._asdict() for check in checks]}
    width = max(len(check.name) for check in checks)
    lines = [_line(width, *check) for check in checks]
    lines.append(_VERDICTS[worst].format(**count))
    emit(value, "\n".join(lines), as_json)
    if count[machine.Level.FAIL]:
        raise typer.Exit(REFUSED)


_VERDICTS = {
    "OK": "All {OK} checks are fine: networks and their services can run here.",
    "WARN": "Networks and their services can run here; {WARN} of the findings should be looked at.",
    "FAIL": "{FAIL} of the findings keep a network or its services from running here.",
}


def _line(width: int, name: str, level: str, sentence: str, remedy: str) -> str:
    advice = f"\n{'':<{width + 7}} {remedy}" if remedy else ""
    return f"{typer.style(f'{level:<6}', fg=_COLOURS[level])} {name:<{width}} {sentence}{advice}"
