"""`outrider package`: build a service's package, look into one, verify one, make a vendor's keys."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from outrider.cli.outcome import emit, ending, refuse
from outrider.core.refusal import Refusal, Refused

app = typer.Typer(no_args_is_help=True, help="Packages: a communication service's software, SBOM and signature.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PackageFile = Annotated[Path, typer.Argument(help="The archive, `NAME-VERSION.lms`.", exists=True, dir_okay=False)]


@app.command()
def build(
    source: Annotated[
        Path, typer.Argument(help="The folder with outrider.toml and code.", exists=True, file_okay=False)
    ],
    key: Annotated[Path, typer.Option("--key", help="The vendor's private key.", exists=True, dir_okay=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="A folder, or a file that ends in .lms.")] = Path(),
    wheels: Annotated[
        Path | None,
        typer.Option(
            help="Take wheels from this folder, not from what is installed here.", exists=True, file_okay=False
        ),
    ] = None,
    sbom: Annotated[
        Literal["cyclonedx", "spdx"], typer.Option(help="The format of the SBOM: CycloneDX 1.6 or SPDX 2.3.")
    ] = "cyclonedx",
    as_json: AsJson = False,
) -> None:
    """Build the package of a folder: the same bytes from the same inputs.

    Left out are caches, hidden files and the folders tests/ and test/. With SOURCE_DATE_EPOCH in the environment the
    SBOM has that time, otherwise none. For several architectures give wheels of all of them with --wheels.

    Example: outrider package build examples/group-coordination -o out --key vendor.key
    """
    from outrider.package import signing
    from outrider.package.build import build as build_package

    with ending(as_json):
        private = signing.load_private(key)
        built = build_package(source, output, private, wheel_dir=wheels, timestamp_s=_epoch(), sbom_format=sbom)
        if isinstance(built, Refusal):
            refuse(built, as_json)
        lines = [
            f"{built.file}  {built.size_bytes:,} bytes",
            f"  package digest  {built.package_digest}",
            f"  SBOM digest     {built.sbom_digest}",
            f"  signed by       {built.vendor_key}",
            f"  runs on         {', '.join(built.architectures)}, Python {built.python}",
            *(f"  wheel           {w.name} {w.version}, {w.licence}" for w in built.libraries),
            *(f"  warning         {name} carries no licence text" for name in built.without_licence_text),
        ]
        emit(built, "\n".join(lines), as_json)


def _epoch() -> int | None:
    value = os.environ.get("SOURCE_DATE_EPOCH")
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or int(value) > 253_402_300_799:
        sentence = f"SOURCE_DATE_EPOCH is {value!r}, which is no time in seconds since 1970."
        raise Refused(Refusal("TIME_INVALID", sentence, remedy="Correct or unset it.", status=400))
    return int(value)


@app.command()
def inspect(package: PackageFile, as_json: AsJson = False) -> None:
    """Say what is in a package, after every check that needs nobody's trust.

    Example: outrider package inspect group-coordination-1.0.0.lms
    """
    from outrider.package.inspect import inspect as inspect_package

    with ending(as_json):
        found = inspect_package(package)
        if isinstance(found, Refusal):
            refuse(found, as_json)
        manifest = found.manifest
        lines = [
            f"{manifest.service} {manifest.version} by {manifest.vendor}  {found.size_bytes:,} bytes",
            *([f"  {manifest.description}"] if manifest.description else []),
            f"  package digest  {found.package_digest}",
            f"  SBOM digest     {found.sbom_digest}",
            f"  claims key      {', '.join(found.signed_by)} (not verified: use `outrider package verify`)",
            f"  licence         {manifest.licence}",
            f"  runs on         {', '.join(manifest.architectures)}, Python {manifest.python}",
            f"  needs           {', '.join(manifest.requires) or 'no API of the basic part'}",
            *(f"  NF service      {s.name} in the {s.nf_type}: {s.app}" for s in manifest.nf_services),
            *(f"  data category   {c} ({nf})" for nf, c in sorted(manifest.state_schema.categories.items())),
            *(f"  wheel           {w.name} {w.version}, {w.licence}" for w in found.libraries),
            f"  code            {len(found.code)} files",
            *(f"                  {digest[:16]}…  {path}" for path, digest in found.code.items()),
            f"  licence texts   {len(found.licence_texts)} files",
        ]
        emit(found, "\n".join(lines), as_json)


@app.command()
def verify(
    package: PackageFile,
    vendor: Annotated[
        list[Path], typer.Option("--vendor", help="A trusted vendor's .pub file, or a folder of them.", exists=True)
    ],
    to_run: Annotated[bool, typer.Option("--to-run/--to-sign", help="Must it run on this machine?")] = True,
    as_json: AsJson = False,
) -> None:
    """Verify a package: structure, vendor's signature, digests, manifest, wheels, SBOM, and whether it runs here.

    Example: outrider package verify group-coordination-1.0.0.lms --vendor vendor.pub
    """
    from outrider.package import vendors
    from outrider.package.verify import verify as verify_package

    with ending(as_json):
        found = verify_package(package, vendors.read_all(vendor), to_run=to_run)
        if isinstance(found, Refusal):
            refuse(found, as_json)
        value = {
            "service": found.manifest.service,
            "version": found.manifest.version,
            "vendor": found.manifest.vendor,
            "vendorKey": found.vendor_key,
            "packageDigest": found.package_digest,
            "sbomDigest": found.sbom_digest,
            "sizeBytes": found.size_bytes,
            "libraries": found.libraries,
        }
        lines = [
            f"Verified: {found.manifest.service} {found.manifest.version} by {found.manifest.vendor}",
            f"  package digest  {found.package_digest}",
            f"  SBOM digest     {found.sbom_digest}",
            f"  signed by       {found.vendor_key}",
        ]
        emit(value, "\n".join(lines), as_json)


@app.command()
def keygen(
    vendor: Annotated[str, typer.Option("--vendor", help="The vendor's name, as in outrider.toml.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The private key's file.")] = Path("vendor.key"),
    as_json: AsJson = False,
) -> None:
    """Make a vendor's key pair: a private key that stays, and a .pub file beside it for every operator.

    Example: outrider package keygen --vendor "Acme Rail" -o acme.key
    """
    from outrider.package import signing, vendors

    with ending(as_json):
        made, public = vendors.generate(output, vendor)
        key_id = signing.key_id(signing.load_private(output).public_key())
        value = {"vendor": made.name, "privateKey": str(output), "publicKey": str(public), "keyId": key_id}
        text = f"{output}  private: keep it\n{public}  public: hand it out\n  fingerprint  {key_id}"
        emit(value, text, as_json)
