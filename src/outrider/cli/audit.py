"""`outrider audit`: what was decided, signed and refused here, and whether a log is as it was written."""

import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.cli.client import AsJson, NetworkDir, Operator, run
from outrider.cli.outcome import MISUSE, REFUSED, emit, ending, refuse
from outrider.core.refusal import Refusal, Refused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from outrider.core.audit_check import Verdict

app = typer.Typer(no_args_is_help=True, help="The audit log: show it, check it, hand it to somebody who checks it.")

_ROOT = "/nlmsf-audit/v1"


@app.command()
def show(
    directory: NetworkDir,
    migration: Annotated[str | None, typer.Option(help="Only what is about this one.", metavar="ID")] = None,
    after: Annotated[int, typer.Option(help="Only events after this sequence.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Show the events of this network's log, in their order.

    Example: outrider audit show --dir a --migration m-0f3a9c52e1b87d46
    """
    found = run(directory, as_json, lambda node: _events(node, after, migration))
    text = "\n".join(_text(recorded["event"]) for recorded in found) or "No such events."
    emit(found, text, as_json)


@app.command()
def export(
    directory: NetworkDir,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file; standard output if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write this network's whole log to a file that others can check: events, counter-signed heads, its signed end.

    Example: outrider audit export --dir a -o audit-of-a.jsonl
    """
    from outrider.network.files import write_atomic

    data = run(directory, as_json, lambda node: _export(node, directory))
    with ending(as_json):
        if output is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        write_atomic(output, data)
        lines = data.count(b"\n")
        emit({"file": str(output), "lines": lines, "bytes": len(data)}, f"{output}: {lines} lines", as_json)


@app.command()
def verify(
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            envvar="OUTRIDER_DIR",
            exists=True,
            file_okay=False,
            help="The network's folder: its own log, or whom it trusts and the heads that it holds.",
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="An export, of this network or another.", exists=True, dir_okay=False)
    ] = None,
    heads: Annotated[
        list[Path] | None,
        typer.Option(help="An export of somebody who holds heads of this log; may be repeated.", exists=True),
    ] = None,
    card: Annotated[
        list[Path] | None, typer.Option(help="A partner card: whose key it is; may be repeated.", exists=True)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a log: its own without --file, else an export. Ends with 1 if anything of it was changed, and says where.

    With --dir, an export is compared with the heads that this network holds, which its node tells; without, nothing is
    asked of any node, and trust comes from --card.

    Example: outrider audit verify --file audit-of-a.jsonl --dir b
    """
    from outrider.package import audit_export

    with ending(as_json):
        if file is None and directory is None:
            typer.secho("Name a network's folder (--dir), an export (--file), or both.", err=True, fg="red")
            raise typer.Exit(MISUSE)
        keys = _keys(directory, card or [])
        held = [head for other in heads or [] for head in audit_export.heads_in(other.read_bytes())]
        data = file.read_bytes() if file is not None else b""
    if directory is not None:
        held += run(directory, as_json, lambda node: _heads(node))
        if file is None:
            found = directory
            data = run(directory, as_json, lambda node: _export(node, found))
    with ending(as_json):
        verdict = audit_export.verify(data, keys, held)
        if isinstance(verdict, Refusal):
            refuse(verdict, as_json)
        emit(verdict, _verdict(verdict), as_json)
        if verdict.findings:
            raise typer.Exit(REFUSED)


async def _events(node: Operator, after: int = 0, migration: str | None = None) -> list[Any]:
    events: list[Any] = []
    following: int | None = after
    query = f"&migration-id={migration}" if migration is not None else ""
    while following is not None:
        page = await node.ask("GET", f"{_ROOT}/events?after={following}{query}")
        events += page["events"]
        following = page["next"]
    return events


async def _heads(node: Operator, until: int | None = None) -> list[str]:
    heads: list[str] = []
    following: int | None = 0
    while following is not None:
        page = await node.ask("GET", f"{_ROOT}/heads?after={following}")
        heads += [h["head"] for h in page["heads"] if until is None or h["event"] <= until]
        following = page["next"]
    return heads


async def _export(node: Operator, directory: Path) -> bytes:
    """The whole log, up to the end that is signed first: what is written meanwhile is not in it."""
    from outrider.core.canonical import canonical
    from outrider.network import config
    from outrider.package import audit_export, statements

    network = str(config.load(directory / config.FILE_NAME).network_id)
    end = (await node.ask("GET", f"{_ROOT}/head"))["head"]
    signed = statements.show_head(end.encode())
    if isinstance(signed, Refusal):
        raise Refused(signed)
    events = [e for e in await _events(node) if e["event"]["sequence"] <= signed.sequence]
    heads = await _heads(node, signed.sequence)
    lines = audit_export.write(network, ((canonical(e["event"]), e["hash"]) for e in events), heads, end)
    return b"".join(lines)


def _keys(directory: Path | None, cards: list[Path]) -> "dict[str, list[Ed25519PublicKey]]":
    """The operator keys that are trusted: those of the folder and its partners, and those of the cards given."""
    from outrider.network.card import read_key
    from outrider.network.partner import operator_keys
    from outrider.package.signing import load_public

    keys = operator_keys(directory) if directory is not None else {}
    for file in cards:
        read = read_key(file.read_bytes())
        if isinstance(read, Refusal):
            raise Refused(read)
        network, pem = read
        keys.setdefault(network, []).append(load_public(pem.encode(), str(file)))
    return keys


def _text(event: dict[str, Any]) -> str:
    at = dt.datetime.fromtimestamp(event["atMs"] / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    actor = event["actor"]
    who = actor["name"] if actor["kind"] == "function" else f"{actor['kind']} {actor['name']}"
    about = f" {event['migration']}" if event["migration"] else ""
    head = f"{event['sequence']:>6}  {at}.{event['atMs'] % 1000:03}Z  {event['kind']:<10}  {who}{about}"
    return f"{head}\n        {event['sentence']}\n        [{event['clause']}]"


def _verdict(verdict: "Verdict") -> str:
    count = len(verdict.findings)
    whole = f"{count} finding{'s' if count > 1 else ''}" if count else "as it was written"
    held = f"counter-signed up to event {verdict.vouched}" if verdict.vouched else "nothing of it is counter-signed"
    lines = [
        f"log of {verdict.network}: {verdict.events} events, {whole}",
        f"  {held}",
        f"  head      {verdict.sequence} {verdict.hash}",
    ]
    for finding in verdict.findings:
        lines.append(f"  {finding.code}: {finding.sentence}")
    return "\n".join(lines)
