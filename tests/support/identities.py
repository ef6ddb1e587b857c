"""Looks for identities of UEs in bytes, in every form in which somebody may have written them down."""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import apsw
import zstandard

_ZSTD = re.compile(re.escape(b"\x28\xb5\x2f\xfd"))
"""Magic number of a zstd frame, wherever it begins: as a whole body, or as a field of a msgpack message."""

_SQLITE = b"SQLite format 3\x00"
_MSIN_DIGITS = 10


class Piece(NamedTuple):
    """Bytes, and where they were: a message between networks, or a file."""

    where: str
    content: bytes


class Sighting(NamedTuple):
    """An identity that was found."""

    identity: str
    form: str
    where: str


def forms(identity: str) -> dict[str, bytes]:
    """What to look for: the identity without its prefix, and an IMSI without its network, is in all longer texts."""
    kind, _, value = identity.partition("-")
    found: dict[str, bytes] = {}
    for name, core in [(kind, value), *([("msin", value[-_MSIN_DIGITS:])] if kind == "imsi" else [])]:
        found |= {f"{name} {form}": bytes_ for form, bytes_ in _text_forms(core).items()}
        if core.isdigit():
            found |= {f"{name} {form}": bytes_ for form, bytes_ in _number_forms(core).items()}
    for name, text in ((kind, value), (f"{kind} with prefix", identity)):
        for algorithm in ("md5", "sha1", "sha256"):
            digest = hashlib.new(algorithm, text.encode()).digest()
            found |= {f"{algorithm} of {name}": digest, f"{algorithm} of {name}, hex": digest.hex().encode()}
    return found


def _text_forms(text: str) -> dict[str, bytes]:
    raw = text.encode()
    in_uri = quote(text, safe="").encode()
    found = {
        "text": raw,
        **({"in a URI": in_uri} if in_uri != raw else {}),
        "utf-16-le": text.encode("utf-16-le"),
        "utf-16-be": text.encode("utf-16-be"),
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
    }
    for shift in range(3):  # where the text begins within a group of three bytes decides what base64 makes of it
        whole = base64.b64encode(bytes(shift) + raw)
        certain = whole[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
        found |= {f"base64 at {shift}": certain, f"base64url at {shift}": certain.translate(_URL)}
    return found


_URL = bytes.maketrans(b"+/", b"-_")


def _number_forms(digits: str) -> dict[str, bytes]:
    """Digits as integers, and as TBCD (TS 29.002): two in an octet, the first in the lower half, `f` fills up."""
    number = int(digits)
    size = -(-number.bit_length() // 8)
    even = digits + "f" * (len(digits) % 2)
    return {
        "big-endian": number.to_bytes(size, "big"),
        "little-endian": number.to_bytes(size, "little"),
        "TBCD": bytes.fromhex("".join(b + a for a, b in zip(even[::2], even[1::2], strict=True))),
        "BCD": bytes.fromhex(even),
        "BCD, right-aligned": bytes.fromhex(digits.zfill(len(even))),
    }


def opened(content: bytes) -> Iterator[bytes]:
    """The content, and what is compressed anywhere in it, and in that."""
    yield content
    for frame in _ZSTD.finditer(content):
        try:
            inner = zstandard.ZstdDecompressor().decompressobj().decompress(content[frame.start() :])
        except zstandard.ZstdError:
            continue
        yield from opened(inner)


def files(directory: Path) -> Iterator[Piece]:
    """Every file below a folder, and every row of those that are databases: a long value lies in pieces in the file."""
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        yield Piece(str(path), content)
        if content.startswith(_SQLITE):
            yield Piece(f"{path}, rows", _rows(path))


def _rows(path: Path) -> bytes:
    # A staging file is locked by the process that loads it, and has no write-ahead log.
    immutable = "" if Path(f"{path}-wal").exists() else "&immutable=1"
    db = apsw.Connection(f"file:{path}?mode=ro{immutable}", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        tables = [str(name) for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        values = [value for table in tables for row in db.execute(f'SELECT * FROM "{table}"') for value in row]
    finally:
        db.close()
    return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in values)


def search(identities: Iterable[str], pieces: Iterable[Piece]) -> list[Sighting]:
    """Where which identity is."""
    wanted = [(identity, form, needle) for identity in identities for form, needle in forms(identity).items()]
    return [
        Sighting(identity, form, piece.where)
        for piece in pieces
        for content in opened(piece.content)
        for identity, form, needle in wanted
        if needle in content
    ]
