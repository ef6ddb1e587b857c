"""`outrider partner`: one file goes each way, and a fingerprint is compared by another way, such as the phone."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outrider.cli.network import AsJson, NetworkDir, network_id
from outrider.cli.outcome import MISUSE, emit, ending, refuse
from outrider.core.refusal import Refusal

if TYPE_CHECKING:
    from outrider.network.partner import Partner, Partners

app = typer.Typer(no_args_is_help=True, help="Partners: exchange cards with another network, see who is linked.")

PartnerId = Annotated[str, typer.Argument(help="The partner's network.", metavar="MCC-MNC[-NID]")]


def _partners(directory: Path) -> "Partners":
    from outrider.network import config as configs
    from outrider.network.keys import Keys
    from outrider.network.partner import Partners

    return Partners(directory / "partners", configs.load(directory / configs.FILE_NAME), Keys(directory / "keys"))


@app.command()
def invite(
    partner: PartnerId,
    directory: NetworkDir,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The card's file.")] = None,
    listen_control: Annotated[int | None, typer.Option(help="Port for its control traffic.")] = None,
    listen_bulk: Annotated[int | None, typer.Option(help="Port for its bulk traffic.")] = None,
    as_json: AsJson = False,
) -> None:
    """Reserve two listener ports for a partner and write the card to hand to it.

    Do it again to get the same card again. The partner does the same; each then adds the other's card.

    Example: outrider partner invite 999-71-000007ed9d5 --dir a -o for-b.json
    """
    from outrider.network.card import encode, fingerprint
    from outrider.network.files import write_atomic

    network = network_id(partner)
    with ending(as_json):
        card = _partners(directory).invite(network, listen_control, listen_bulk)
        if isinstance(card, Refusal):
            refuse(card, as_json)
        file = output or Path(f"card-of-{card.network}-for-{network}.json")
        write_atomic(file, encode(card))
        value = {"file": str(file), "fingerprint": fingerprint(card), "border": card.border}
        lines = [
            f"{file}: hand this to {network}",
            f"  listens for it at  {card.border.host}:{card.border.control_port} (control), "
            f"{card.border.host}:{card.border.bulk_port} (bulk)",
            f"  fingerprint        {fingerprint(card)}",
            "Read the fingerprint to the partner by another way, such as the phone, when it adds the card.",
        ]
        emit(value, "\n".join(lines), as_json)


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="The card that the partner handed over.", exists=True, dir_okay=False)],
    directory: NetworkDir,
    expected: Annotated[
        str | None, typer.Option("--fingerprint", help="What the partner read out; added only if the card has it.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="The fingerprint was compared already.")] = False,
    address: Annotated[str | None, typer.Option(help="Reach its border here, not where its card says.")] = None,
    control_port: Annotated[int | None, typer.Option(help="Its control port there.", min=1, max=65535)] = None,
    bulk_port: Annotated[int | None, typer.Option(help="Its bulk port there.", min=1, max=65535)] = None,
    as_json: AsJson = False,
) -> None:
    """Add a partner by its card, once its fingerprint is compared.

    Example: outrider partner add for-a.json --dir a --fingerprint "1A2B 3C4D ..."
    """
    from outrider.network.card import CARD_BYTES, fingerprint, same_fingerprint

    with ending(as_json):
        partners = _partners(directory)
        with file.open("rb") as source:
            card = partners.read_card(source.read(CARD_BYTES + 1))
        if isinstance(card, Refusal):
            refuse(card, as_json)
        found = fingerprint(card)
        if expected is not None and not same_fingerprint(expected, found):
            refuse(
                Refusal(
                    "FINGERPRINT_DIFFERS",
                    f"The card's fingerprint is {found}, not {expected}.",
                    {"found": found, "expected": expected},
                    "Do not use this card: ask the partner for it again, and compare again.",
                ),
                as_json,
            )
        if expected is None and not yes:
            if as_json or not sys.stdin.isatty():
                typer.secho("Give --fingerprint with what the partner read out, or --yes.", err=True, fg="red")
                raise typer.Exit(MISUSE)
            typer.echo(f"Card of {card.network} ({card.kind}) {card.name}\n  fingerprint  {found}")
            typer.confirm("Has the partner read out the same fingerprint?", abort=True)
        added = partners.add(card, address=address, control_port=control_port, bulk_port=bulk_port)
        if isinstance(added, Refusal):
            refuse(added, as_json)
        lines = [_line(added)]
        if added.waiting_for:
            lines.append(f"Next: outrider partner invite {added.network} --dir {directory}")
        emit(_value(added), "\n".join(lines), as_json)


@app.command("list")
def list_(directory: NetworkDir, as_json: AsJson = False) -> None:
    """List the partners, and what each link still waits for.

    Example: outrider partner list --dir a
    """
    with ending(as_json):
        known = _partners(directory).all()
        text = "\n".join(_line(p) for p in known) or "No partners yet: outrider partner invite MCC-MNC[-NID]"
        emit([_value(p) for p in known], text, as_json)


@app.command()
def remove(partner: PartnerId, directory: NetworkDir, as_json: AsJson = False) -> None:
    """Forget a partner: its listeners close, and nothing of it is accepted any more.

    Example: outrider partner remove 999-71-000007ed9d5 --dir a
    """
    network = network_id(partner)
    with ending(as_json):
        refused = _partners(directory).remove(network)
        if refused is not None:
            refuse(refused, as_json)
        emit({"removed": str(network)}, f"{network} is no partner any more.", as_json)


def _value(partner: "Partner") -> dict[str, object]:
    from outrider.network.card import fingerprint

    card = partner.card
    return {
        "network": partner.network,
        "kind": card.kind if card else None,
        "name": card.name if card else None,
        "state": partner.state,
        "waitingFor": partner.waiting_for,
        "fingerprint": fingerprint(card) if card else None,
        "address": partner.address,
        "listen": partner.listen,
    }


def _line(partner: "Partner") -> str:
    name = f" ({partner.card.kind}) {partner.card.name}".rstrip() if partner.card else ""
    return f"{partner.network}{name}: {partner.waiting_for or 'ready'}"
