"""The software bill of materials as SPDX 2.3 (JSON), for those whose tools read that: the same facts as `sbom`.

Read by types of its own, strict in every field that SPDX 2.3 knows; the SPDX project's library takes seconds for a
thousand packages and a graph database as its dependency, so it validates what is written here in the tests only. Files
of the code are packages with the purpose FILE: a file element of SPDX must have a SHA-1, and packages here have none.
"""

import datetime as dt
import re
import uuid
from typing import Annotated, Any, Literal

import msgspec

import outrider
from outrider.core.canonical import canonical, decode_canonical, sha256_hex
from outrider.core.refusal import Refusal
from outrider.package.licences import is_spdx
from outrider.package.sbom import CODE, NAMESPACE, ROOT, Content, dependencies, mismatch, purl_of, root_purl

_DOCUMENT = "SPDXRef-DOCUMENT"
_FIRST_TIME = "1980-01-01T00:00:00Z"
"""SPDX demands a time; without SOURCE_DATE_EPOCH it is that of the archive's entries."""

Ref = Annotated[str, msgspec.Meta(pattern=r"\ASPDXRef-[A-Za-z0-9.-]+\Z", max_length=300)]
Timestamp = Annotated[str, msgspec.Meta(pattern=r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")]


class _Strict(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    pass


class _Checksum(_Strict, frozen=True, rename="camel", forbid_unknown_fields=True):
    algorithm: str
    checksum_value: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16,256}\Z")]
    comment: str = ""


class _ExternalRef(_Strict, frozen=True, rename="camel", forbid_unknown_fields=True):
    reference_category: Literal["SECURITY", "PACKAGE-MANAGER", "PACKAGE_MANAGER", "PERSISTENT-ID", "OTHER"]
    reference_type: str
    reference_locator: str
    comment: str = ""


class _Package(_Strict, frozen=True, rename="camel", forbid_unknown_fields=True):
    spdx_id: Ref = msgspec.field(name="SPDXID")
    name: Annotated[str, msgspec.Meta(min_length=1)]
    download_location: str
    version_info: str = ""
    package_file_name: str = ""
    supplier: str = "NOASSERTION"
    originator: str = ""
    files_analyzed: Literal[False] = False
    checksums: list[_Checksum] = []
    license_concluded: str = "NOASSERTION"
    license_declared: str = "NOASSERTION"
    license_comments: str = ""
    license_info_from_files: list[str] = []
    copyright_text: str = "NOASSERTION"
    external_refs: list[_ExternalRef] = []
    primary_package_purpose: str = ""
    homepage: str = ""
    source_info: str = ""
    summary: str = ""
    description: str = ""
    comment: str = ""
    attribution_texts: list[str] = []
    annotations: list[dict[str, str]] = []
    release_date: str = ""
    built_date: str = ""
    valid_until_date: str = ""


class _Relationship(_Strict, frozen=True, rename="camel", forbid_unknown_fields=True):
    spdx_element_id: Ref
    related_spdx_element: Ref
    relationship_type: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z_]+\Z")]
    comment: str = ""


class _Extracted(_Strict, frozen=True, rename="camel", forbid_unknown_fields=True):
    license_id: Annotated[str, msgspec.Meta(pattern=r"\ALicenseRef-[A-Za-z0-9.-]+\Z")]
    extracted_text: str
    name: str = ""
    comment: str = ""
    see_alsos: list[str] = []
    cross_refs: list[dict[str, Any]] = []


class _Creation(_Strict, frozen=True, rename="camel", forbid_unknown_fields=True):
    created: Timestamp
    creators: Annotated[list[str], msgspec.Meta(min_length=1)]
    license_list_version: str = ""
    comment: str = ""


class _Document(_Strict, frozen=True, rename="camel", forbid_unknown_fields=True):
    """SPDX 2.3, as far as a package's SBOM may use it: no files, snippets or other documents."""

    spdx_version: Literal["SPDX-2.3"]
    spdx_id: Literal["SPDXRef-DOCUMENT"] = msgspec.field(name="SPDXID")
    data_license: Literal["CC0-1.0"]
    name: str
    document_namespace: Annotated[str, msgspec.Meta(pattern=r"\A[a-z]+:[^\s#]+\Z")]
    creation_info: _Creation
    packages: list[_Package]
    relationships: list[_Relationship]
    has_extracted_licensing_infos: list[_Extracted] = []
    comment: str = ""
    annotations: list[dict[str, str]] = []
    document_describes: list[Ref] = []


def build(content: Content, timestamp_s: int | None) -> bytes:
    """The SBOM as canonical JSON."""
    manifest, names = content.manifest, _Names()
    created = _FIRST_TIME
    if timestamp_s is not None:
        created = dt.datetime.fromtimestamp(timestamp_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    vendor = f"Organization: {manifest.vendor}"
    own = {"versionInfo": manifest.version, "supplier": vendor, "licenseDeclared": names.licence(manifest.licence)}
    packages = [
        _package(ROOT, manifest.service, "APPLICATION", purl=root_purl(manifest), **own),
        _package(CODE, f"{manifest.service}-code", "APPLICATION", **own),
        *(_package(path, path, "FILE", sha256=digest) for path, digest in sorted(content.code.items())),
        *(
            _package(
                part.path,
                part.wheel.name,
                "LIBRARY",
                sha256=part.sha256,
                purl=purl_of(part.wheel),
                versionInfo=str(part.wheel.version),
                supplier=f"Person: {part.wheel.author}" if part.wheel.author else "NOASSERTION",
                licenseDeclared=names.licence(part.wheel.licence),
            )
            for part in content.wheels
        ),
    ]
    edges = [("DESCRIBES", _DOCUMENT, _ref(ROOT)), ("CONTAINS", _ref(ROOT), _ref(CODE))]
    edges += [("CONTAINS", _ref(CODE), _ref(path)) for path in sorted(content.code)]
    edges += [
        ("DEPENDS_ON", _ref(by), _ref(on))
        for by, needs in sorted(dependencies(content).items())
        for on in sorted(needs)
    ]
    document: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3",
        "SPDXID": _DOCUMENT,
        "dataLicense": "CC0-1.0",
        "name": f"{manifest.service}-{manifest.version}",
        "creationInfo": {"created": created, "creators": [vendor, f"Tool: outrider-{outrider.__version__}"]},
        "packages": packages,
        "relationships": [
            {"spdxElementId": by, "relatedSpdxElement": on, "relationshipType": kind} for kind, by, on in edges
        ],
    }
    if names.extracted:
        document["hasExtractedLicensingInfos"] = [
            {"licenseId": name, "extractedText": text, "name": text} for text, name in sorted(names.extracted.items())
        ]
    document["documentNamespace"] = f"urn:uuid:{uuid.uuid5(NAMESPACE, sha256_hex(canonical(document)))}"
    return canonical(document)


def _package(ref: str, name: str, purpose: str, *, sha256: str = "", purl: str = "", **more: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "SPDXID": _ref(ref),
        "name": name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "primaryPackagePurpose": purpose,
        "copyrightText": "NOASSERTION",
        "licenseConcluded": "NOASSERTION",
        **more,
    }
    if sha256:
        made["checksums"] = [{"algorithm": "SHA256", "checksumValue": sha256}]
    if purl:
        made["externalRefs"] = [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}
        ]
    return made


def _ref(name: str) -> str:
    """A path as an SPDX identifier; the digest keeps apart what looks alike once its signs are replaced."""
    if name in (ROOT, CODE):
        return f"SPDXRef-{name}"
    return f"SPDXRef-{re.sub('[^A-Za-z0-9.]+', '-', name)[:200]}-{sha256_hex(name.encode())[:12]}"


class _Names:
    """Licences as SPDX writes them; a name that is no identifier becomes a LicenseRef with that name as its text."""

    def __init__(self) -> None:
        self.extracted: dict[str, str] = {}

    def licence(self, licence: str | None) -> str:
        if not licence or licence == "NOASSERTION":
            return "NOASSERTION"
        if is_spdx(licence):
            return licence
        return self.extracted.setdefault(licence, f"LicenseRef-{sha256_hex(licence.encode())[:16]}")


def check(data: bytes, content: Content) -> Refusal | None:
    """None if the SBOM is SPDX 2.3 and says exactly what is in the package."""
    try:
        stated = decode_canonical(data, _Document)
    except ValueError as error:
        return Refusal("SBOM_INVALID", f"The SBOM is not valid SPDX 2.3 JSON: {str(error)[:300]}.", status=400)
    expected = msgspec.json.decode(build(content, None), type=_Document)
    for what, told, true in (
        ("component", _packages(stated), _packages(expected)),
        ("relationship", _edges(stated), _edges(expected)),
        ("licence", _licences(stated), _licences(expected)),
    ):
        different = sorted(r for r in told.keys() | true.keys() if told.get(r) != true.get(r))
        if different:
            return mismatch(different[0], what, different[0] not in told, different[0] not in true)
    if stated.creation_info.creators[0] != expected.creation_info.creators[0] or stated.name != expected.name:
        return mismatch(stated.name, "vendor of", missing=False, extra=False)
    return None


def _packages(document: _Document) -> dict[str, object]:
    found: dict[str, object] = {}
    for package in document.packages:
        decided = (
            package.name,
            package.version_info,
            package.supplier,
            package.license_declared,
            package.primary_package_purpose,
            sorted((c.algorithm, c.checksum_value) for c in package.checksums),
            sorted(r.reference_locator for r in package.external_refs if r.reference_type == "purl"),
        )
        found[package.spdx_id] = decided if package.spdx_id not in found else "twice"
    return found


def _edges(document: _Document) -> dict[str, object]:
    edges = [f"{r.spdx_element_id} {r.relationship_type} {r.related_spdx_element}" for r in document.relationships]
    edges += [f"{_DOCUMENT} DESCRIBES {ref}" for ref in document.document_describes]
    return dict.fromkeys(edges, True)


def _licences(document: _Document) -> dict[str, object]:
    return {e.license_id: e.extracted_text for e in document.has_extracted_licensing_infos}
