"""`outrider network`: make a network, run its node, ask how it is."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from outrider.cli.outcome import UNREACHABLE, emit, ending
from outrider.core.ids import NetworkId
from outrider.core.refusal import Refused

app = typer.Typer(no_args_is_help=True, help="Networks: make one, run its node, ask how it is.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NetworkDir = Annotated[Path, typer.Option("--dir", help="The network's folder.", exists=True, file_okay=False)]


def network_id(text: str) -> NetworkId:
    """A network's identity from the command line."""
    try:
        return NetworkId.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="A folder that does not exist yet, or is empty.", metavar="DIR")],
    network: Annotated[str, typer.Option("--id", help="Its identity.", metavar="MCC-MNC[-NID]")],
    kind: Annotated[
        str | None,
        typer.Option(
            help="plmn, vplmn, snpn, pni-npn, local or intermediate.", show_default="snpn with NID, else plmn"
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="What people call it.")] = "",
    sbi_port: Annotated[int, typer.Option(help="Port of the internal listener; 0 takes a free one.")] = 7770,
    border_host: Annotated[str, typer.Option(help="Where partners reach the border.")] = "127.0.0.1",
    border_listen: Annotated[str, typer.Option(help="Local address that the border listens on.")] = "127.0.0.1",
    border_port: Annotated[int, typer.Option(help="Partners get pairs of ports from here on.")] = 7780,
    as_json: AsJson = False,
) -> None:
    """Make a network: its config, with a comment at each key, and all its keys.

    Example: outrider network init a --id 999-70 --kind plmn --name Rail
    """
    from outrider.network import config as configs
    from outrider.network.create import create

    identity = network_id(network)
    with ending(as_json):
        wanted: dict[str, Any] = {
            "network": {"id": str(identity), "kind": kind or ("snpn" if identity.nid else "plmn"), "name": name},
            "sbi": {"port": sbi_port},
            "border": {"host": border_host, "listen": border_listen, "port": border_port},
        }
        try:
            config = msgspec.convert(wanted, configs.NetworkConfig)
        except msgspec.ValidationError as error:
            raise typer.BadParameter(str(error)) from None
        create(directory, config)
        value = {"network": str(identity), "kind": config.network.kind, "dir": str(directory)}
        lines = [
            f"{directory}: network {identity} ({config.network.kind})",
            f"  config  {directory / configs.FILE_NAME}",
            f"  keys    {directory / 'keys'} (never leave this folder, never committed)",
            f"Next: outrider partner invite PARTNER --dir {directory}, then outrider network run {directory}",
        ]
        emit(value, "\n".join(lines), as_json)


@app.command()
def run(
    target: Annotated[Path, typer.Argument(help="The network's folder, or its config file.", exists=True)],
    only: Annotated[
        list[str] | None, typer.Option(help="Run this function alone: nrf, lmsf, n32 or basic; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a network's node until Ctrl-C or SIGTERM. When it is ready it says so on stdout; logs go to stderr.

    SIGHUP reads the policy's files again, as `outrider policy apply` does.

    Functions that need an NRF elsewhere find it by `nrf_root` in [sbi]; n32 alone takes requests outwards only.

    Example: outrider network run a
    """
    import uvloop

    from outrider.network import config as configs
    from outrider.network.node import FUNCTIONS

    wrong = sorted(set(only or ()) - set(FUNCTIONS))
    if wrong:
        raise typer.BadParameter(f"{wrong[0]} is no function: {', '.join(FUNCTIONS)}")
    with ending(as_json):
        _log_to_stderr()
        directory, file = configs.locate(target)
        uvloop.run(_run(directory, file, tuple(only or FUNCTIONS), as_json))


async def _run(directory: Path, file: Path, only: tuple[str, ...], as_json: bool) -> None:
    from outrider.network.node import Node

    node = Node(directory, config_file=file, only=only)
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await node.start()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        reloads.add(task := asyncio.create_task(node.reload()))
        task.add_done_callback(reloads.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    try:
        status = node.status()
        if as_json:
            typer.echo(msgspec.json.encode({"ready": True, **status}).decode())
        else:
            typer.echo(_describe(status))
            typer.echo("Ctrl-C stops it.")
        sys.stdout.flush()
        await stopping.wait()
    finally:
        await node.stop()


def _log_to_stderr() -> None:
    """One JSON line per event, or something readable on a terminal."""
    import structlog

    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    if sys.stderr.isatty():
        processors.append(structlog.dev.ConsoleRenderer())
    else:
        processors.append(structlog.processors.format_exc_info)
        processors.append(
            structlog.processors.JSONRenderer(
                serializer=lambda value, **_: msgspec.json.encode(value, enc_hook=repr).decode()
            )
        )
    structlog.configure(processors=processors, logger_factory=structlog.WriteLoggerFactory(sys.stderr))


@app.command()
def status(directory: NetworkDir, as_json: AsJson = False) -> None:
    """Say how a running node is: its functions, partners and their links, hosts.

    Example: outrider network status --dir a --json
    """
    with ending(as_json):
        try:
            value = asyncio.run(_status(directory))
        except Refused as refused:
            if refused.refusal.code != "NODE_DOWN":
                raise
            typer.secho(str(refused.refusal), err=True, fg="red")
            raise typer.Exit(UNREACHABLE) from None
        emit(value, _describe(value), as_json)


async def _status(directory: Path) -> dict[str, Any]:
    from outrider.network.node import STATUS_PATH
    from outrider.network.reach import Reach

    async with Reach(directory) as reach:
        found: dict[str, Any] = (await reach.request("GET", STATUS_PATH)).json()
    return found


def _describe(status: dict[str, Any]) -> str:
    title = f"{status['network']} ({status['kind']})" + (f" {status['name']}" if status["name"] else "")
    lines = [
        f"{title} is up since {status['startedAt']}, process {status['pid']}",
        f"  internal listener  {status['root']}",
        f"  functions          {', '.join(status['functions'])}",
    ]
    for partner in status["partners"]:
        link = partner["link"]
        said = partner["waitingFor"] or partner["state"]
        if link is not None:
            said = f"link {link['link']}" + (f" ({link['why']})" if link["why"] else "")
        lines.append(f"  partner            {partner['network']} {partner['name']}: {said}")
    if not status["partners"]:
        lines.append("  partner            none yet: outrider partner invite")
    for host in status["hosts"]:
        if host["refusal"]:
            said = f"{host['refusal']['code']}: {host['refusal']['sentence']}"
            lines.append(f"  host               {host['service']} does not run, {said}")
            continue
        alive = "runs" if host["alive"] else "is being restarted"
        lines.append(f"  host               {host['service']} {alive} at {host['root']}, process {host['pid']}")
    if status["basic"] is not None:
        basic = status["basic"]
        lines.append(f"  basic part         {basic['registrations']} UEs, {basic['pduSessions']} PDU sessions")
    return "\n".join(lines)
