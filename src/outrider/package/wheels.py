"""Wheels: what one says about itself, which machines it runs on, and what of it is unpacked.

A wheel is a zip that somebody else wrote, so it is read with the standard library, behind checks of its own: sizes,
names, kinds of entries.
"""

import base64
import csv
import hashlib
import io
import platform
import re
import stat
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, sys_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from outrider.core import limits
from outrider.core.refusal import Refusal, Refused
from outrider.package import licences
from outrider.package.archive import check_path, check_tree, path_refused, too_large

_CHUNK = 1 << 18
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    OverflowError,
    EOFError,
    ValueError,
    RuntimeError,
    OSError,
)
"""What `zipfile` raises on bytes that are no sound zip."""

_INACTIVE = "Development Status :: 7 - Inactive"

_LINUX = re.compile(r"\A(?:linux|manylinux(?:\d+|_\d+_\d+)|musllinux_\d+_\d+)_(\w+)\Z")


class Machine(NamedTuple):
    """Where software is to run: `x86_64`, `3.11`, and the wheel tags that work there, best first."""

    architecture: str
    python: str
    tags: tuple[Tag, ...]

    @classmethod
    def here(cls) -> "Machine":
        """This interpreter on this machine."""
        return cls(platform.machine(), python_here(), tuple(sys_tags()))


def python_here() -> str:
    """`major.minor` of this interpreter."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True)
class Wheel:
    """What one wheel says about itself; `members` are the paths that `site_members` unpacks, each with its entry."""

    file_name: str
    name: str
    version: Version
    tags: frozenset[Tag]
    requires: tuple[Requirement, ...]
    licence: str | None
    licence_files: tuple[str, ...]
    author: str | None
    inactive: bool
    """It classifies itself as not developed any more."""
    members: dict[str, str]
    unpacked_bytes: int

    def fits(self, machine: Machine) -> int | None:
        """How well it fits the machine, 0 best; None if it does not."""
        ranks = [machine.tags.index(tag) for tag in self.tags if tag in machine.tags]
        return min(ranks, default=None)

    def serves(self, architecture: str, python: str) -> bool:
        """Whether it runs under some Linux of this architecture with this Python."""
        return any(_serves(tag, architecture, python) for tag in self.tags)

    @property
    def architectures(self) -> frozenset[str]:
        """The Linux architectures that its tags name; none for a pure one."""
        return frozenset(m[1] for tag in self.tags if (m := _LINUX.match(tag.platform)))


def _serves(tag: Tag, architecture: str, python: str) -> bool:
    linux = _LINUX.match(tag.platform)
    if tag.platform != "any" and (linux is None or linux[1] != architecture):
        return False
    major, minor = map(int, python.split("."))
    interpreter = f"cp{major}{minor}"
    fitting = set(cpython_tags((major, minor), abis=[interpreter], platforms=[tag.platform]))
    fitting |= set(compatible_tags((major, minor), interpreter=interpreter, platforms=[tag.platform]))
    return tag in fitting


def top_module(path: str) -> str | None:
    """The top-level module that a file in `site` makes importable, if any."""
    first, _, rest = path.partition("/")
    if rest:
        return first if first.isidentifier() else None
    stem, _, suffix = first.partition(".")
    return stem if suffix.rpartition(".")[2] in ("py", "so") and stem.isidentifier() else None


def wheel_refused(file_name: str, what: str) -> Refused:
    """A wheel that cannot be used."""
    sentence = f"The wheel {file_name[:200]} cannot be used: {what}."
    return Refused(Refusal("WHEEL_INVALID", sentence, {"wheel": file_name[:200]}, status=400))


@contextmanager
def opened(file_name: str, file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """The wheel as a zip whose entries have been checked; what `zipfile` raises becomes a refusal."""
    try:
        with zipfile.ZipFile(file) as archive:
            _check_entries(file_name, archive.infolist())
            yield archive
    except _ZIP_ERRORS as error:
        raise wheel_refused(file_name, f"it is damaged ({error})") from None


def _check_entries(file_name: str, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > limits.PACKAGE_SITE_FILES:
        raise too_large(f"{file_name} has more than {limits.PACKAGE_SITE_FILES} files")
    if sum(e.file_size for e in entries) > limits.PACKAGE_UNPACKED_BYTES:
        raise too_large(f"the files of {file_name} have more than {limits.PACKAGE_UNPACKED_BYTES} bytes together")
    names: set[str] = set()
    for entry in entries:
        # `zipfile` cuts names at a zero byte; the name as written is what counts.
        name = entry.orig_filename.removesuffix("/") if entry.is_dir() else entry.orig_filename
        check_path(name)
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise path_refused(name, f"in {file_name} it is a link")
        if name in names:
            raise path_refused(name, f"in {file_name} it is there twice")
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise wheel_refused(file_name, f"{name} is encrypted, or compressed in another way than deflate")
        names.add(name)
    check_tree(e.filename for e in entries if not e.is_dir())


def read_wheel(file_name: str, file: BinaryIO) -> Wheel:
    """Read what a wheel says about itself; raises `Refused`."""
    from packaging.metadata import parse_email  # here: it brings the list of all licences

    try:
        name, version, _, tags = parse_wheel_filename(file_name)
    except InvalidWheelFilename as error:
        raise wheel_refused(file_name, f"its name is not that of a wheel ({error})") from None
    with opened(file_name, file) as archive:
        entries = [e for e in archive.infolist() if not e.is_dir()]
        info = _dist_info(file_name, [e.filename for e in entries])
        raw, _ = parse_email(_small(file_name, archive, f"{info}/METADATA"))
        if canonicalize_name(raw.get("name", "")) != name or Version(raw.get("version", "0")) != version:
            raise wheel_refused(file_name, "its metadata is that of another distribution")
        try:
            requires = tuple(Requirement(r) for r in raw.get("requires_dist", []))
        except InvalidRequirement as error:
            raise wheel_refused(file_name, f"it requires what cannot be read ({error})") from None
        members: dict[str, str] = {}
        for entry in entries:
            path = _site_path(entry.filename)
            if path is None:
                continue
            if path in members:
                raise path_refused(path, f"{file_name} brings it twice")
            members[path] = entry.filename
        check_tree(members)
        return Wheel(
            file_name=file_name,
            name=name,
            version=version,
            tags=tags,
            requires=requires,
            licence=licences.declared(raw),
            licence_files=tuple(sorted(e.filename for e in entries if licences.is_text(e.filename, info))),
            author=licences.author(raw),
            inactive=_INACTIVE in raw.get("classifiers", []),
            members=members,
            unpacked_bytes=sum(e.file_size for e in entries),
        )


def _dist_info(file_name: str, names: list[str]) -> str:
    found = {n.partition("/")[0] for n in names if n.partition("/")[0].endswith(".dist-info")}
    if len(found) != 1 or f"{min(found)}/METADATA" not in names:
        raise wheel_refused(file_name, "it does not have exactly one .dist-info folder with METADATA")
    return found.pop()


def _site_path(name: str) -> str | None:
    """Where an entry is unpacked below `site`; scripts, headers and data files are of no use to a worker."""
    first, _, rest = name.partition("/")
    if not first.endswith(".data"):
        return name
    scheme, _, path = rest.partition("/")
    return path if scheme in ("purelib", "platlib") and path else None


def _small(file_name: str, archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry that is parsed in memory."""
    if archive.getinfo(name).file_size > limits.PACKAGE_META_BYTES:
        raise too_large(f"{name} in {file_name} has more than {limits.PACKAGE_META_BYTES} bytes")
    return archive.read(name)


def read_members(wheel: Wheel, file: BinaryIO, paths: Iterable[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Contents of a wheel's members by their site path, each to be read before the next."""
    with opened(wheel.file_name, file) as archive:
        for path in paths:
            yield path, _chunks(archive, wheel.members[path])


def read_texts(wheel: Wheel, file: BinaryIO) -> dict[str, bytes]:
    """The wheel's licence texts."""
    with opened(wheel.file_name, file) as archive:
        return {name: _small(wheel.file_name, archive, name) for name in wheel.licence_files}


def _chunks(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    # `zipfile` never yields more than the entry announces, and checks the checksum at the end.
    with archive.open(name) as source:
        while data := source.read(_CHUNK):
            yield data


def check_record(file_name: str, file: BinaryIO) -> None:
    """Refuse a wheel whose files are not, both ways, those that its own RECORD lists."""
    with opened(file_name, file) as archive:
        names = [e.filename for e in archive.infolist() if not e.is_dir()]
        record = f"{_dist_info(file_name, names)}/RECORD"
        if record not in names:
            raise wheel_refused(file_name, "it has no RECORD")
        rows = csv.reader(io.StringIO(_small(file_name, archive, record).decode()))
        listed = {row[0]: row[1] for row in rows if len(row) == 3}
        unsigned = {record, f"{record}.jws", f"{record}.p7s"}
        different = sorted((set(names) ^ listed.keys()) - unsigned)
        if different:
            raise wheel_refused(file_name, f"its RECORD does not agree about {different[0]}")
        for name in set(names) - unsigned:
            digest = hashlib.sha256()
            for data in _chunks(archive, name):
                digest.update(data)
            if listed[name] != record_hash(digest.digest()):
                raise wheel_refused(file_name, f"{name} is not what its RECORD says")


def record_hash(digest: bytes) -> str:
    """A SHA-256 as RECORD writes it."""
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
