"""What an operator keeps about vulnerabilities, offline: advisories (OSV), known exploited ones (KEV), VEX statements.

==================== ==================================================================================
below the folder     content
==================== ==================================================================================
`osv/`               OSV advisories: `*.json`, or the `*.zip` that osv.dev exports per ecosystem
`vex/`               VEX statements: OpenVEX or CycloneDX, `*.json`
`kev.json`           CISA's catalogue of known exploited vulnerabilities
==================== ==================================================================================

A source that cannot be read is a refusal (`ADVISORIES_UNREADABLE`), never an empty one: a broken file must not make
software look harmless. Only a folder that was never made holds nothing.
"""

import functools
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from outrider.core import limits
from outrider.core.refusal import Refusal, Refused
from outrider.core.supply import SEVERITIES, Advisory, Affected, Component, Event, Finding, Severity, VexStatement
from outrider.decide import vulnerable

T = TypeVar("T")


class _OsvPackage(msgspec.Struct):
    ecosystem: str = ""
    name: str = ""


class _OsvRange(msgspec.Struct):
    type: str
    events: list[Event] = []


class _OsvScore(msgspec.Struct):
    type: str
    score: str


class _OsvAffected(msgspec.Struct):
    package: _OsvPackage | None = None
    ranges: list[_OsvRange] = []
    versions: list[str] = []
    severity: list[_OsvScore] = []
    database_specific: dict[str, Any] = {}


class _Osv(msgspec.Struct):
    id: str
    aliases: list[str] = []
    summary: str = ""
    withdrawn: str | None = None
    severity: list[_OsvScore] = []
    affected: list[_OsvAffected] = []
    database_specific: dict[str, Any] = {}


class _OsvAbout(msgspec.Struct):
    package: _OsvPackage | None = None


class _OsvNames(msgspec.Struct):
    """The part of an advisory that says what it is about: most are about something else."""

    affected: list[_OsvAbout] = []


class _Kev(msgspec.Struct):
    class _Entry(msgspec.Struct):
        cve: str = msgspec.field(name="cveID")

    vulnerabilities: list[_Entry]


Key = tuple[str, str]
"""Ecosystem and name."""


class _At(NamedTuple):
    """Where an advisory is: a file, or a member of a zip."""

    file: Path
    member: str = ""


class Sources:
    """The folder, read when it is asked about, and again when it has changed.

    The index (which advisory is about which distribution) stays in memory: the export of PyPI has tens of thousands.
    Of the advisories themselves only those about the asked distributions are read whole. Not for several threads.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[object, dict[Key, list[_At]]] = {}
        """Index of each file, by its name, time and size: a file that has not changed is not read again."""

    @property
    def stamp(self) -> object:
        """What changes when a file does; cheap enough to ask each time."""
        files = [*_files(self._folder / "osv", ".json", ".zip"), *_files(self._folder / "vex", ".json")]
        return _stamp([*files, *(path for path in (self._folder / "kev.json",) if path.exists())])

    def find(self, components: Iterable[Component], product: str) -> list[Finding]:
        """Every known vulnerability in the components; raises `Refused` if a source cannot be read."""
        known = tuple(components)
        wanted = {key for c in known if (key := vulnerable.place(c)) is not None}
        return vulnerable.find(known, self.about(wanted), self.vex(), self.known_exploited(), product=product)

    def about(self, wanted: Iterable[Key]) -> list[Advisory]:
        """The advisories about some distributions."""
        files = _files(self._folder / "osv", ".json", ".zip")
        self._read = {stamp: self._read.get(stamp) or _index(file) for file in files for stamp in (_stamp([file]),)}
        keys = tuple(wanted)
        places = dict.fromkeys(at for index in self._read.values() for key in keys for at in index.get(key, ()))
        by_file: dict[Path, list[str]] = {}
        for at in places:
            by_file.setdefault(at.file, []).append(at.member)
        found = (
            _decode(file, data, read_osv, member)
            for file, members in by_file.items()
            for member, data in _contents(file, members)
        )
        return [advisory for advisory in found if advisory is not None]

    def vex(self) -> list[VexStatement]:
        """Every VEX statement."""
        return [
            statement
            for path in _files(self._folder / "vex", ".json")
            for statement in _decode(path, _read(path), lambda data, path=path: read_vex(data, path.name))  # type: ignore[misc]
        ]

    def known_exploited(self) -> frozenset[str]:
        """Vulnerabilities that are known to be used in attacks."""
        path = self._folder / "kev.json"
        if not path.exists():
            return frozenset()
        kev = _decode(path, _read(path), lambda data: msgspec.json.decode(data, type=_Kev))
        return frozenset(entry.cve for entry in kev.vulnerabilities)


def _files(folder: Path, *suffixes: str) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in suffixes)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(folder, error.strerror or str(error)) from None


def _stamp(files: Iterable[Path]) -> object:
    return tuple((str(path), (stat := path.stat()).st_mtime_ns, stat.st_size) for path in files)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > limits.ADVISORY_BYTES:
            raise _unreadable(path, f"it has more than {limits.ADVISORY_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The advisories of an export."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".json"):
                    yield entry.filename, _member(archive, entry, path)
    except (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise _unreadable(path, str(error)) from None


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> bytes:
    if entry.file_size > limits.ADVISORY_BYTES:
        raise _unreadable(path, f"{entry.filename} has more than {limits.ADVISORY_BYTES} bytes")
    return archive.read(entry)


def _contents(file: Path, members: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Some advisories of an export, or the one that a file is."""
    if file.suffix != ".zip":
        yield "", _read(file)
        return
    try:
        with zipfile.ZipFile(file) as archive:
            for member in members:
                yield member, _member(archive, archive.getinfo(member), file)
    except (zipfile.BadZipFile, zlib.error, OSError, KeyError, NotImplementedError, RuntimeError, EOFError) as error:
        raise _unreadable(file, str(error)) from None


def _index(path: Path) -> dict[Key, list[_At]]:
    """Which advisories of a file are about which distribution."""
    index: dict[Key, list[_At]] = {}
    parts = _members(path) if path.suffix == ".zip" else [("", _read(path))]
    for member, data in parts:
        read = _decode(path, data, lambda d: msgspec.json.decode(d, type=_OsvNames), member)
        for affected in read.affected:
            if affected.package is not None and affected.package.name:
                ecosystem = affected.package.ecosystem.partition(":")[0]
                key = ecosystem, vulnerable.named(ecosystem, affected.package.name)
                places = index.setdefault(key, [])
                if _At(path, member) not in places[-1:]:
                    places.append(_At(path, member))
    return index


def _decode(path: Path, data: bytes, read: Callable[[bytes], T], member: str = "") -> T:
    try:
        return read(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, f"{member}: {error}" if member else str(error)) from None


def _unreadable(path: Path, what: str) -> Refused:
    return Refused(
        Refusal(
            "ADVISORIES_UNREADABLE",
            f"What is known of vulnerabilities cannot be read: {path.name}: {what[:300]}.",
            {"file": str(path)},
            "Get the file again, or take it away.",
            status=500,
        )
    )


# ----------------------------------------------------------------------------------------------------- OSV


def read_osv(data: bytes) -> Advisory | None:
    """An advisory as osv.dev exports it; None if it was withdrawn. `DecodeError` if it is none."""
    osv = msgspec.json.decode(data, type=_Osv)
    if osv.withdrawn is not None:
        return None
    scores = [*osv.severity, *(s for affected in osv.affected for s in affected.severity)]
    score = max((s for s in map(_score, scores) if s is not None), default=None)
    return Advisory(
        id=osv.id,
        aliases=tuple(osv.aliases),
        summary=osv.summary[:300],
        severity=_band(score) if score is not None else _stated(osv.database_specific.get("severity")),
        score=score,
        affected=tuple(
            Affected(
                ecosystem=affected.package.ecosystem,
                name=affected.package.name,
                versions=tuple(affected.versions),
                ranges=tuple(tuple(r.events) for r in affected.ranges if r.type in ("ECOSYSTEM", "SEMVER")),
            )
            for affected in osv.affected
            if affected.package is not None and affected.package.name
        ),
        unmaintained=any(
            specific.get("informational") == "unmaintained"
            for specific in (osv.database_specific, *(affected.database_specific for affected in osv.affected))
        ),
    )


def _score(stated: _OsvScore) -> float | None:
    """The base score of a CVSS vector; None if it is none, and then the advisory counts as if it had no severity."""
    return _base_score(stated.type, stated.score)


@functools.lru_cache(maxsize=16_384)
def _base_score(kind: str, vector: str) -> float | None:
    from cvss import CVSS2, CVSS3, CVSS4
    from cvss.exceptions import CVSSError

    reader = {"CVSS_V2": CVSS2, "CVSS_V3": CVSS3, "CVSS_V4": CVSS4}.get(kind)
    try:
        return None if reader is None else float(reader(vector).base_score)
    except (CVSSError, ValueError, ArithmeticError, LookupError):
        return None


def _band(score: float) -> Severity:
    """CVSS's qualitative scale."""
    return SEVERITIES[(score > 0) + (score >= 4) + (score >= 7) + (score >= 9)]


def _stated(text: object) -> Severity | None:
    """A severity in words, as GitHub's advisories have it; a word that is not known says nothing."""
    words: dict[object, Severity] = {
        "low": "low", "moderate": "medium", "medium": "medium", "high": "high", "critical": "critical",
    }  # fmt: skip
    return words.get(text.lower()) if isinstance(text, str) else None


# ----------------------------------------------------------------------------------------------------- VEX


class _OpenVexProduct(msgspec.Struct):
    id: str = msgspec.field(name="@id", default="")
    identifiers: dict[str, str] = {}
    subcomponents: list["_OpenVexProduct"] = []

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(n for n in (self.id, self.identifiers.get("purl", "")) if n))


class _OpenVexVulnerability(msgspec.Struct):
    name: str = ""
    id: str = msgspec.field(name="@id", default="")
    aliases: list[str] = []


class _OpenVexStatement(msgspec.Struct):
    vulnerability: _OpenVexVulnerability | str
    status: str
    products: list[_OpenVexProduct] = []
    justification: str = ""


class _OpenVex(msgspec.Struct):
    context: str = msgspec.field(name="@context")
    statements: list[_OpenVexStatement]


class _CdxAnalysis(msgspec.Struct):
    state: str = ""
    justification: str = ""


class _CdxRef(msgspec.Struct):
    ref: str


class _CdxVulnerability(msgspec.Struct):
    id: str
    references: list[dict[str, Any]] = []
    analysis: _CdxAnalysis | None = None
    affects: list[_CdxRef] = []


class _CdxVex(msgspec.Struct):
    bom_format: str = msgspec.field(name="bomFormat")
    vulnerabilities: list[_CdxVulnerability] = []


_OPENVEX_STATES = {
    "not_affected": "not_affected",
    "affected": "affected",
    "fixed": "fixed",
    "under_investigation": "under_investigation",
}
_CDX_STATES = {
    "exploitable": "affected",
    "in_triage": "under_investigation",
    "false_positive": "not_affected",
    "not_affected": "not_affected",
    "resolved": "fixed",
    "resolved_with_pedigree": "fixed",
}


def read_vex(data: bytes, origin: str) -> list[VexStatement]:
    """The statements of an OpenVEX document, or of a CycloneDX one; `ValueError` if it is neither."""
    head = msgspec.json.decode(data, type=dict[str, Any])
    if head.get("bomFormat") == "CycloneDX":
        return list(_cyclonedx(msgspec.json.decode(data, type=_CdxVex), origin))
    if "openvex" in str(head.get("@context", "")):
        return list(_openvex(msgspec.json.decode(data, type=_OpenVex), origin))
    raise ValueError("it is neither OpenVEX nor CycloneDX")


def _openvex(document: _OpenVex, origin: str) -> Iterator[VexStatement]:
    for statement in document.statements:
        v = statement.vulnerability
        names = (v,) if isinstance(v, str) else (v.name, v.id, *v.aliases)
        for product in statement.products:
            yield VexStatement(
                vulnerabilities=tuple(n for n in names if n),
                status=_state(_OPENVEX_STATES, statement.status),
                justification=statement.justification,
                products=product.names,
                components=tuple(name for part in product.subcomponents for name in part.names),
                origin=origin,
            )


def _cyclonedx(document: _CdxVex, origin: str) -> Iterator[VexStatement]:
    for vulnerability in document.vulnerabilities:
        if vulnerability.analysis is None or not vulnerability.analysis.state:
            continue
        more = [str(r["id"]) for r in vulnerability.references if "id" in r]
        justification = vulnerability.analysis.justification
        if vulnerability.analysis.state == "false_positive":
            justification = justification or "false_positive"
        yield VexStatement(
            vulnerabilities=(vulnerability.id, *more),
            status=_state(_CDX_STATES, vulnerability.analysis.state),
            justification=justification,
            # A BOM-Link names its component behind the `#`.
            products=tuple(
                a.ref.rpartition("#")[2] if a.ref.startswith("urn:cdx:") else a.ref for a in vulnerability.affects
            ),
            origin=origin,
        )


def _state(known: dict[str, Any], state: str) -> Any:
    if state not in known:
        raise ValueError(f"{state[:40]!r} is no status of a VEX statement")
    return known[state]
