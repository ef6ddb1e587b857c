"""`outrider package`: build a service's package, look into one, verify one, make a vendor's keys."""

import datetime as dt
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from outrider.cli.outcome import REFUSED, emit, ending, refuse
from outrider.core.refusal import Refusal, Refused

app = typer.Typer(no_args_is_help=True, help="Packages: a communication service's software, SBOM and signature.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Chain = Annotated[
    Path | None,
    typer.Option(help="Certificates of the key (PEM), its own first: the key counts by the vendor's CA.", exists=True),
]
Day = Annotated[dt.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day on which the key counts.")]
LastDay = Annotated[dt.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day on which the key counts.")]
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
    chain: Chain = None,
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
        built = build_package(
            source,
            output,
            private,
            wheel_dir=wheels,
            timestamp_s=_epoch(),
            sbom_format=sbom,
            chain=signing.load_chain(chain) if chain is not None else (),
        )
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
    not_before: Day = None,
    not_after: LastDay = None,
    as_json: AsJson = False,
) -> None:
    """Make a vendor's key pair: a private key that stays, and a .pub file beside it for every operator.

    With --not-after an operator that trusts the file stops by itself: make the next key before, hand it out, and sign
    with both (`package sign`) until everybody has it.

    Example: outrider package keygen --vendor "Acme Rail" -o acme.key
    """
    from outrider.package import signing, vendors

    with ending(as_json):
        days = (day.date() if day is not None else None for day in (not_before, not_after))
        made, public = vendors.generate(output, vendor, *days)
        key_id = signing.key_id(signing.load_private(output).public_key())
        value = {"vendor": made.name, "privateKey": str(output), "publicKey": str(public), "keyId": key_id}
        text = f"{output}  private: keep it\n{public}  public: hand it out\n  fingerprint  {key_id}"
        emit(value, text, as_json)


@app.command()
def sign(
    package: PackageFile,
    key: Annotated[Path, typer.Option("--key", help="The vendor's private key.", exists=True, dir_okay=False)],
    chain: Chain = None,
    as_json: AsJson = False,
) -> None:
    """Add a signature to a package, as a vendor does that replaces its key. Its digest, and so permissions, stay.

    Example: outrider package sign group-coordination-1.0.0.lms --key new.key
    """
    from outrider.package import signing
    from outrider.package.build import sign_again

    with ending(as_json):
        private = signing.load_private(key)
        digest = sign_again(package, private, signing.load_chain(chain) if chain is not None else ())
        if isinstance(digest, Refusal):
            refuse(digest, as_json)
        key_id = signing.key_id(private.public_key())
        emit({"packageDigest": digest, "signedBy": key_id}, f"{package}: {digest} is signed by {key_id} too", as_json)


@app.command()
def sbom(package: PackageFile, as_json: AsJson = False) -> None:
    """Show a package's bill of materials, after it was compared with the bytes; with --json the document itself.

    Example: outrider package sbom group-coordination-1.0.0.lms
    """
    from outrider.package.inspect import materials

    with ending(as_json):
        found = materials(package)
        if isinstance(found, Refusal):
            refuse(found, as_json)
        if as_json:
            typer.echo(found.document.decode())
            return
        lines = [f"{found.entry}  SHA-256 {found.digest}"]
        for part in found.components:
            marks = [mark for mark, is_so in (("compiled", part.compiled), ("inactive", part.inactive)) if is_so]
            lines.append(
                f"  {part.name} {part.version}  {part.licence or 'no licence declared'}  {' '.join(marks)}".rstrip()
            )
            lines.append(f"    {part.purl or '(published nowhere)'}  {part.supplier or 'supplier unknown'}")
        emit(found.components, "\n".join(lines), as_json)


@app.command()
def vulnerabilities(
    package: PackageFile,
    directory: Annotated[
        Path,
        typer.Option("--dir", help="The network's folder: its advisories and rules.", exists=True, file_okay=False),
    ],
    as_json: AsJson = False,
) -> None:
    """Look for known vulnerabilities in a package, offline: DIR/supply has advisories, VEX and exploited ones.

    Ends with 1 if this network's rules refuse the package, for these or any other reason.

    Example: outrider package vulnerabilities group-coordination-1.0.0.lms --dir a
    """
    from outrider.decide.supply import justified
    from outrider.network.supply import of_folder
    from outrider.package.inspect import materials

    with ending(as_json):
        found = materials(package)
        if isinstance(found, Refusal):
            refuse(found, as_json)
        _, supply = of_folder(directory)
        findings = supply.findings(found.facts)
        against = supply.judge(found.facts)
        lines = []
        for f in findings:
            names = ", ".join((f.advisory, *f.aliases))
            score = f" {f.score}" if f.score is not None else ""
            lines.append(f"{f.component} {f.version}: {names}, {f.severity or 'severity unknown'}{score}")
            lines.append(f"    {f.summary or 'no summary'}; fixed in {', '.join(f.fixed_in) or 'no version yet'}")
            if f.known_exploited:
                lines.append("    known to be used in attacks")
            if f.vex is not None:
                counts = "counts" if justified(supply.rules, f) else "does not count"
                lines.append(
                    f"    {f.vex_origin} says {f.vex} ({f.justification or 'no justification'}), which {counts} here"
                )
        lines.append(f"known vulnerabilities: {len(findings)}; reasons against the package here: {len(against)}")
        lines += [f"  {reason.code}: {reason.sentence}" for reason in against]
        emit({"findings": findings, "refusals": against}, "\n".join(lines), as_json)
        if against:
            raise typer.Exit(REFUSED)


@app.command()
def revoke(
    file: Annotated[Path, typer.Argument(help="The revocation list: the next one is made from it.", metavar="LIST")],
    key: Annotated[Path, typer.Option("--key", help="The issuer's private key.", exists=True, dir_okay=False)],
    issuer: Annotated[str, typer.Option(help="The vendor's name, or the operator's network.")],
    kind: Annotated[Literal["key", "certificate", "package"], typer.Option(help="What is revoked.")],
    name: Annotated[str, typer.Option("--id", help="Fingerprint of the key or certificate, or the package digest.")],
    reason: Annotated[str, typer.Option(help="A sentence for those who are refused.")] = "",
    chain: Chain = None,
    as_json: AsJson = False,
) -> None:
    """Take back one's word about software: write the next revocation list, to be handed to every operator.

    Example: outrider package revoke acme.revoked --key new.key --issuer "Acme Rail" --kind key --id 4be0… --reason lost
    """
    import time

    import msgspec

    from outrider.core.canonical import decode_canonical
    from outrider.core.revoked import Entry, RevocationList
    from outrider.network.files import write_atomic
    from outrider.package import revocations, signing

    with ending(as_json):
        now_ms = int(time.time() * 1000)
        # Before the first list there is an empty one, which nobody signs.
        before = RevocationList(issuer=issuer, sequence=0, issued_at_ms=now_ms)
        if file.exists():
            read = revocations.show(file.read_bytes())
            if isinstance(read, Refusal):
                refuse(read, as_json)
            if read.issuer != issuer:
                sentence = f"{file} is the list of {read.issuer}, not of {issuer}."
                refuse(Refusal("ISSUER_MISMATCH", sentence, {"issuer": read.issuer}, status=400), as_json)
            before = read
        try:
            entry = Entry(kind=kind, id=name, revoked_at_ms=now_ms, reason=reason)
            found = before.with_entry(entry, now_ms)
            decode_canonical(found.encode(), RevocationList)  # what is signed must be readable by others
        except (ValueError, msgspec.ValidationError) as error:
            sentence = f"This cannot be revoked: {error}."
            raise Refused(Refusal("REVOCATIONS_MALFORMED", sentence, status=400)) from None
        certificates = signing.load_chain(chain) if chain is not None else ()
        envelope = revocations.sign(found, signing.load_private(key), certificates)
        write_atomic(file, envelope)
        text = f"{file}: list {found.sequence} of {issuer}, entries: {len(found.entries)}"
        emit({"file": str(file), "list": found}, text, as_json)
