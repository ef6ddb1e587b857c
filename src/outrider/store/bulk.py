"""Reading many records, heads or log entries: one step of one statement gathers columns inside SQLite.

Python's lock is not held meanwhile. Row by row, a thread that reads beside a busy event loop would wait for that lock
at every row, and is fifty times slower.
"""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from struct import unpack

import msgspec

from outrider.core.record import Change, Head, HeadRow, LogEntry
from outrider.protocol.ownership import Ownership, Row
from outrider.store.packed import HeadColumns, RecordColumns
from outrider.store.port import PartitionSum, RowCount
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
    "FROM (SELECT * FROM head WHERE k >= ? AND k < ? ORDER BY k)"
)
_KEY_AT = "SELECT k FROM head WHERE k >= ? AND k < ? ORDER BY k LIMIT 1 OFFSET ?"
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
_ROWS_IN = (
    f"SELECT CAST(group_concat(k, '') AS BLOB), json_group_array(json_array(length(k), {ROW_COLUMNS})) "
    "FROM (SELECT * FROM row WHERE state = ? ORDER BY k)"
)
_ROW_COUNTS = (
    "SELECT json_group_array(json_array(hex(part), state, json_array(peer, mig, n))) "
    "FROM (SELECT CASE WHEN k < x'71' THEN k ELSE substr(k, 1, 2) END AS part, state, peer, mig, count(*) AS n "
    "FROM row GROUP BY 1, 2, 3, 4)"
)
_SUM = "SELECT count(*), CAST(group_concat(digest, '') AS BLOB) FROM head WHERE k >= ? AND k < ?"
_SUM_OF = (
    "WITH want (i, k) AS (VALUES {rows}) "
    "SELECT count(*), CAST(group_concat(digest, '') AS BLOB) FROM want CROSS JOIN head USING (k)"
)

_lengths = msgspec.json.Decoder(list[tuple[int, int]])
_own_rows = msgspec.json.Decoder(list[tuple[int, str, int, str | None, int, int, str | None]])
_counts = msgspec.json.Decoder(list[tuple[str, str, tuple[str | None, str | None, int]]])
_integers = msgspec.json.Decoder(list[int])
_entries = msgspec.json.Decoder(list[tuple[int, int, int]])
_delta = msgspec.msgpack.Decoder(tuple[Head, Head, list[Change]])


class Bulk:
    """Bulk reads by way of `rows`, which runs one statement."""

    def __init__(self, rows: Run) -> None:
        self._rows = rows

    def chunk(self, start: bytes, stop: bytes, limit: int) -> tuple[bytes, HeadColumns, RecordColumns]:
        """Where a chunk of whole UEs from `start` ends, its heads and its records."""
        end = self.end_of_chunk(start, stop, limit)
        beyond = self._rows(_KEY_AT, (start, end, limit))
        if beyond:  # many keys without a record
            end = beyond[0][0]
        return end, self._heads(start, end), self._records(start, end)

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

    def heads(self, start: bytes, stop: bytes) -> list[HeadRow]:
        """The heads of a range."""
        return self._heads(start, stop).rows()

    def _heads(self, start: bytes, stop: bytes) -> HeadColumns:
        keys, digests, rest = self._rows(_HEADS, (start, stop))[0]
        return HeadColumns(keys or b"", digests or b"", rest.encode())

    def _records(self, start: bytes, stop: bytes) -> RecordColumns:
        keys, bodies, rest = self._rows(_RECORDS, (start, stop))[0]
        return RecordColumns(keys or b"", bodies or b"", rest.encode())

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
        return _by_key(*self._rows(_OWN_ROWS, (start, stop))[0])

    def rows_in(self, state: Ownership) -> dict[bytes, Row]:
        """The rows that are in a state."""
        return _by_key(*self._rows(_ROWS_IN, (state.value,))[0])

    def row_counts(self) -> list[RowCount]:
        """How many rows there are of each kind."""
        ((counts,),) = self._rows(_ROW_COUNTS, ())
        return [RowCount(bytes.fromhex(part), Ownership(state), *n) for part, state, n in _counts.decode(counts)]

    def copy_count(self, start: bytes, stop: bytes) -> int:
        """How many heads there are in a range."""
        return int(self._rows("SELECT count(*) FROM head WHERE k >= ? AND k < ?", (start, stop))[0][0])

    def partition_sum(self, start: bytes, stop: bytes, without: Iterable[bytes] = ()) -> PartitionSum:
        """Count and Σ of the heads' digests."""
        ues, joined = self._rows(_SUM, (start, stop))[0]
        total = _sum(joined)
        for _, (apart, joined) in read(self._rows, _SUM_OF, [(key,) for key in set(without) if start <= key < stop]):
            ues, total = ues - apart, total - _sum(joined)
        return PartitionSum(ues, (total % (1 << 128)).to_bytes(16, "big"))


def _by_key(keys: bytes, rest: str) -> dict[bytes, Row]:
    found = {}
    at = 0
    for columns in _own_rows.decode(rest):
        found[keys[at : at + columns[0]]] = row_of(*columns[1:])
        at += columns[0]
    return found


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
