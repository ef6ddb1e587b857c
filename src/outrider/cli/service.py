"""`outrider service`: run a communication service of this network's operator, look at it, remove it."""

import asyncio
import datetime as dt
import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from outrider.cli.client import AsJson, NetworkDir, Operator, run, user
from outrider.cli.outcome import MISUSE, emit
from outrider.core import limits
from outrider.core.refusal import Refusal, Refused

app = typer.Typer(
    no_args_is_help=True,
    help="Services: deploy one from its package, see what runs, save, restore, remove it, begin anew.",
)

Name = Annotated[str, typer.Argument(help="The service's name.", metavar="SERVICE")]

_ROOT = "/nlmsf-catalogue/v1"
_POLL_S = 0.2


@app.command()
def deploy(
    package: Annotated[Path, typer.Argument(help="The archive, `NAME-VERSION.lms`.", exists=True, dir_okay=False)],
    directory: NetworkDir,
    wait: Annotated[bool, typer.Option(help="Come back when it runs, not when it is on its way.")] = True,
    as_json: AsJson = False,
) -> None:
    """Onboard a package, verify it, and run its service: owned by this network and discoverable at once.

    An upload that was cut goes on where it stopped. Deploying the same package again changes nothing.

    Example: outrider service deploy group-coordination-1.0.0.lms --dir a
    """

    async def do(node: Operator) -> Any:
        with progress(f"sending {package.name}", package.stat().st_size, quiet=as_json) as advance:
            digest = await upload(node, package, advance)
        onboarded = await node.ask("POST", f"{_ROOT}/packages", {"sha256": digest}, timeout_s=300)
        deployed = await node.ask("POST", f"{_ROOT}/deployments", {"packageDigest": onboarded["digest"]})
        return await settled(node, deployed) if wait else deployed

    deployed = run(directory, as_json, do)
    emit(deployed, describe(deployed), as_json)


async def upload(node: Operator, package: Path, advance: Callable[[int], None]) -> str:
    """Send what the node does not have of an archive; the archive's SHA-256."""
    with package.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        total = file.seek(0, 2)
        first = (await node.ask("GET", f"{_ROOT}/uploads/{digest}"))["receivedBytes"]
        advance(first)
        while first < total:
            file.seek(first)
            part = file.read(limits.CATALOGUE_RANGE_BYTES)
            span = [("content-range", f"bytes {first}-{first + len(part) - 1}/{total}")]
            span.append(("content-type", "application/octet-stream"))
            await node.ask("PUT", f"{_ROOT}/uploads/{digest}", body=part, headers=span)
            first += len(part)
            advance(len(part))
    return digest


async def settled(node: Operator, deployed: Any) -> Any:
    """The service once it runs; refused if it does not come up."""
    path = f"{_ROOT}/deployments/{deployed['service']}"
    while True:
        shown = await node.ask("GET", path)
        if shown["state"] == "RUNNING":
            return shown
        if shown["state"] in ("FAILED", "STORE_LOST"):
            refusal = shown["refusal"] or {}
            raise Refused(
                Refusal(
                    refusal.get("code", "HOST_FAILED"),
                    refusal.get("sentence", shown["sentence"]),
                    refusal.get("facts", {}),
                    refusal.get("remedy", ""),
                )
            )
        await asyncio.sleep(_POLL_S)


@app.command()
def impact(
    package: Annotated[Path, typer.Argument(help="The archive, `NAME-VERSION.lms`.", exists=True, dir_okay=False)],
    directory: NetworkDir,
    as_json: AsJson = False,
) -> None:
    """Say what deploying a package would do to this network, before: interfaces, subscriptions, NRF entries, resources.

    The package is onboarded for that (verified and kept); nothing is deployed.

    Example: outrider service impact group-coordination-1.0.0.lms --dir a
    """

    async def do(node: Operator) -> Any:
        with progress(f"sending {package.name}", package.stat().st_size, quiet=as_json) as advance:
            digest = await upload(node, package, advance)
        onboarded = await node.ask("POST", f"{_ROOT}/packages", {"sha256": digest}, timeout_s=300)
        return await node.ask("GET", f"{_ROOT}/packages/{onboarded['digest']}/impact")

    found = run(directory, as_json, do)
    emit(found, _impact(found), as_json)


def _impact(found: Any) -> str:
    lines = [f"Deploying {found['service']} {found['version']} at {found['network']} would"]
    for c in found["consumed"]:
        there = "" if c["present"] else " (nobody offers it here now)"
        lines.append(f"  consume    {c['api']} of the {c['nfType'] or 'network'}, by {c['by']}: {c['why']}{there}")
    for s in found["subscriptions"]:
        lines.append(f"  subscribe  {s['count']} × {s['api']} {s['event']}, {s['about']}")
    for e in found["nrfEntries"]:
        names = ", ".join(e["serviceNames"]) or "no NF service"
        lines.append(
            f'  register   {e["nfType"]} "{e["name"]}" ({e["status"]}): {names}; no slice, no DNN in its profile'
        )
    slices = ", ".join(f"{s['sst']}{'-' + s['sd'] if 'sd' in s else ''}" for s in found["sNssai"])
    lines.append(
        f"  be for     S-NSSAI {slices or 'any'}, DNN {', '.join(found['dnn']) or 'any'}; nothing is configured"
    )
    use = found["resources"]
    lines.append(
        f"  use        {use['processes']} processes, {use['tcpPorts']} TCP port; the worker at most "
        f"{use['workerMemoryMb']} MB, {use['workerProcesses']} processes, {use['workerCpuShare']:g} of a processor"
    )
    lines.append(f"  store      {use['archiveBytes']:,} bytes of archive, its unpacked form, and the state of its UEs")
    lines.append(f"  leave      {len(found['untouched'])} NF instances as they are")
    lines += [f"             {known}" for known in found["untouched"]]
    lines += [f"Refused now: {reason}" for reason in found["notPossible"]]
    return "\n".join(lines)


@app.command("list")
def list_(directory: NetworkDir, as_json: AsJson = False) -> None:
    """List the services that run at this network: own ones, and those hosted for partners.

    Example: outrider service list --dir b
    """
    found = run(directory, as_json, lambda node: node.ask("GET", f"{_ROOT}/deployments"))["deployments"]
    text = "\n".join(_line(s) for s in found) or "No services yet: outrider service deploy PACKAGE"
    emit(found, text, as_json)


@app.command()
def show(service: Name, directory: NetworkDir, as_json: AsJson = False) -> None:
    """Show a service: where its NF services are, and what its host says of itself.

    Example: outrider service show group-coordination --dir a
    """
    found = run(directory, as_json, lambda node: node.ask("GET", f"{_ROOT}/deployments/{service}"))
    emit(found, describe(found), as_json)


@app.command()
def remove(
    service: Name,
    directory: NetworkDir,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: the service's state is deleted for ever.")] = False,
    as_json: AsJson = False,
) -> None:
    """End a service of this network and delete its state. One that is hosted for a partner is returned instead.

    Example: outrider service remove group-coordination --dir a --yes
    """
    if not yes:
        if as_json or not sys.stdin.isatty():
            typer.secho("Give --yes: the service's state is deleted for ever.", err=True, fg="red")
            raise typer.Exit(MISUSE)
        typer.confirm(f"Delete {service} and all its state at this network?", abort=True)

    async def do(node: Operator) -> None:
        path = f"{_ROOT}/deployments/{service}"
        await node.ask("DELETE", path)
        while True:
            try:
                await node.ask("GET", path)
            except Refused as refused:
                if refused.refusal.code == "SERVICE_UNKNOWN":
                    return
                raise
            await asyncio.sleep(_POLL_S)

    run(directory, as_json, do)
    emit({"removed": service}, f"{service} is removed.", as_json)


@app.command("begin-anew")
def begin_anew(
    service: Name,
    directory: NetworkDir,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="The state of every UE is lost: say that this is meant.")
    ] = False,
    reason: Annotated[str, typer.Option(help="A sentence, for the journal.")] = "",
    by: Annotated[str, typer.Option(help="Who asks for it, for the journal.", show_default="the user's name")] = "",
    wait: Annotated[bool, typer.Option(help="Come back when it runs, not when it is on its way.")] = True,
    as_json: AsJson = False,
) -> None:
    """Give up the lost store of a service of this network: it begins again with no UE. Journalled, and not undone.

    Only for a service that is STORE_LOST, and only where no partner can own a UE of it. The newest file, put back
    before, loses nothing; an image (`outrider service restore`) loses less.

    Example: outrider service begin-anew group-coordination --dir a --accept-loss --reason "the disk burnt"
    """
    if not accept_loss:
        typer.secho("Give --accept-loss: the state of every UE of the service is lost for ever.", err=True, fg="red")
        raise typer.Exit(MISUSE)
    body = {"acceptLoss": True, "by": by or user(), "sentence": reason}

    async def do(node: Operator) -> Any:
        begun = await node.ask("POST", f"{_ROOT}/deployments/{service}/begin-anew", body)
        return await settled(node, begun) if wait else begun

    begun = run(directory, as_json, do)
    emit(begun, describe(begun), as_json)


@contextmanager
def progress(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where somebody looks."""
    if quiet or not sys.stderr.isatty():
        yield lambda size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda size: bar.advance(task, size)


def _line(service: Any) -> str:
    home = f"hosted for {service['home']}" if service["hosted"] else "own"
    return f"{service['service']} {service['version']} ({home}): {service['sentence']}"


def describe(service: Any) -> str:
    """A service for people."""
    lines = [_line(service), f"  package   {service['packageDigest']}"]
    for instance in service["instances"]:
        lines.append(f"  {instance['nfType']:<8}  {instance['nfService']}, NF instance {instance['nfInstanceId']}")
    if service["refusal"]:
        lines.append(f"  cause     {service['refusal']['code']}")
        if service["refusal"]["remedy"]:
            lines.append(f"  remedy    {service['refusal']['remedy']}")
    if service["apiRoot"]:
        lines.append(f"  host      {service['apiRoot']}, process {service['pid']}, store {service['storeId']}")
    if service["migrationId"]:
        lines.append(f"  migration {service['migrationId']}")
    keeper = service.get("keeper") or {}
    if isinstance(keeper.get("rows"), dict):
        rows = keeper["rows"]
        lines.append(f"  rows      {rows['owned']} owned here, {rows['granted']} in doubt, {rows['foreign']} elsewhere")
    if keeper.get("worker"):
        alive = "runs" if keeper["worker"].get("alive") else "is being restarted"
        lines.append(f"  worker    {alive}, process {keeper['worker'].get('pid')}")
    for begun in service["begunAnew"]:
        at = dt.datetime.fromtimestamp(begun["atMs"] / 1000, dt.UTC).isoformat(timespec="seconds")
        store = f"store {begun['lost']['storeId']} was lost" if begun["lost"] else "its store was lost"
        lines.append(f"  anew      {at} by {begun['by']}: {store}. {begun['sentence']}".rstrip())
    return "\n".join(lines)
