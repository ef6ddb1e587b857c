"""`outrider permission`: a network's own word that a package may run, as a signed file, and its taking back."""

import asyncio
import datetime as dt
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outrider.cli.outcome import emit, ending, refuse
from outrider.core.canonical import decode_canonical
from outrider.core.ids import NetworkId
from outrider.core.permission import DataPolicy, Permission, Revocation, parties
from outrider.core.refusal import Refusal, Refused

if TYPE_CHECKING:
    from outrider.sbi.http import Response

app = typer.Typer(no_args_is_help=True, help="Permissions: a network's signature over a package, its SBOM and terms.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NetworkDir = Annotated[Path, typer.Option("--dir", help="The signing network's folder.", exists=True, file_okay=False)]
Source = Annotated[str, typer.Option(help="The network that the service leaves.", metavar="MCC-MNC[-NID]")]
Target = Annotated[str, typer.Option(help="The network that it goes to.", metavar="MCC-MNC[-NID]")]
Home = Annotated[str, typer.Option(help="The network whose operator offers the service.", metavar="MCC-MNC[-NID]")]

DEFAULT_PURPOSE = "communication-service"
DAY_MS = 86_400_000


@app.command()
def sign(
    package: Annotated[Path, typer.Argument(help="The archive, `NAME-VERSION.lms`.", exists=True, dir_okay=False)],
    directory: NetworkDir,
    source: Source,
    target: Target,
    home: Home,
    days: Annotated[float, typer.Option(help="How long it holds, from now.", min=0.0001, max=3660)],
    vendor: Annotated[
        list[Path] | None,
        typer.Option(help="A trusted vendor's .pub file, beside those in DIR/vendors.", exists=True),
    ] = None,
    purpose: Annotated[str, typer.Option(help="What for.")] = DEFAULT_PURPOSE,
    ue_group: Annotated[str | None, typer.Option(help="For this UE group only.")] = None,
    area: Annotated[list[str] | None, typer.Option(help="In this area only; may be repeated.")] = None,
    category: Annotated[list[str] | None, typer.Option(help="Data category that may move; all if not given.")] = None,
    instances: Annotated[int, typer.Option(help="Hosts at the target at a time.", min=1)] = 1,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The permission's file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Verify a package, judge it by this network's rules ([supply]), and sign this network's permission for it.

    Example: outrider permission sign group-coordination-1.0.0.lms --dir a --source 999-70 --target 999-71 --home 999-70
    --days 7
    """
    from outrider.network.supply import of_folder, trusted_vendors
    from outrider.package import signing, statements, vendors
    from outrider.package.verify import verify

    with ending(as_json):
        signer = _network_of(directory)
        if signer not in parties(*(_canonical(n) for n in (source, target, home))):
            refuse(
                Refusal(
                    "NOT_A_PARTY",
                    f"{signer} is neither source nor target nor home, so nobody asks for its permission.",
                    {"network": signer},
                    "Name this network in one of the three roles, or sign in another network's folder.",
                ),
                as_json,
            )
        revocations, supply = of_folder(directory)
        trusted = [*trusted_vendors(directory), *vendors.read_all(vendor or [])]
        verified = verify(package, trusted, to_run=False, revoked=revocations.load())
        if isinstance(verified, Refusal):
            refuse(verified, as_json)
        hands_on = _canonical(target) if signer == _canonical(home) != _canonical(target) else None
        against = supply.judge(verified.facts, handed_to=hands_on)
        if against:
            refuse(against, as_json)
        now_ms = int(time.time() * 1000)
        try:
            permission = Permission(
                signer=signer,
                service=verified.manifest.service,
                package_digest=verified.package_digest,
                sbom_digest=verified.sbom_digest,
                source=_canonical(source),
                target=_canonical(target),
                home=_canonical(home),
                purpose=purpose,
                ue_group=ue_group,
                area=tuple(area) if area else None,
                not_before_ms=now_ms,
                not_after_ms=now_ms + int(days * DAY_MS),
                data_policy=DataPolicy(categories=tuple(category) if category else None),
                max_instances=instances,
                nonce=os.urandom(16).hex(),
            )
            # What is signed must be readable by others, who check the schema too.
            decode_canonical(permission.encode(), Permission)
        except ValueError as error:
            raise Refused(Refusal("TERMS_INVALID", f"These terms cannot be signed: {error}.", status=400)) from None
        envelope = statements.sign_permission(permission, signing.load_private(directory / "keys" / "operator.key"))
        file = output or Path(f"{package.stem}.{signer}.permission.json")
        file.write_bytes(envelope)
        value = {"file": str(file), "id": permission.id, "permission": permission}
        emit(value, f"{file}\n{_describe(permission)}", as_json)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A permission.", exists=True, dir_okay=False)],
    key: Annotated[
        Path | None, typer.Option(help="The signer's operator key (PEM): check the signature.", exists=True)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a permission permits, and with --key whether its signature is good.

    Example: outrider permission show group-coordination-1.0.0.999-70.permission.json
    """
    from outrider.package import signing, statements

    with ending(as_json):
        envelope = _read(file)
        permission = statements.show_permission(envelope)
        if isinstance(permission, Refusal):
            refuse(permission, as_json)
        signature = "not checked"
        if key is not None:
            keys = {permission.signer: [signing.load_public(key.read_bytes(), str(key))]}
            signed = statements.read_permission(envelope, keys)
            if isinstance(signed, Refusal):
                refuse(signed, as_json)
            signature = signed.signature.value
        value = {"id": permission.id, "signature": signature, "permission": permission}
        emit(value, f"{_describe(permission)}\n  signature  {signature}", as_json)


@app.command()
def revoke(
    file: Annotated[Path, typer.Argument(help="The permission to take back.", exists=True, dir_okay=False)],
    directory: NetworkDir,
    reason: Annotated[str, typer.Option(help="Why, for those whom it concerns.")] = "",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The revocation's file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sign that this network takes one of its own permissions back.

    Example: outrider permission revoke group-coordination-1.0.0.999-70.permission.json --dir a --reason "group is home"
    """
    from outrider.package import signing, statements

    with ending(as_json):
        signer = _network_of(directory)
        key = signing.load_private(directory / "keys" / "operator.key")
        permission = statements.show_permission(_read(file))
        if isinstance(permission, Refusal):
            refuse(permission, as_json)
        if permission.signer != signer:
            refuse(
                Refusal(
                    "PERMISSION_OF_ANOTHER",
                    f"This permission is of {permission.signer}; {signer} cannot take it back.",
                    {"signer": permission.signer, "network": signer},
                    f"The operator of {permission.signer} revokes it.",
                ),
                as_json,
            )
        if len(reason) > 400:
            refuse(Refusal("TERMS_INVALID", "A reason has at most 400 characters.", status=400), as_json)
        revocation = Revocation(
            signer=signer, permission_id=permission.id, revoked_at_ms=int(time.time() * 1000), reason=reason
        )
        to = output or file.with_name(f"{file.name.removesuffix('.permission.json')}.revocation.json")
        to.write_bytes(statements.sign_revocation(revocation, key))
        value = {"file": str(to), "revocation": revocation}
        emit(value, f"{to}\n  {signer} takes back permission {permission.id}", as_json)


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(help="A signed permission or revocation.", exists=True, dir_okay=False)],
    directory: NetworkDir,
    as_json: AsJson = False,
) -> None:
    """Give a signed permission, or a revocation, to this network's LMSF; it takes effect at once.

    Example: outrider permission upload group-coordination-1.0.0.999-70.permission.json --dir a
    """
    from outrider.package import statements
    from outrider.sbi.problem import refusal_from

    with ending(as_json):
        envelope = _read(file)
        revocation = isinstance(statements.show_permission(envelope), Refusal)
        path = f"/nlmsf-permission/v1/{'revocations' if revocation else 'permissions'}"
        response = asyncio.run(_post(directory, path, envelope))
        if response.status != 201:
            refuse(refusal_from(response, "The LMSF did not take it."), as_json)
        emit(response.json(), f"{file} is in force at {_network_of(directory)}", as_json)


async def _post(directory: Path, path: str, body: bytes) -> "Response":
    from outrider.network.reach import Reach

    async with Reach(directory) as reach:
        return await reach.request("POST", path, scope="nlmsf-permission", body=body)


def _network_of(directory: Path) -> str:
    from outrider.network import config

    return str(config.load(directory / config.FILE_NAME).network_id)


def _canonical(network: str) -> str:
    try:
        return str(NetworkId.parse(network))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _read(file: Path) -> bytes:
    from outrider.core import limits

    with file.open("rb") as source:
        return source.read(limits.ENVELOPE_BYTES + 1)


def _describe(permission: Permission) -> str:
    categories = permission.data_policy.categories
    lines = [
        ("permits", f"{permission.service}, by {permission.signer}"),
        ("id", permission.id),
        ("package", permission.package_digest),
        ("SBOM", permission.sbom_digest),
        ("way", f"{permission.source} to {permission.target}, home {permission.home}"),
        ("purpose", permission.purpose),
        ("UE group", permission.ue_group or "any"),
        ("area", ", ".join(permission.area) if permission.area else "any"),
        ("data", ", ".join(categories) if categories is not None else "every category"),
        ("hosts", str(permission.max_instances)),
        ("valid", f"{_time(permission.not_before_ms)} to {_time(permission.not_after_ms)}"),
    ]
    return "\n".join(f"  {name:<9}  {value}" for name, value in lines)


def _time(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
