"""`outrider migration`: bring a service to another network, onward from there, watch it, stop it, bring it home."""

import asyncio
import datetime as dt
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from outrider.cli.client import AsJson, NetworkDir, Operator, run, seconds
from outrider.cli.outcome import MISUSE, REFUSED, emit

app = typer.Typer(
    no_args_is_help=True,
    help="Migrations: bring a service to another network before its users come, watch it, stop it, bring it home.",
)

Id = Annotated[str, typer.Argument(help="The migration, as `list` shows it.", metavar="MIGRATION")]

_ROOT = "/nlmsf-migration/v1/migrations"
_POLL_S = 0.3
READY = ("RELOCATING", "SETTLED")
ENDS = ("RETIRED", "ABORTED")


@app.command()
def start(
    service: Annotated[str, typer.Argument(help="A service that this network has deployed.", metavar="SERVICE")],
    directory: NetworkDir,
    to: Annotated[str, typer.Option("--to", help="The network to bring it to.", metavar="MCC-MNC[-NID]")],
    source: Annotated[
        str | None,
        typer.Option("--from", help="Go onward from this network, which hosts it now.", metavar="MCC-MNC[-NID]"),
    ] = None,
    move_all: Annotated[bool, typer.Option("--move-all", help="Move UEs that have not arrived there too.")] = False,
    deadline: Annotated[str | None, typer.Option(help="Relocating (move-all: done) by then, or abort; 1h.")] = None,
    stay: Annotated[str | None, typer.Option(help="Return after so long; as long as the permission holds.")] = None,
    purpose: Annotated[str | None, typer.Option(help="What for; the permission's.")] = None,
    ue_group: Annotated[str | None, typer.Option(help="For this UE group; the permission's.")] = None,
    area: Annotated[
        list[str] | None, typer.Option(help="Where there: tai:MCC-MNC[-NID]-TAC or dnn:NAME; may be repeated.")
    ] = None,
    max_ues: Annotated[int | None, typer.Option(help="UEs that the contract covers.", min=1)] = None,
    permission: Annotated[
        list[Path] | None, typer.Option(help="Hand this network's signed permission over first.", exists=True)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Come back when UEs can be served there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a service to another network. All networks concerned must permit it; nothing moves before they have.

    With --from it goes onward, from a network that hosts it to a third one, as with `--from 999-71-000007ed9d5 --to
    999-72`: home begins that, too, and all three permit it. UEs that are still at home go straight to the third when
    they arrive there.

    Example: outrider migration start group-coordination --to 999-71-000007ed9d5 --dir a --wait
    """
    wanted = {
        "service": service,
        "target": to,
        "source": source,
        "moveAll": move_all,
        "deadlineS": seconds(deadline),
        "stayS": seconds(stay),
        "purpose": purpose,
        "ueGroup": ue_group,
        "area": area or None,
        "maxUes": max_ues,
    }

    async def do(node: Operator) -> Any:
        for file in permission or []:
            await node.ask("POST", "/nlmsf-permission/v1/permissions", body=file.read_bytes())
        begun = await node.ask("POST", _ROOT, {k: v for k, v in wanted.items() if v is not None})
        return await _follow(node, begun["migrationId"], READY, as_json, quiet=as_json) if wait else begun

    _finish(run(directory, as_json, do), as_json)


@app.command()
def watch(
    migration: Id,
    directory: NetworkDir,
    until: Annotated[str | None, typer.Option(help="Stop watching in this phase.", metavar="PHASE")] = None,
    as_json: AsJson = False,
) -> None:
    """Follow a migration to its end; one line at each change, with --json one JSON document a line.

    Stopping to watch (Ctrl-C) stops nothing else. Ends with 0 if it was retired or came to --until, 1 if it aborted.

    Example: outrider migration watch m-0f3a9c52e1b87d46 --dir a --until SETTLED
    """
    phases = ENDS if until is None else (until.upper(), *ENDS)
    try:
        shown = run(directory, as_json, lambda node: _follow(node, migration, phases, as_json, last=True))
    except KeyboardInterrupt:
        return
    if shown["phase"] == "ABORTED":
        raise typer.Exit(REFUSED)


@app.command("list")
def list_(directory: NetworkDir, as_json: AsJson = False) -> None:
    """List the migrations that this network takes or took part in, the newest first.

    Example: outrider migration list --dir b
    """
    found = run(directory, as_json, lambda node: node.ask("GET", _ROOT))["migrations"]
    text = "\n".join(_line(m) for m in found) or "No migrations yet: outrider migration start SERVICE --to NETWORK"
    emit(found, text, as_json)


@app.command()
def show(
    migration: Id,
    directory: NetworkDir,
    events: Annotated[bool, typer.Option("--events", help="What happened to it here, in order.")] = False,
    contract: Annotated[bool, typer.Option("--contract", help="The terms that all networks signed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a migration as all networks see it.

    Example: outrider migration show m-0f3a9c52e1b87d46 --dir a --events
    """

    async def do(node: Operator) -> Any:
        shown = await node.ask("GET", f"{_ROOT}/{migration}")
        if events:
            shown["events"] = (await node.ask("GET", f"{_ROOT}/{migration}/events"))["events"]
        if contract:
            shown["contract"] = (await node.ask("GET", f"{_ROOT}/{migration}/contract"))["contract"]
        return shown

    shown = run(directory, as_json, do)
    emit(shown, _describe(shown), as_json)


@app.command()
def abort(
    migration: Id,
    directory: NetworkDir,
    cause: Annotated[str, typer.Option(help="A code, in capitals.")] = "OPERATOR_ABORT",
    reason: Annotated[str, typer.Option(help="A sentence, for the partner too.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Come back when everything is undone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop a migration in any phase: nothing new is granted from now on, and UEs that have moved come home.

    Ends with 0 also if it was aborted before, and says so (with --json: `already`); with 1 if it has ended otherwise.

    Example: outrider migration abort m-0f3a9c52e1b87d46 --dir b --reason "no room for another service"
    """

    async def do(node: Operator) -> Any:
        before = await node.ask("GET", f"{_ROOT}/{migration}")
        shown = await node.ask("POST", f"{_ROOT}/{migration}/abort", {"cause": cause, "sentence": reason})
        if wait:
            shown = await _follow(node, migration, ENDS, as_json, quiet=as_json)
        return shown | {"already": before["phase"] in ("ABORTING", "ABORTED")}

    shown = run(directory, as_json, do)
    if shown["already"] and not as_json:
        typer.echo(f"It was aborted already: {shown['ending']['sentence']} ({shown['ending']['cause']}).")
    emit(shown, _describe(shown), as_json)
    if shown["phase"] == "RETIRED":
        raise typer.Exit(REFUSED)


@app.command("declare-lost")
def declare_lost(
    migration: Id,
    directory: NetworkDir,
    store: Annotated[str, typer.Option("--store", help="The lost store, as `show` names it.", metavar="STORE")],
    reason: Annotated[str, typer.Option(help="A sentence, for the partner and the journal.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: what the store had not told is lost.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Come back when the partner is clear too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Declare that the partner's store is gone for good, and take back here what it had. Home only.

    The store is banned for ever, and its UEs are served here again as they were when it was last heard; what it did
    after that is lost. Never for a store behind a cut link: both networks would serve its UEs. The migration ends
    ABORTED, STORE_LOST.

    Example: outrider migration declare-lost m-0f3a9c52e1b87d46 --store 5c0b7e1fd2a94c63 --dir a --yes
    """
    if not yes:
        if as_json or not sys.stdin.isatty():
            typer.secho("Give --yes: what the store had not told is lost for ever.", err=True, fg="red")
            raise typer.Exit(MISUSE)
        shown = run(directory, as_json, lambda node: node.ask("GET", f"{_ROOT}/{migration}"))
        typer.echo(_describe(shown))
        typer.confirm(f"Is store {store} gone for good, with all that it had not told?", abort=True)

    async def do(node: Operator) -> Any:
        body = {"storeId": store, "sentence": reason}
        shown = await node.ask("POST", f"{_ROOT}/{migration}/declare-lost", body)
        return await _follow(node, migration, ENDS, as_json, quiet=as_json) if wait else shown

    shown = run(directory, as_json, do)
    emit(shown, _describe(shown), as_json)


@app.command("return")
def return_(
    migration: Id,
    directory: NetworkDir,
    reason: Annotated[str, typer.Option(help="A sentence, for the partner too.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Come back when the partner has erased it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring every UE home; the partner then erases state and software and signs for it. Either network may ask.

    Example: outrider migration return m-0f3a9c52e1b87d46 --dir a --wait
    """

    async def do(node: Operator) -> Any:
        shown = await node.ask("POST", f"{_ROOT}/{migration}/return", {"sentence": reason})
        return await _follow(node, migration, ENDS, as_json, quiet=as_json) if wait else shown

    _finish(run(directory, as_json, do), as_json)


async def _follow(
    node: Operator,
    migration: str,
    phases: tuple[str, ...],
    as_json: bool,
    *,
    quiet: bool = False,
    last: bool = False,
) -> Any:
    """Poll until the migration is in one of the phases, or over, and say each change; the last one where asked to."""
    said = ""
    while True:
        shown = await node.ask("GET", f"{_ROOT}/{migration}")
        ended = shown["over"] or (shown["phase"] in phases and shown["phase"] not in ENDS)
        line = msgspec.json.encode(shown).decode() if as_json else _line(shown) + _numbers(shown)
        key = f"{shown['phase']} {shown['waitingFor']} {_numbers(shown)}"
        if key != said and not quiet and (last or not ended):
            typer.echo(line)
            sys.stdout.flush()
        if ended:
            return shown
        said = key
        await asyncio.sleep(_POLL_S)


def _finish(shown: Any, as_json: bool) -> None:
    """Print a migration; one that was aborted by now is a refusal."""
    emit(shown, _describe(shown), as_json)
    if shown["phase"] in ("ABORTING", "ABORTED"):
        raise typer.Exit(REFUSED)


def _line(m: Any) -> str:
    waiting = f"; waiting for {m['waitingFor']}" if not m["over"] else ""
    return f"{m['migrationId']} {m['service']} {m['source']} → {m['target']}: {m['phase']}, {m['sentence']}{waiting}"


def _numbers(m: Any) -> str:
    p = m.get("progress")
    if p is None or m["over"]:
        return ""
    if m["phase"] == "COPYING":
        there = f", {p['movedUes']} there already" if p["movedUes"] else ""
        return f" ({p['copiedUes']} of {p['totalUes']} UEs copied{there})"
    if p["movedUes"] or p["remainingUes"]:
        return f" ({p['movedUes']} UEs there, {p['remainingUes']} here)"
    return ""


def _describe(m: Any) -> str:
    lines = [_line(m) + _numbers(m)]
    if m["ending"] is not None:
        lines.append(f"  because   {m['ending']['sentence']} ({m['ending']['cause']}, {m['ending']['by']})")
    for n, refusal in enumerate(m["refusals"]):
        if n:
            lines.append(f"            {refusal['sentence']} ({refusal['code']})")
        if refusal.get("remedy"):
            lines.append(f"            {refusal['remedy']}")
    if m["readLogOf"]:
        lines.append(f"  read      the log of {m['readLogOf']}")
    for undone in m["undone"]:
        lines.append(f"  undone    {undone}")
    if m["loss"] is not None:
        lines += _lost(m["loss"])
    if m["inDoubt"]:
        lines.append(f"  in doubt  {len(m['inDoubt'])} UEs, {', '.join(m['inDoubt'][:3])}…")
    if m["unreachableUes"]:
        lines.append(f"  away      {m['unreachableUes']} UEs cannot be reached")
    giver = m.get("giver")
    lines += _partner("partner" if giver is None else "target", m["partner"])
    if giver is not None:
        lines += _partner("source", giver)
    began = m["phases"].get("NEGOTIATING", m["createdMs"])
    for phase, at in m["phases"].items():
        lines.append(f"  {phase:<12} {_clock(at)}  +{(at - began) / 1000:.3f} s")
    for event in m.get("events", []):
        lines.append(f"  {_clock(event['atMs'])}  {event['event']:<28} {event['phase']}: {event['why']}")
    if "contract" in m:
        lines.append(msgspec.json.format(msgspec.json.encode(m["contract"]), indent=2).decode())
    return "\n".join(lines)


def _partner(what: str, partner: Any) -> list[str]:
    answers = "" if partner["answers"] else " (does not answer)"
    store = f", store {partner['storeId']}" if partner["storeId"] else ""
    lines = [f"  {what:<8}  {partner['network']}{answers}: {partner['phase'] or 'not heard of yet'}{store}"]
    if "STORE_LOST" in partner.get("waitingFor", ""):
        lines.append(f"            waits for {partner['waitingFor']}")
    return lines


def _lost(loss: Any) -> list[str]:
    rows = loss["shadow"]
    lines = [f"  lost      store {loss['storeId']}; taken back: {loss['ues']} UEs, shared objects: {loss['shared']}"]
    if loss["behindEntries"]:
        lines.append(f"            {loss['behindEntries']} commits that it had told of are missing")
    if rows["unknown"] or rows["behind"]:
        keys = ", ".join(k["key"] for k in loss["keys"][:3] if k["shadow"] != "followed")
        lines.append(f"            not known what it did to {rows['unknown']} rows, behind {rows['behind']}: {keys}…")
    else:
        lines.append("            nothing that it had told is missing; what it did after that is lost")
    return lines


def _clock(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%H:%M:%S.%f")[:-3] + "Z"
