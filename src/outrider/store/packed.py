"""A chunk as it travels: the columns that SQLite gathered, compressed; never a million records in Python at a source.

Keys and bodies stand one after the other, and a list of lengths and of the small columns says where each begins. The
receiver takes it for hostile: lengths that do not add up to what is there are an error, never a wrong record.
"""

from typing import NamedTuple

import msgspec

from outrider.core.compress import compress, decompress
from outrider.core.record import HeadRow, LogEntry, Record

_DIGEST_BYTES = 16

_HeadRest = tuple[int, int, int]
"""Length of the key, epoch, n."""
_RecordRest = tuple[int, int, str, str, int, int, int | None]
"""Length of the key, kind, NF service, id, length of the body, version, due time."""

_heads = msgspec.json.Decoder(list[_HeadRest])
_records = msgspec.json.Decoder(list[_RecordRest])
_new = tuple.__new__  # `Record(…)` without a call in Python, which takes as long as all the rest


class HeadColumns(NamedTuple):
    """Heads in key order: keys and digests one after the other, and JSON of `_HeadRest`."""

    keys: bytes
    digests: bytes
    rest: bytes

    def rows(self) -> list[HeadRow]:
        """The heads; `ValueError` if the lengths do not add up."""
        found = []
        at = digest_at = 0
        for length, epoch, n in _heads.decode(self.rest):
            found.append((self.keys[at : at + length], epoch, n, self.digests[digest_at : digest_at + _DIGEST_BYTES]))
            at, digest_at = at + length, digest_at + _DIGEST_BYTES
            if length < 0:
                raise ValueError("a key of negative length")
        if (at, digest_at) != (len(self.keys), len(self.digests)):
            raise ValueError("the heads' lengths do not add up")
        return found


class RecordColumns(NamedTuple):
    """Records in key order: keys and bodies one after the other, and JSON of `_RecordRest`."""

    keys: bytes
    bodies: bytes
    rest: bytes

    def rows(self) -> list[Record]:
        """The records; `ValueError` if the lengths do not add up."""
        found = []
        keys, bodies = self.keys, self.bodies
        at = body_at = 0
        for length, kind, nf, name, size, version, due_ms in _records.decode(self.rest):
            if length < 0 or size < 0:
                raise ValueError("a negative length")
            row = (keys[at : at + length], kind, nf, name, bodies[body_at : body_at + size], version, due_ms)
            found.append(_new(Record, row))
            at, body_at = at + length, body_at + size
        if (at, body_at) != (len(keys), len(bodies)):
            raise ValueError("the records' lengths do not add up")
        return found


_chunk = msgspec.msgpack.Decoder(tuple[HeadColumns, RecordColumns])
_log = msgspec.msgpack.Decoder(list[LogEntry])
_encode = msgspec.msgpack.Encoder().encode


def pack_chunk(heads: HeadColumns, records: RecordColumns) -> bytes:
    """A chunk's content for the wire."""
    return compress(_encode((heads, records)))


def unpack_chunk(content: bytes) -> tuple[list[HeadRow], list[Record]]:
    """Heads and records of a chunk; `ValueError` for anything else."""
    try:
        heads, records = _chunk.decode(decompress(content))
        return heads.rows(), records.rows()
    except msgspec.DecodeError as error:
        raise ValueError(f"not a chunk: {error}") from None


def pack_log(entries: list[LogEntry]) -> bytes:
    """Log entries for the wire."""
    return compress(_encode(entries))


def unpack_log(content: bytes) -> list[LogEntry]:
    """Log entries; `ValueError` for anything else."""
    try:
        return _log.decode(decompress(content))
    except msgspec.DecodeError as error:
        raise ValueError(f"not log entries: {error}") from None
