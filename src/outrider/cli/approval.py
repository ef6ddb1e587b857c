"""`outrider approval`: what this operator's policy asks a human about: list it, grant it, refuse it."""

import datetime as dt
from typing import Annotated, Any

import typer

from outrider.cli.client import AsJson, NetworkDir, run, user
from outrider.cli.outcome import emit

app = typer.Typer(no_args_is_help=True, help="Approvals: migrations that wait for a human's word.")

_ROOT = "/nlmsf-policy/v1/approvals"
Migration = Annotated[str, typer.Argument(help="The migration's id.", metavar="MIGRATION")]
By = Annotated[str, typer.Option(help="Who decides, for the journal.", show_default="the user's name")]
Reason = Annotated[str, typer.Option(help="A sentence; that of a refusal is told to the partner.")]


@app.command("list")
def list_(
    directory: NetworkDir,
    whole: Annotated[bool, typer.Option("--all", help="Those that are decided or expired too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what waits for a human: which migration, why, and until when.

    Example: outrider approval list --dir b
    """
    found = run(directory, as_json, lambda node: node.ask("GET", _ROOT))["approvals"]
    shown = [a for a in found if whole or a["state"] == "WAITING"]
    emit(shown, "\n".join(map(_describe, shown)) or "Nothing waits for a human.", as_json)


@app.command()
def grant(
    migration: Migration, directory: NetworkDir, by: By = "", reason: Reason = "", as_json: AsJson = False
) -> None:
    """Approve a migration on its terms; it goes on at once.

    Also before anything waits: a policy that asks from now on then finds it approved.

    Example: outrider approval grant m-0f3a9c52e1b87d46 --dir b --reason "agreed by phone"
    """
    _decide(migration, "grant", directory, by, reason, as_json)


@app.command()
def refuse(
    migration: Migration, directory: NetworkDir, by: By = "", reason: Reason = "", as_json: AsJson = False
) -> None:
    """Refuse a migration: it is stopped, and the partner is told.

    Example: outrider approval refuse m-0f3a9c52e1b87d46 --dir b --reason "not during the regatta"
    """
    _decide(migration, "refuse", directory, by, reason, as_json)


def _decide(migration: str, how: str, directory: NetworkDir, by: str, reason: str, as_json: bool) -> None:
    body = {"by": by or user(), "sentence": reason}
    decided = run(directory, as_json, lambda node: node.ask("POST", f"{_ROOT}/{migration}/{how}", body))
    emit(decided, _describe(decided), as_json)


def _describe(a: Any) -> str:
    state = f"{a['state']} until {_clock(a['expiresMs'])}" if a["state"] == "WAITING" else a["state"]
    by = f" by {a['by']}, {_clock(a['decidedMs'])}" if a["by"] else ""
    said = f": {a['sentence']}" if a["sentence"] else ""
    lines = [f"{a['migrationId']} {a['service']} {a['source']} → {a['target']}: {state}{by}{said}"]
    return "\n".join([*lines, *(f"  {reason}" for reason in a["reasons"])])


def _clock(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
