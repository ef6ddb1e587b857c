"""How commands end: what they print, for people or as JSON, and their exit code.

==== ===================================================
code meaning
==== ===================================================
0    done
1    refused, with a cause
2    misuse: wrong arguments, a file that is not there
3    a peer or the own node cannot be reached
4    a fault of the machine or of this software
==== ===================================================
"""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import msgspec
import typer

from outrider.core.refusal import Refusal, Refused

REFUSED, MISUSE, UNREACHABLE, FAULT = 1, 2, 3, 4


def emit(value: object, text: str, as_json: bool) -> None:
    """Print a command's result: `value` as JSON, or `text` for people."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() if as_json else text)


def refuse(refusals: Refusal | Sequence[Refusal], as_json: bool) -> NoReturn:
    """Print why not, and end with exit code 1. JSON goes to stdout, so that a caller has one place to read."""
    reasons = [refusals] if isinstance(refusals, Refusal) else list(refusals)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode({"refusals": reasons}), indent=2).decode())
    else:
        for reason in reasons:
            typer.secho(f"Refused: {reason.sentence}", err=True, fg="red", bold=True)
            typer.echo(f"  cause: {reason.code}" + (f"\n  {reason.remedy}" if reason.remedy else ""), err=True)
    raise typer.Exit(REFUSED)


@contextmanager
def ending(as_json: bool) -> Iterator[None]:
    """Turn what a command raises into its exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Refused as refused:
        refuse(refused.refusals, as_json)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        typer.secho(f"{error.filename}: {error.strerror}", err=True, fg="red")
        raise typer.Exit(MISUSE) from None
    except OSError as error:
        typer.secho(f"The machine failed: {error}", err=True, fg="red")
        raise typer.Exit(FAULT) from None
    except Exception:
        traceback.print_exc()
        typer.secho("This is a fault of Outrider: please report it with the lines above.", err=True, fg="red")
        raise typer.Exit(FAULT) from None
