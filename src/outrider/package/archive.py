"""The archive file: a zip written in exactly one way, and a reader that takes nothing else.

Archives come from peers, so the reader is strict where zip is generous: entries sorted by name, each once, one after
the other without gaps, fixed time and mode, no extra fields, no comment, stored or deflated, no zip64. Then the list
of entries is the whole truth about the file, two readers cannot see different contents, and nothing is decompressed
before all announced sizes are known to be within bounds. Any unzip reads these archives.
"""

import os
import stat
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from outrider.core import limits
from outrider.core.refusal import Refusal, Refused

_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_END_MARK, _CENTRAL_MARK, _LOCAL_MARK = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04"
_STORED, _DEFLATED = 0, 8
_CHUNK = 1 << 18


class _Fields(NamedTuple):
    """What a header says of one file; the defaults are the only values that are written and taken."""

    made: int = 3 << 8 | 20  # Unix, zip 2.0
    needed: int = 20
    flags: int = 0
    method: int = _STORED
    time: int = 0
    date: int = (1 << 5) | 1  # 1980-01-01, the zero of zip
    crc: int = 0
    packed: int = 0
    size: int = 0
    name: int = 0
    extra: int = 0
    comment: int = 0
    disk: int = 0
    internal: int = 0
    mode: int = (stat.S_IFREG | 0o644) << 16
    at: int = 0

    def central(self) -> tuple[bytes | int, ...]:
        """The directory's header."""
        return (_CENTRAL_MARK, *self)

    def local(self) -> tuple[bytes | int, ...]:
        """The header in front of the content."""
        return (_LOCAL_MARK, *self[1:11])


class Entry(NamedTuple):
    """One file of an archive; `offset` is where its (compressed) bytes begin."""

    name: str
    method: int
    crc: int
    packed: int
    size: int
    offset: int


def malformed(what: str) -> Refused:
    """The archive is not what `outrider package build` writes."""
    return Refused(
        Refusal("PACKAGE_MALFORMED", f"The package is malformed: {what}.", remedy="Get the package again.", status=400)
    )


def too_large(what: str) -> Refused:
    """A bound on the package is passed."""
    return Refused(Refusal("PACKAGE_TOO_LARGE", f"The package is too large: {what}.", status=413))


def path_refused(name: str, why: str) -> Refused:
    """An entry's name would do harm."""
    shown = name if name.isprintable() else repr(name)
    return Refused(
        Refusal("PATH_NOT_ALLOWED", f"The path {shown[:300]} is not allowed: {why}.", {"path": shown[:300]}, status=400)
    )


def check_path(name: str) -> None:
    """Refuse a path that is anything but a plain relative one in printable ASCII."""
    if len(name.encode(errors="replace")) > limits.PACKAGE_PATH_BYTES:
        raise path_refused(name, f"it is longer than {limits.PACKAGE_PATH_BYTES} bytes")
    if not name.isascii() or not name.isprintable():
        raise path_refused(name, "it has characters other than printable ASCII")
    if "\\" in name:
        raise path_refused(name, "it has a backslash")
    if name.startswith("/"):
        raise path_refused(name, "it is absolute")
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise path_refused(name, "it has an empty part, `.` or `..`")


def check_tree(names: Iterable[str]) -> None:
    """Refuse names of which one is a file and, as another's parent, a folder, or that differ in case alone.

    Two names that some file system takes for one would be two contents for one file, depending on who unpacks. Names
    are ASCII (`check_path`), so letters have no other forms than upper and lower case.
    """
    files = set(names)
    folded: dict[str, str] = {}
    for name in sorted(files):
        other = folded.setdefault(name.lower(), name)
        if other != name:
            raise path_refused(name, f"{other} differs from it in upper and lower case alone")
        parent = name
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent in files:
                raise path_refused(name, f"{parent} is a file")


def write_zip(file: BinaryIO, members: Iterable[tuple[str, bytes]], *, compress: bool) -> None:
    """Write the archive; `members` must be sorted by name. The same members give the same bytes."""
    directory, at = [], 0
    for name, data in members:
        packed, method = data, _STORED
        if compress:
            squeeze = zlib.compressobj(wbits=-15)
            smaller = squeeze.compress(data) + squeeze.flush()
            if len(smaller) < len(data) <= len(smaller) * limits.PACKAGE_RATIO:
                packed, method = smaller, _DEFLATED
        fields = _Fields(method=method, crc=zlib.crc32(data), packed=len(packed), size=len(data), name=len(name), at=at)
        file.write(_LOCAL.pack(*fields.local()) + name.encode("ascii"))
        file.write(packed)
        directory.append(_CENTRAL.pack(*fields.central()) + name.encode("ascii"))
        at += _LOCAL.size + len(name) + len(packed)
    listing = b"".join(directory)
    file.write(listing + _END.pack(_END_MARK, 0, 0, len(directory), len(directory), len(listing), at, 0))


def write_atomic(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write an archive so that `path` has all of it or what it had before."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.fchmod(fd, 0o644)
        with os.fdopen(fd, "w+b") as file:
            write_zip(file, members, compress=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


class Archive:
    """An open archive whose structure has been checked; contents are read on demand, and only within bounds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self.entries = {e.name: e for e in _read_directory(self._file, self.size)}
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def chunks(self, name: str) -> Iterator[bytes]:
        """The entry's content; refused as soon as it is not what the entry announces."""
        entry = self.entries[name]
        crc, left = 0, entry.size
        for data in self._inflate(entry) if entry.method == _DEFLATED else self._raw(entry):
            left -= len(data)
            if left < 0:
                raise malformed(f"{name} holds more than the {entry.size} bytes that it announces")
            crc = zlib.crc32(data, crc)
            yield data
        if left or crc != entry.crc:
            raise malformed(f"{name} does not fit its announced size and checksum")

    def _raw(self, entry: Entry) -> Iterator[bytes]:
        for at in range(0, entry.packed, _CHUNK):
            wanted = min(_CHUNK, entry.packed - at)
            data = os.pread(self._file.fileno(), wanted, entry.offset + at)
            if len(data) != wanted:
                raise malformed(f"{entry.name} is cut off")
            yield data

    def _inflate(self, entry: Entry) -> Iterator[bytes]:
        """Decompress in bounded steps: at most one of them goes beyond the announced size before it is noticed."""
        inflate = zlib.decompressobj(-15)
        try:
            for raw in self._raw(entry):
                if inflate.eof:
                    raise malformed(f"{entry.name} has bytes after its end")
                data = inflate.decompress(raw, _CHUNK)
                yield data
                while inflate.unconsumed_tail or len(data) == _CHUNK:
                    data = inflate.decompress(inflate.unconsumed_tail, _CHUNK)
                    yield data
        except zlib.error as error:
            raise malformed(f"{entry.name} cannot be decompressed ({error})") from None
        if not inflate.eof or inflate.unused_data:
            raise malformed(f"{entry.name} does not end where its bytes do")

    def read(self, name: str, limit_bytes: int) -> bytes:
        """The entry's content as a whole, if it is not larger than `limit_bytes`."""
        if self.entries[name].size > limit_bytes:
            raise too_large(f"{name} has {self.entries[name].size} bytes, more than {limit_bytes}")
        return b"".join(self.chunks(name))


def _read_directory(file: BinaryIO, size: int) -> list[Entry]:
    """All entries, after every check that needs no content."""
    if size > limits.PACKAGE_BYTES:
        raise too_large(f"{size} bytes, more than {limits.PACKAGE_BYTES}")
    if size < _END.size:
        raise malformed("it is no archive")
    fd = file.fileno()
    mark, disk, cd_disk, here, count, cd_size, cd_at, comment = _END.unpack(os.pread(fd, _END.size, size - _END.size))
    if mark != _END_MARK:
        raise malformed("it is no archive, or has something behind its end")
    if disk or cd_disk or here != count or comment or cd_at + cd_size != size - _END.size:
        raise malformed("its end record does not fit")
    if count > limits.PACKAGE_ENTRIES:
        raise too_large(f"{count} files, more than {limits.PACKAGE_ENTRIES}")
    if cd_size > count * (_CENTRAL.size + 4 * limits.PACKAGE_PATH_BYTES):
        raise malformed("its directory is too long")
    listed = _read_listing(os.pread(fd, cd_size, cd_at), count)
    _check_names(listed)
    _check_sizes(listed)
    entries, at = [], 0
    for name, fields in listed:
        entries.append(_check_layout(fd, name, fields, at))
        at = entries[-1].offset + fields.packed
    if at != cd_at:
        raise malformed("it has bytes that belong to no file")
    return entries


def _read_listing(data: bytes, count: int) -> list[tuple[str, _Fields]]:
    listed, at = [], 0
    for _ in range(count):
        if len(data) - at < _CENTRAL.size:
            raise malformed("its directory is cut off")
        mark, *values = _CENTRAL.unpack_from(data, at)
        fields = _Fields(*values)
        end = at + _CENTRAL.size + fields.name
        if mark != _CENTRAL_MARK or fields.extra or fields.comment or end > len(data):
            raise malformed("its directory has an entry that does not fit")
        listed.append((data[at + _CENTRAL.size : end].decode("latin-1"), fields))
        at = end
    if at != len(data):
        raise malformed("its directory has bytes that belong to no entry")
    return listed


def _check_names(listed: list[tuple[str, _Fields]]) -> None:
    """Refuse names and kinds that would do harm when unpacked."""
    names: set[str] = set()
    last = ""
    for name, fields in listed:
        if stat.S_ISLNK(fields.mode >> 16):
            raise path_refused(name, "it is a link")
        check_path(name)
        if name in names:
            raise path_refused(name, "it is there twice")
        if name < last:
            raise malformed(f"{name} is not in its place")
        names.add(name)
        last = name
    check_tree(names)


def _check_sizes(listed: list[tuple[str, _Fields]]) -> None:
    """Refuse bombs by what they announce; what they hold beyond that is noticed while reading."""
    total = sum(fields.size for _, fields in listed)
    if total > limits.PACKAGE_UNPACKED_BYTES:
        raise too_large(f"its files announce {total} bytes together, more than {limits.PACKAGE_UNPACKED_BYTES}")
    for name, fields in listed:
        if fields.size > fields.packed * limits.PACKAGE_RATIO:
            raise too_large(f"{name} announces more than {limits.PACKAGE_RATIO} times its compressed size")


def _check_layout(fd: int, name: str, fields: _Fields, at: int) -> Entry:
    """Refuse an entry whose headers are not, to the byte, what `write_zip` writes at this place."""
    wanted = _Fields(
        method=fields.method, crc=fields.crc, packed=fields.packed, size=fields.size, name=len(name), at=at
    )
    header = _LOCAL.pack(*wanted.local()) + name.encode("ascii")
    if (
        fields != wanted
        or fields.method not in (_STORED, _DEFLATED)
        or (fields.method == _STORED and fields.packed != fields.size)
        or os.pread(fd, len(header), at) != header
    ):
        raise malformed(f"{name} is not written as `outrider package build` writes it")
    return Entry(name, fields.method, fields.crc, fields.packed, fields.size, at + len(header))
