"""Reading many records, heads or log entries: one step of one statement gathers columns inside SQLite.

Python's lock is not held meanwhile. Row by row, a thread that reads beside a busy event loop would wait for that lock
at every row, and is fifty times slower.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from struct import unpack
from typing import Any

import msgspec

from outrider.core.record import Change, Head, LogEntry, Record, sum_digests
from outrider.store.content import HeadRow
from outrider.store.port import PartitionSum
from outrider.store.schema import LARGE_READ_BYTES

_EXTENT = (
    "SELECT count(*), sum(length(body)), min(k), max(k) "
    "FROM (SELECT k, body FROM rec WHERE k >= ? AND k < ? ORDER BY k, kind, nf, id LIMIT ?)"
)
_LENGTHS = (
    "SELECT CAST(group_concat(k, '') AS BLOB), json_group_array(length(k)), json_group_array(length(body)) "
    "FROM (SELECT k, body FROM rec WHERE k >= ? AND k < ? ORDER BY k, kind, nf, id LIMIT ?)"
)
_RECORDS = (
    "SELECT CAST(group_concat(k, '') AS BLOB), json_group_array(length(k)), json_group_array(kind), "
    "json_group_array(nf), json_group_array(id), CAST(group_concat(body, '') AS BLOB), "
    "json_group_array(length(body)), json_group_array(version), json_group_array(due_ms) "
    "FROM (SELECT * FROM rec WHERE k >= ? AND k < ? ORDER BY k, kind, nf, id)"
)
_HEADS = (
    "SELECT CAST(group_concat(k, '') AS BLOB), json_group_array(length(k)), json_group_array(epoch), "
    "json_group_array(n), CAST(group_concat(digest, '') AS BLOB) "
    "FROM (SELECT * FROM head WHERE k >= ? AND k < ? ORDER BY k LIMIT ?)"
)
_LOG_LENGTHS = (
    "SELECT json_group_array(lsn), json_group_array(length(entry)) "
    "FROM (SELECT lsn, entry FROM log WHERE lsn > ? ORDER BY lsn LIMIT ?)"
)
_LOG = (
    "SELECT json_group_array(lsn), CAST(group_concat(k, '') AS BLOB), json_group_array(length(k)), "
    "CAST(group_concat(entry, '') AS BLOB), json_group_array(length(entry)) "
    "FROM (SELECT * FROM log WHERE lsn > ? AND lsn <= ? ORDER BY lsn)"
)

_record = partial(tuple.__new__, Record)
"""`Record._make` without its frame in Python: a third of the time."""

_integers = msgspec.json.Decoder(list[int])
_integers_or_none = msgspec.json.Decoder(list[int | None])
_strings = msgspec.json.Decoder(list[str])
_delta = msgspec.msgpack.Decoder(tuple[Head, Head, list[Change]])

Rows = Callable[[str, Sequence[Any]], list[Any]]


class Bulk:
    """Bulk reads by way of `rows`, which runs one statement and returns its rows."""

    def __init__(self, rows: Rows) -> None:
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
        count, size, first, last = self._rows(_EXTENT, (start, stop, limit + 1))[0]
        if (size or 0) > LARGE_READ_BYTES:
            joined, key_lengths, body_lengths = self._rows(_LENGTHS, (start, stop, limit + 1))[0]
            fit = bisect_left(list(accumulate(_integers.decode(body_lengths))), LARGE_READ_BYTES)
            last = _cut(joined, key_lengths)[min(limit, fit)]
        elif count <= limit:
            return stop
        return last if last != first else min(first + b"\0", stop)

    def heads(self, start: bytes, stop: bytes, limit: int = -1) -> list[HeadRow]:
        """The heads of a range, or the first so many."""
        joined, lengths, epochs, ns, digests = self._rows(_HEADS, (start, stop, limit))[0]
        digests = digests or b""
        each = [digests[i : i + 16] for i in range(0, len(digests), 16)]
        return list(zip(_cut(joined, lengths), _integers.decode(epochs), _integers.decode(ns), each, strict=True))

    def records(self, start: bytes, stop: bytes) -> list[Record]:
        """The records of a range."""
        keys, key_lengths, kinds, nfs, ids, bodies, body_lengths, versions, due = self._rows(_RECORDS, (start, stop))[0]
        columns = (
            _cut(keys, key_lengths),
            _integers.decode(kinds),
            _strings.decode(nfs),
            _strings.decode(ids),
            _cut(bodies, body_lengths),
            _integers.decode(versions),
            _integers_or_none.decode(due),
        )
        return list(map(_record, zip(*columns, strict=True)))

    def log(self, after_lsn: int, limit: int) -> list[LogEntry]:
        """The entries after an lsn, at most `limit` or about `LARGE_READ_BYTES`."""
        lsns, lengths = self._rows(_LOG_LENGTHS, (after_lsn, limit))[0]
        totals = list(accumulate(_integers.decode(lengths)))
        if not totals:
            return []
        last = _integers.decode(lsns)[max(bisect_left(totals, LARGE_READ_BYTES), 1) - 1]
        lsns, keys, key_lengths, entries, entry_lengths = self._rows(_LOG, (after_lsn, last))[0]
        deltas = map(_delta.decode, _cut(entries, entry_lengths))
        each = zip(_integers.decode(lsns), _cut(keys, key_lengths), deltas, strict=True)
        return [LogEntry(lsn, key, *delta) for lsn, key, delta in each]

    def partition_sum(self, start: bytes, stop: bytes, without: Iterable[bytes] = ()) -> PartitionSum:
        """Count and Σ of the heads' digests."""
        apart = set(without)
        if apart:
            rows = self._rows("SELECT k, digest FROM head WHERE k >= ? AND k < ?", (start, stop))
            digests = [digest for key, digest in rows if key not in apart]
            return PartitionSum(len(digests), sum_digests(digests))
        sql = "SELECT count(*), CAST(group_concat(digest, '') AS BLOB) FROM head WHERE k >= ? AND k < ?"
        ues, joined = self._rows(sql, (start, stop))[0]
        words = unpack(f">{2 * ues}Q", joined or b"")
        total = (sum(words[::2]) << 64) + sum(words[1::2])
        return PartitionSum(ues, (total % (1 << 128)).to_bytes(16, "big"))


def _cut(joined: bytes | None, lengths: str) -> list[bytes]:
    """The pieces that were joined."""
    ends = list(accumulate(_integers.decode(lengths), initial=0))
    whole = joined or b""
    return [whole[at:end] for at, end in pairwise(ends)]
