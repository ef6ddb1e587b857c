"""`outrider catalogue`: the packages of a network: taken in, looked at, withdrawn; and what is revoked."""

import datetime as dt
from pathlib import Path
from typing import Annotated, Any

import typer

from outrider.cli.client import AsJson, NetworkDir, Operator, run
from outrider.cli.outcome import emit, ending
from outrider.cli.service import progress, upload

app = typer.Typer(
    no_args_is_help=True, help="The catalogue: packages that this network has, who permits them, where they run."
)

Digest = Annotated[str, typer.Argument(help="A package digest, or its beginning.", metavar="PACKAGE")]

_ROOT = "/nlmsf-catalogue/v1/packages"


@app.command()
def onboard(
    package: Annotated[Path, typer.Argument(help="The archive, `NAME-VERSION.lms`.", exists=True, dir_okay=False)],
    directory: NetworkDir,
    as_json: AsJson = False,
) -> None:
    """Send a package to the node, which verifies it and judges it by this network's rules; nothing is deployed.

    An upload that was cut goes on where it stopped.

    Example: outrider catalogue onboard group-coordination-1.0.0.lms --dir a
    """

    async def do(node: Operator) -> Any:
        with progress(f"sending {package.name}", package.stat().st_size, quiet=as_json) as advance:
            digest = await upload(node, package, advance)
        return await node.ask("POST", _ROOT, {"sha256": digest}, timeout_s=300)

    found = run(directory, as_json, do)
    emit(found, describe(found), as_json)


@app.command("list")
def list_(directory: NetworkDir, as_json: AsJson = False) -> None:
    """List the packages: versions of each service, who published them, and their state.

    ONBOARDED: verified and kept. ENABLED: this operator permits it. IN_USE: a service runs from it here. WITHDRAWN:
    nothing new begins with it.

    Example: outrider catalogue list --dir a
    """
    found = run(directory, as_json, lambda node: node.ask("GET", _ROOT))["packages"]
    text = "\n".join(_line(p) for p in found) or "No packages yet: outrider catalogue onboard PACKAGE"
    emit(found, text, as_json)


@app.command()
def show(package: Digest, directory: NetworkDir, as_json: AsJson = False) -> None:
    """Show a package: who published and who permits it, where it runs, and what speaks against it now.

    Example: outrider catalogue show 5d3c --dir a
    """

    async def do(node: Operator) -> Any:
        return await node.ask("GET", f"{_ROOT}/{await resolve(node, package)}", timeout_s=60)

    found = run(directory, as_json, do)
    emit(found, describe(found), as_json)


@app.command()
def withdraw(
    package: Digest,
    directory: NetworkDir,
    reason: Annotated[str, typer.Option(help="A sentence, for those who ask later.")] = "",
    as_json: AsJson = False,
) -> None:
    """Begin nothing new with a package: no deployment, no migration, no hosting. What runs from it goes on.

    Example: outrider catalogue withdraw 5d3c --dir a --reason "1.0.1 replaces it"
    """

    async def do(node: Operator) -> Any:
        digest = await resolve(node, package)
        return await node.ask("POST", f"{_ROOT}/{digest}/withdraw", {"sentence": reason})

    found = run(directory, as_json, do)
    emit(found, describe(found), as_json)


@app.command()
def revocations(
    directory: Annotated[
        Path, typer.Option("--dir", envvar="OUTRIDER_DIR", help="The network's folder.", exists=True, file_okay=False)
    ],
    add: Annotated[
        Path | None, typer.Option(help="Take this list, of a trusted vendor or of this operator.", exists=True)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the revocation lists of this network, or take a newer one with --add; a running node sees it at once.

    A list that is older than one that was seen is refused.

    Example: outrider catalogue revocations --add acme.revoked --dir a
    """
    from outrider.network.supply import of_folder

    with ending(as_json):
        lists, supply = of_folder(directory)
        if add is not None:
            supply.add_revocations(add.read_bytes())
        lists.load()
        found = lists.all()
        lines = []
        for one in found:
            lines.append(f"{one.issuer}: list {one.sequence}, {_time(one.issued_at_ms)}")
            lines += [f"  {e.kind:<12}{e.id}  {e.reason}".rstrip() for e in one.entries]
        emit(found, "\n".join(lines) or "Nothing is revoked here.", as_json)


async def resolve(node: Operator, beginning: str) -> str:
    """The digest that begins so; the text itself if none or several do, and the node says what is wrong."""
    if len(beginning) == 64:
        return beginning
    known = [p["digest"] for p in (await node.ask("GET", _ROOT))["packages"]]
    fitting = [digest for digest in known if digest.startswith(beginning.lower())]
    if len(fitting) != 1:
        what = "several packages" if fitting else "no package"
        raise typer.BadParameter(f"{what} of the catalogue begin with {beginning!r}")
    return str(fitting[0])


def _line(package: Any) -> str:
    manifest = package["manifest"]
    origin = f"from {package['origin']}" if package["origin"] else "onboarded here"
    return (
        f"{manifest['service']} {manifest['version']}  {package['state']:<9}  {package['digest'][:16]}…  "
        f"by {package['publishedBy']}, {origin}"
    )


def _time(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).isoformat(timespec="seconds")


def describe(package: Any) -> str:
    """A package for people."""
    lines = [
        _line(package),
        f"  {package['sentence']}",
        f"  package digest  {package['digest']}",
        f"  SBOM digest     {package['sbomDigest']}",
        f"  signed by       {package['vendorKeyId']}",
        f"  onboarded       {_time(package['onboardedMs'])}, {package['sizeBytes']:,} bytes",
    ]
    if package["withdrawnMs"]:
        lines.append(f"  withdrawn       {_time(package['withdrawnMs'])}  {package['withdrawnWhy']}".rstrip())
    for p in package["permittedBy"]:
        lines.append(f"  permitted by    {p['network']}, {p['source']} to {p['target']}: {p['state']}")
    for r in package["runsAt"]:
        by = f", migration {r['migrationId']}" if r["migrationId"] else ""
        lines.append(f"  runs at         {r['network']}: {r['state']}{by}")
    for f in package["findings"]:
        exploited = ", known to be used in attacks" if f["knownExploited"] else ""
        lines.append(f"  vulnerability   {f['component']} {f['version']}: {f['advisory']}, {f['severity']}{exploited}")
    for reason in package["against"]:
        lines.append(f"  against it      {reason['code']}: {reason['sentence']}")
        if reason["remedy"]:
            lines.append(f"                  {reason['remedy']}")
    return "\n".join(lines)
