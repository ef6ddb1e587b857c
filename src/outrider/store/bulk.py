"""Reading many records, heads or log entries: one step of one statement gathers columns inside SQLite.

Python's lock is not held meanwhile. Row by row, a thread that reads beside a busy event loop would wait for that lock
at every row, and is fifty times slower.
"""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from struct import unpack

import msgspec

from outrider.core.record import Change, Head, LogEntry, Record
from outrider.protocol.ownership import Row
from outrider.store.content import HeadRow
from outrider.store.port import PartitionSum
from outrider.store.schema import LARGE_READ_BYTES, ROW_COLUMNS, row_of
from outrider.store.wide import Run, read

_EXTENT = (
    "SELECT count(*), sum(length(body)), min(k), max(k) "
    "FROM (SELECT k, body FROM rec WHERE k >= ? AND k < ? ORDER BY k, kind, nf, id LIMIT ?)"
)
_LENGTHS = (
    "SELECT CAST(group_concat(k, '') AS BLOB), json_group_array(json_array(length(k), length(body))) "
    "FROM (SELECT k, body FROM rec WHERE k >= ? AND k < ? ORDER BY k, kind, nf, id LIMIT ?)"
)
_RECORDS = (
    "SELECT CAST(group_concat(k, '') AS BLOB), CAST(group_concat(body, '') AS BLOB), "
    "json_group_array(json_array(length(k), kind, nf, id, length(body), version, due_ms)) "
    "FROM (SELECT * FROM rec WHERE k >= ? AND k < ? ORDER BY k, kind, nf, id)"
)
_HEADS = (
    "SELECT CAST(group_concat(k, '') AS BLOB), CAST(group_concat(digest, '') AS BLOB), "
    "json_group_array(json_array(length(k), epoch, n)) "
    "FROM (SELECT * FROM head WHERE k >= ? AND k < ? ORDER BY k LIMIT ?)"
)
_LOG_LENGTHS = (
    "SELECT json_group_array(lsn), json_group_array(length(entry)) "
    "FROM (SELECT lsn, entry FROM log WHERE lsn > ? ORDER BY lsn LIMIT ?)"
)
_LOG = (
    "SELECT CAST(group_concat(k, '') AS BLOB), CAST(group_concat(entry, '') AS BLOB), "
    "json_group_array(json_array(lsn, length(k), length(entry))) "
    "FROM (SELECT * FROM log WHERE lsn > ? AND lsn <= ? ORDER BY lsn)"
)

_OWN_ROWS = (
    f"SELECT CAST(group_concat(k, '') AS BLOB), json_group_array(json_array(length(k), {ROW_COLUMNS})) "
    "FROM (SELECT * FROM row WHERE k >= ? AND k < ? ORDER BY k)"
)
_SUM = "SELECT count(*), CAST(group_concat(digest, '') AS BLOB) FROM head WHERE k >= ? AND k < ?"
_SUM_OF = (
    "WITH want (i, k) AS (VALUES {rows}) "
    "SELECT count(*), CAST(group_concat(digest, '') AS BLOB) FROM want CROSS JOIN head USING (k)"
)

_lengths = msgspec.json.Decoder(list[tuple[int, int]])
_records = msgspec.json.Decoder(list[tuple[int, int, str, str, int, int, int | None]])
_heads = msgspec.json.Decoder(list[tuple[int, int, int]])
_own_rows = msgspec.json.Decoder(list[tuple[int, str, int, str | None, int, int, str | None]])
_integers = msgspec.json.Decoder(list[int])
_entries = msgspec.json.Decoder(list[tuple[int, int, int]])
_delta = msgspec.msgpack.Decoder(tuple[Head, Head, list[Change]])
_new = tuple.__new__  # `Record(…)` without a call in Python, which takes as long as all the rest


class Bulk:
    """Bulk reads by way of `rows`, which runs one statement."""

    def __init__(self, rows: Run) -> None:
        self._rows = rows

    def chunk(self, start: bytes, stop: bytes, limit: int) -> tuple[bytes, list[HeadRow], list[Record]]:
        """Where a chunk of whole UEs from `start` ends, its heads and its records."""
        end = self.end_of_chunk(start, stop, limit)
        heads = self.heads(start, end, limit + 1)
        if len(heads) > limit:  # many keys without a record
            end = heads.pop()[0]
        return end, heads, self.records(start, end)

    def end_of_chunk(self, start: bytes, stop: bytes, limit: int) -> bytes:
        """Where about `limit` records or `LARGE_READ_BYTES` end, after a whole UE."""
        first: bytes
        last: bytes
        count, size, first, last = self._rows(_EXTENT, (start, stop, limit + 1))[0]
        if (size or 0) > LARGE_READ_BYTES:
            keys, lengths = self._rows(_LENGTHS, (start, stop, limit + 1))[0]
            last = _key_at_limit(keys, _lengths.decode(lengths), limit)
        elif count <= limit:
            return stop
        return last if last != first else min(first + b"\0", stop)

    def heads(self, start: bytes, stop: bytes, limit: int = -1) -> list[HeadRow]:
        """The heads of a range, or the first so many."""
        keys, digests, rest = self._rows(_HEADS, (start, stop, limit))[0]
        found = []
        at = digest_at = 0
        for length, epoch, n in _heads.decode(rest):
            found.append((keys[at : at + length], epoch, n, digests[digest_at : digest_at + 16]))
            at, digest_at = at + length, digest_at + 16
        return found

    def records(self, start: bytes, stop: bytes) -> list[Record]:
        """The records of a range."""
        keys, bodies, rest = self._rows(_RECORDS, (start, stop))[0]
        found = []
        at = body_at = 0
        for length, kind, nf, name, size, version, due_ms in _records.decode(rest):
            row = (keys[at : at + length], kind, nf, name, bodies[body_at : body_at + size], version, due_ms)
            found.append(_new(Record, row))
            at, body_at = at + length, body_at + size
        return found

    def log(self, after_lsn: int, limit: int) -> list[LogEntry]:
        """The entries after an lsn, at most `limit` or about `LARGE_READ_BYTES`."""
        lsns, lengths = self._rows(_LOG_LENGTHS, (after_lsn, limit))[0]
        totals = list(accumulate(_integers.decode(lengths)))
        if not totals:
            return []
        last = _integers.decode(lsns)[max(bisect_left(totals, LARGE_READ_BYTES), 1) - 1]
        keys, entries, rest = self._rows(_LOG, (after_lsn, last))[0]
        found = []
        at = entry_at = 0
        for lsn, length, size in _entries.decode(rest):
            delta = _delta.decode(entries[entry_at : entry_at + size])
            found.append(LogEntry(lsn, keys[at : at + length], *delta))
            at, entry_at = at + length, entry_at + size
        return found

    def own_rows(self, start: bytes, stop: bytes) -> dict[bytes, Row]:
        """The rows of their own of the keys in a range."""
        keys, rest = self._rows(_OWN_ROWS, (start, stop))[0]
        found = {}
        at = 0
        for columns in _own_rows.decode(rest):
            found[keys[at : at + columns[0]]] = row_of(*columns[1:])
            at += columns[0]
        return found

    def partition_sum(self, start: bytes, stop: bytes, without: Iterable[bytes] = ()) -> PartitionSum:
        """Count and Σ of the heads' digests."""
        ues, joined = self._rows(_SUM, (start, stop))[0]
        total = _sum(joined)
        for _, (apart, joined) in read(self._rows, _SUM_OF, [(key,) for key in set(without) if start <= key < stop]):
            ues, total = ues - apart, total - _sum(joined)
        return PartitionSum(ues, (total % (1 << 128)).to_bytes(16, "big"))


def _sum(digests: bytes | None) -> int:
    words: tuple[int, ...] = unpack(f">{len(digests or b'') // 8}Q", digests or b"")
    return (sum(words[::2]) << 64) + sum(words[1::2])


def _key_at_limit(keys: bytes, lengths: list[tuple[int, int]], limit: int) -> bytes:
    """The key of the first record beyond `limit` records or `LARGE_READ_BYTES`."""
    ends = accumulate(length for length, _ in lengths)
    sizes = accumulate(size for _, size in lengths)
    for i, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        if i == limit or size > LARGE_READ_BYTES:
            return keys[end - lengths[i][0] : end]
    raise AssertionError("called for a range within both bounds")
