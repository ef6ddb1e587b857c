"""Verifying a package that came from somebody else: every check, in the order in which each makes the next one safe.

Size and structure of the archive; the vendor's signature over the list of digests; every file against that list, both
ways; the manifest; the wheels and whether they run on this machine; the SBOM against all of it. The first failure is
the answer. Nothing is decompressed before the signature is known to be a trusted vendor's, but for that signature,
the list and their bounds.
"""

import datetime as dt
import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from outrider.core import limits
from outrider.core.canonical import NotCanonical, decode_canonical
from outrider.core.manifest import Manifest, problems
from outrider.core.refusal import Refusal, Refused
from outrider.core.supply import Component, SoftwareFacts
from outrider.package import facts, layout, sbom, spdx
from outrider.package import trust as trusted
from outrider.package.archive import Archive, malformed, too_large
from outrider.package.closure import (
    ANY,
    find_among,
    for_machine,
    over_architectures,
    requirements_of,
    resolve,
    site_plan,
)
from outrider.package.trust import Revoked, Signer
from outrider.package.vendors import TrustedVendor
from outrider.package.wheels import Machine, Wheel, read_wheel

NOTHING_REVOKED = Revoked()
_IN_MEMORY = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Verified:
    """A package that passed every check, as it was when it did: whoever uses the file again compares `digests`."""

    archive: Path
    manifest: Manifest
    package_digest: str
    sbom_digest: str
    vendor_key: str
    certificates: tuple[str, ...]
    """SHA-256 of each certificate that vouches for the key, its own first."""
    size_bytes: int
    digests: dict[str, str]
    wheels: tuple[Wheel, ...]
    """All wheels of the package."""
    chosen: tuple[Wheel, ...]
    """Those that `machine` needs."""
    libraries: tuple[sbom.Listed, ...]
    components: tuple[Component, ...]
    """What supply chain decisions are about."""
    machine: Machine | None
    """Where it can run; None if that was not asked, and then it cannot be installed."""

    @property
    def facts(self) -> SoftwareFacts:
        """What supply chain decisions need of it."""
        return SoftwareFacts(
            service=self.manifest.service,
            version=self.manifest.version,
            package_digest=self.package_digest,
            sbom_digest=self.sbom_digest,
            vendor=self.manifest.vendor,
            signer=(self.vendor_key, *self.certificates),
            export_class=self.manifest.export_class,
            components=self.components,
        )


def verify(
    archive: Path,
    trusted_vendors: Iterable[TrustedVendor],
    machine: Machine | None = None,
    *,
    to_run: bool = True,
    revoked: Revoked = NOTHING_REVOKED,
    at: dt.datetime | None = None,
) -> Verified | Refusal:
    """Check a package as described above; `machine` is where it is to run, this one by default.

    Without `to_run` it need not run on any machine here: an operator also signs for software that others host. `at` is
    when keys and certificates must be valid, now by default: nobody proves when a signature was made, so it is when it
    is looked at. Blocking and CPU-bound for some hundredths of a second: call it in a thread. `OSError` if
    the file cannot be read.
    """
    try:
        with Archive(archive) as opened:
            trust = _Trust(list(trusted_vendors), revoked, at or dt.datetime.now(dt.UTC))
            return _verify(opened, trust, (machine or Machine.here()) if to_run else None)
    except Refused as refused:
        return refused.refusal


class _Trust(NamedTuple):
    vendors: Sequence[TrustedVendor]
    revoked: Revoked
    at: dt.datetime


def _verify(archive: Archive, trust: _Trust, machine: Machine | None) -> Verified:
    check_structure(archive)
    raw_digests = archive.read(layout.DIGESTS, limits.PACKAGE_META_BYTES)
    statement, signer = _check_signature(archive, trust, raw_digests)
    digests = check_digests(archive, raw_digests)
    sbom_digest = digests[sbom_entry(archive)]
    manifest = read_manifest(archive)
    wheels = read_wheels(archive)
    if (
        statement.subject[0].name != layout.file_name(manifest)
        or statement.predicate.manifest.sha256 != (digests[layout.MANIFEST])
    ):
        raise Refused(_invalid("it is about another manifest"))
    if statement.predicate.sbom.sha256 != sbom_digest:
        raise Refused(_invalid("it is about another SBOM"))
    vendors = signer.vendors
    if manifest.vendor not in vendors or statement.predicate.vendor != manifest.vendor:
        raise Refused(
            Refusal(
                "VENDOR_MISMATCH",
                f"The package names {manifest.vendor} as its vendor, but the key is of {', '.join(vendors)}.",
                {"vendor": manifest.vendor, "signedBy": ", ".join(vendors)},
                "Ask both vendors.",
            )
        )
    taken_back = trust.revoked.by("package", layout.package_digest(raw_digests), [manifest.vendor])
    if taken_back is not None:
        raise Refused(taken_back)
    packed = check_content(archive, manifest, wheels, digests)
    chosen = choose(manifest, wheels, machine) if machine is not None else []
    _check_site(archive, chosen)
    return Verified(
        archive=archive.path,
        manifest=manifest,
        package_digest=layout.package_digest(raw_digests),
        sbom_digest=sbom_digest,
        vendor_key=signer.key_id,
        certificates=signer.certificates,
        size_bytes=archive.size,
        digests=digests,
        wheels=tuple(wheels),
        chosen=tuple(chosen),
        libraries=tuple(sbom.listed(packed)),
        components=facts.components(manifest, packed),
        machine=machine,
    )


def _check_site(archive: Archive, chosen: Sequence[Wheel]) -> None:
    """Refuse a package whose installed form has conflicts or is too large."""
    code = [e for e in archive.entries.values() if e.name.startswith(layout.CODE)]
    site_plan([e.name.removeprefix(layout.CODE) for e in code], chosen)
    if sum(e.size for e in code) + sum(w.unpacked_bytes for w in chosen) > limits.PACKAGE_UNPACKED_BYTES:
        raise too_large(f"it unpacks to more than {limits.PACKAGE_UNPACKED_BYTES} bytes")


def check_structure(archive: Archive) -> None:
    """Refuse an archive that has other entries than a package has, or lacks one."""
    for name in layout.stray(archive.entries):
        raise malformed(f"{name} does not belong into a package")
    for name in (layout.MANIFEST, layout.DIGESTS, layout.SIGNATURE):
        if name not in archive.entries:
            raise malformed(f"it has no {name}")
    sbom_entry(archive)


def sbom_entry(archive: Archive) -> str:
    """The name of the SBOM: a package has one, in one of two formats."""
    name = layout.sbom_in(archive.entries)
    if name is None:
        both = all(n in archive.entries for n in layout.SBOMS)
        raise malformed(f"it has both {layout.SBOM} and {layout.SPDX}" if both else f"it has no {layout.SBOM}")
    return name


def _check_signature(archive: Archive, trust: _Trust, raw_digests: bytes) -> tuple[layout.Statement, Signer]:
    """What the vendor signed, and who that is; raises `Refused`."""
    envelope = archive.read(layout.SIGNATURE, limits.ENVELOPE_BYTES)
    checked = trusted.check(envelope, trust.vendors, trust.revoked, trust.at)
    if isinstance(checked, Refusal):
        if checked.code == "ENVELOPE_MALFORMED":
            checked = Refusal("SIGNATURE_INVALID", checked.sentence, checked.facts, checked.remedy)
        raise Refused(checked)
    payload, signer = checked
    try:
        statement = layout.read_statement(payload)
    except NotCanonical as error:
        raise Refused(_invalid(f"what it signs cannot be read ({error})")) from None
    if statement.subject[0].digest.sha256 != layout.package_digest(raw_digests):
        raise Refused(_invalid("it is over another list of digests"))
    return statement, signer


def _invalid(what: str) -> Refusal:
    return Refusal(
        "SIGNATURE_INVALID",
        f"The vendor's signature does not fit the package: {what}.",
        remedy="Get the package again from its vendor.",
    )


def check_digests(archive: Archive, raw_digests: bytes) -> dict[str, str]:
    """Refuse an archive in which a file is missing, extra or different from the list of digests."""
    try:
        digests = decode_canonical(raw_digests, layout.Digests)
    except NotCanonical as error:
        raise malformed(f"{layout.DIGESTS}: {error}") from None
    listed = archive.entries.keys() - {layout.DIGESTS, layout.SIGNATURE}
    for name in sorted(listed ^ digests.keys()):
        what = "is in the package but not in its list of digests" if name in listed else "is missing from the package"
        raise Refused(_mismatch(name, f"{name} {what}"))
    for name in sorted(listed):
        digest = hashlib.sha256()
        for data in archive.chunks(name):
            digest.update(data)
        if digest.hexdigest() != digests[name]:
            raise Refused(_mismatch(name, f"{name} was changed"))
    return digests


def _mismatch(path: str, what: str) -> Refusal:
    return Refusal("DIGEST_MISMATCH", f"{what}.", {"path": path}, "Get the package again from its vendor.")


def read_manifest(archive: Archive) -> Manifest:
    """The package's manifest, complete and consistent; raises `Refused`."""
    try:
        manifest = decode_canonical(archive.read(layout.MANIFEST, limits.PACKAGE_META_BYTES), Manifest)
        found = problems(manifest)
        if not manifest.architectures or not manifest.python:
            found.append("it does not say for which machines and which Python the wheels are")
        if found:
            raise NotCanonical("; ".join(found))
    except NotCanonical as error:
        sentence = f"The manifest cannot be used: {error}."
        raise Refused(Refusal("MANIFEST_INVALID", sentence, remedy="Ask the vendor.", status=400)) from None
    return manifest


def read_wheels(archive: Archive) -> list[Wheel]:
    """What each wheel of the package says about itself; raises `Refused`."""
    found = []
    for name in archive.entries:
        if name.startswith(layout.WHEELS):
            with wheel_file(archive, name) as file:
                found.append(read_wheel(name.removeprefix(layout.WHEELS), file))
    return found


def wheel_file(archive: Archive, name: str) -> BinaryIO:
    """A wheel out of the archive as a file of its own, in memory if small."""
    file = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115 - the caller closes it
    try:
        for data in archive.chunks(name):
            file.write(data)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def check_content(
    archive: Archive, manifest: Manifest, wheels: Sequence[Wheel], digests: dict[str, str]
) -> list[sbom.PackedWheel]:
    """Refuse a package that lacks a wheel it needs, carries one that it does not, or whose SBOM tells otherwise."""
    needed = over_architectures(
        requirements_of(manifest.requirements),
        find_among(wheels),
        manifest.architectures,
        manifest.python,
    )
    for wheel in wheels:
        if wheel.file_name not in needed.wheels:
            raise malformed(f"nothing in it needs {wheel.file_name}")
    packed = sbom.packed_wheels(needed, {n: digests[f"{layout.WHEELS}{n}"] for n in needed.wheels})
    code = {path: digest for path, digest in digests.items() if path.startswith(layout.CODE)}
    content = sbom.Content(manifest, code, packed, sbom.wheel_paths(needed.needs[""]))
    name = sbom_entry(archive)
    check = spdx.check if name == layout.SPDX else sbom.check
    problem = check(archive.read(name, limits.PACKAGE_META_BYTES), content)
    if problem is not None:
        raise Refused(problem)
    return packed


def choose(manifest: Manifest, wheels: Sequence[Wheel], machine: Machine) -> list[Wheel]:
    """The wheels that this machine needs; raises `Refused` if the package is not for it."""
    if machine.architecture not in manifest.architectures and manifest.architectures != [ANY]:
        raise Refused(
            Refusal(
                "ARCHITECTURE_ABSENT",
                f"The package is for {', '.join(manifest.architectures)}, this machine is {machine.architecture}.",
                {"machine": machine.architecture, "package": ", ".join(manifest.architectures)},
                f"Ask the vendor for a package that has wheels for {machine.architecture}.",
            )
        )
    if machine.python != manifest.python:
        raise Refused(
            Refusal(
                "PYTHON_ABSENT",
                f"The package is for Python {manifest.python}, workers here run {machine.python}.",
                {"machine": machine.python, "package": manifest.python},
                f"Ask the vendor for a package for Python {machine.python}.",
            )
        )
    closure = resolve(
        requirements_of(manifest.requirements),
        find_among(wheels),
        for_machine(machine),
        machine.architecture,
        machine.python,
    )
    return [closure.wheels[name] for name in sorted(closure.wheels)]
