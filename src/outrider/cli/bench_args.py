"""What the measurements' commands check alike."""

import sys
from collections.abc import Iterable
from typing import NoReturn

import typer


def sizes(text: str, option: str = "--contexts") -> list[int]:
    """A list of positive numbers."""
    try:
        found = [int(part) for part in text.split(",")]
        if min(found) < 1:
            raise ValueError(text)
    except ValueError:
        misuse(f"{option} is a list of numbers, such as 10000,100000; not {text!r}")
    return found


def one_of(option: str, value: str, known: Iterable[str]) -> None:
    """A value that there is."""
    if value not in known:
        misuse(f"{option} is one of {', '.join(known)}; not {value!r}")


def can_draw(what: str) -> None:
    """What draws is installed."""
    from outrider.bench.plots import missing

    if (why := missing()) is not None:
        misuse(f"{what} needs matplotlib: {why}")


def misuse(sentence: str) -> NoReturn:
    """End: the command was not given as it must be."""
    from outrider.cli.outcome import MISUSE

    typer.secho(sentence, err=True, fg="red")
    raise typer.Exit(MISUSE)


def command() -> str:
    """The command line, for the report."""
    return "outrider " + " ".join(sys.argv[1:])
