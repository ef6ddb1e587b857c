"""Looking into a package: what it is and holds, with every check that needs nobody's trust."""

from pathlib import Path
from typing import NamedTuple

import msgspec

from outrider.core import limits
from outrider.core.manifest import Manifest
from outrider.core.refusal import Refusal, Refused
from outrider.core.supply import Component, SoftwareFacts
from outrider.package import layout, sbom, signing
from outrider.package.archive import Archive
from outrider.package.facts import components
from outrider.package.verify import (
    check_content,
    check_digests,
    check_structure,
    read_manifest,
    read_wheels,
    sbom_entry,
)


class Description(msgspec.Struct, frozen=True, rename="camel"):
    """What is in a package. Nobody vouches for it yet: `signed_by` are the key ids that its signature claims."""

    manifest: Manifest
    package_digest: str
    sbom_digest: str
    signed_by: list[str]
    size_bytes: int
    code: dict[str, str]
    """SHA-256 of each file of the code, by path."""
    libraries: list[sbom.Listed]
    licence_texts: list[str]


def inspect(path: Path) -> Description | Refusal:
    """Describe a package whose structure, digests, manifest and SBOM fit each other; otherwise say what does not."""
    try:
        with Archive(path) as archive:
            return _inspect(archive)
    except Refused as refused:
        return refused.refusal


class Materials(NamedTuple):
    """A package's bill of materials, and the components that it lists; nobody vouches for them yet."""

    entry: str
    document: bytes
    digest: str
    facts: SoftwareFacts

    @property
    def components(self) -> tuple[Component, ...]:
        """What is in the package."""
        return self.facts.components


def materials(path: Path) -> Materials | Refusal:
    """The SBOM of a package, after it was compared with the bytes; otherwise what does not fit."""
    try:
        with Archive(path) as archive:
            check_structure(archive)
            raw = archive.read(layout.DIGESTS, limits.PACKAGE_META_BYTES)
            digests = check_digests(archive, raw)
            manifest, entry = read_manifest(archive), sbom_entry(archive)
            packed = check_content(archive, manifest, read_wheels(archive), digests)
            facts = SoftwareFacts(
                service=manifest.service,
                version=manifest.version,
                package_digest=layout.package_digest(raw),
                sbom_digest=digests[entry],
                vendor=manifest.vendor,
                export_class=manifest.export_class,
                components=components(manifest, packed),
            )
            return Materials(entry, archive.read(entry, limits.PACKAGE_META_BYTES), digests[entry], facts)
    except Refused as refused:
        return refused.refusal


def _inspect(archive: Archive) -> Description:
    check_structure(archive)
    raw = archive.read(layout.DIGESTS, limits.PACKAGE_META_BYTES)
    digests = check_digests(archive, raw)
    manifest = read_manifest(archive)
    packed = check_content(archive, manifest, read_wheels(archive), digests)
    opened = signing.open_envelope(archive.read(layout.SIGNATURE, limits.ENVELOPE_BYTES), signing.IN_TOTO_TYPE)
    if isinstance(opened, Refusal):
        raise Refused(opened)
    return Description(
        manifest=manifest,
        package_digest=layout.package_digest(raw),
        sbom_digest=digests[sbom_entry(archive)],
        signed_by=list(opened.key_ids),
        size_bytes=archive.size,
        code={p.removeprefix(layout.CODE): d for p, d in digests.items() if p.startswith(layout.CODE)},
        libraries=sbom.listed(packed),
        licence_texts=[p.removeprefix(layout.LICENCES) for p in digests if p.startswith(layout.LICENCES)],
    )
