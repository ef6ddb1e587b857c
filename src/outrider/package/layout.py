"""Where things are in a package archive, and what names it: its digests.

===================== ======================================================================================
entry                 content
===================== ======================================================================================
manifest.json         `core.manifest.Manifest`, canonical JSON
code/…                the vendor's code, unpacked to the top of `site`
wheels/*.whl          every distribution that it needs, the SDK among them
sbom.cdx.json         CycloneDX 1.6 over code and wheels; or, in its place,
sbom.spdx.json        SPDX 2.3 over the same
licences/…            licence texts of all of them
digests.json          SHA-256 of every entry above, canonical JSON: its own SHA-256 is *the package digest*
signature.dsse.json   the vendor's signature: an in-toto Statement over the package digest
===================== ======================================================================================
"""

from collections.abc import Collection, Iterable
from typing import Final, Literal

import msgspec

from outrider.core.canonical import NotCanonical, canonical, decode_canonical, sha256_hex
from outrider.core.manifest import Manifest
from outrider.core.permission import Digest

SUFFIX = ".lms"
MANIFEST, SBOM, DIGESTS, SIGNATURE = "manifest.json", "sbom.cdx.json", "digests.json", "signature.dsse.json"
SPDX = "sbom.spdx.json"
SBOMS = (SBOM, SPDX)
"""Names of an SBOM: a package has one of them."""

CODE, WHEELS, LICENCES = "code/", "wheels/", "licences/"

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:outrider:package:v1"

Digests = dict[str, Digest]


def file_name(manifest: Manifest) -> str:
    """The archive's file name."""
    return f"{manifest.service}-{manifest.version}{SUFFIX}"


def package_digest(digests: bytes) -> str:
    """The digest that names a package: that of its list of digests, so it does not depend on how zip compresses."""
    return sha256_hex(digests)


def sbom_digest(sbom: bytes) -> str:
    """The digest that names an SBOM."""
    return sha256_hex(sbom)


def sbom_in(names: Collection[str]) -> str | None:
    """The entry that is the SBOM; None unless there is exactly one."""
    found = [name for name in SBOMS if name in names]
    return found[0] if len(found) == 1 else None


def stray(names: Iterable[str]) -> list[str]:
    """Entries that do not belong into a package."""
    single = (MANIFEST, *SBOMS, DIGESTS, SIGNATURE)
    return [n for n in names if n not in single and not n.startswith((CODE, LICENCES)) and not _is_wheel(n)]


def _is_wheel(name: str) -> bool:
    return name.startswith(WHEELS) and name.count("/") == 1 and name.endswith(".whl")


class Sha256(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A digest set of in-toto."""

    sha256: Digest


class Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed: the package by name and digest."""

    name: str
    digest: Sha256


class Predicate(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What the vendor says of it."""

    vendor: str
    manifest: Sha256
    sbom: Sha256


class Statement(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """An in-toto Statement v1 over a package."""

    subject: list[Subject]
    predicate: Predicate
    predicate_type: Literal["urn:outrider:package:v1"] = PREDICATE_TYPE
    type: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type", default=STATEMENT_TYPE)


def statement(manifest: Manifest, manifest_bytes: bytes, sbom: bytes, digests: bytes) -> bytes:
    """The statement that the vendor signs."""
    subject = Subject(file_name(manifest), Sha256(package_digest(digests)))
    predicate = Predicate(manifest.vendor, Sha256(sha256_hex(manifest_bytes)), Sha256(sbom_digest(sbom)))
    return canonical(Statement([subject], predicate))


def read_statement(payload: bytes) -> Statement:
    """The statement; `NotCanonical` if it is none about exactly one package."""
    found = decode_canonical(payload, Statement)
    if canonical(found) != payload:
        raise NotCanonical("it leaves out what it must say")
    if len(found.subject) != 1:
        raise NotCanonical("it is not about exactly one package")
    return found
