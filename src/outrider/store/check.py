"""Reads a whole store and says what does not agree: pages, digests, heads, rows, log."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import msgspec

from outrider.core.ids import key_text
from outrider.core.record import Change, Head, Record, digest_of
from outrider.store.schema import connect

_SENTENCES = 100
"""More than this many sentences help nobody."""

_delta = msgspec.msgpack.Decoder(tuple[Head, Head, list[Change]])


def check(path: Path) -> list[str]:
    """Sentences about what does not agree, at most a hundred; none if the store is sound."""
    found: list[str] = []
    db = connect(path)
    try:
        with db:  # one snapshot
            for sentence in _all(db):
                found.append(sentence)
                if len(found) == _SENTENCES:
                    found.append("… and more")
                    break
    except (apsw.Error, msgspec.MsgspecError) as error:
        found.append(f"{path} cannot be read to its end: {error}")
    finally:
        db.close()
    return found


def _all(db: apsw.Connection) -> Iterator[str]:
    store: list[Any] = db.execute("SELECT digest_key, trimmed_lsn FROM store").fetchall()
    digest_key, trimmed_lsn = store[0]
    for (sentence,) in db.execute("PRAGMA integrity_check(10)"):
        if sentence != "ok":
            yield f"pages: {sentence}"
    yield from _content(db, digest_key)
    yield from _rows(db)
    yield from _log(db, trimmed_lsn)


def _content(db: apsw.Connection, digest_key: bytes) -> Iterator[str]:
    for key, n, digest in db.execute("SELECT k, n, digest FROM head"):
        rows = db.execute("SELECT k, kind, nf, id, body, version, due_ms FROM rec WHERE k = ?", (key,))
        records = list(map(Record._make, rows))
        if digest_of(records, digest_key) != digest:
            yield f"{key_text(key)}: its {len(records)} records do not add up to the digest of its head"
        for r in records:
            if r.version > n:
                yield f"{key_text(key)}: record {r.nf}/{r.id} is of unit {r.version}, after the head's {n}"
    for (key,) in db.execute("SELECT DISTINCT k FROM rec WHERE NOT EXISTS (SELECT 1 FROM head WHERE head.k = rec.k)"):
        yield f"{key_text(key)}: it has records and no head"


def _rows(db: apsw.Connection) -> Iterator[str]:
    owned = "SELECT row.k, row.epoch, head.epoch FROM row JOIN head USING (k) WHERE state = 'owned'"
    for key, epoch, head_epoch in db.execute(owned):
        if head_epoch > epoch:
            yield f"{key_text(key)}: owned at epoch {epoch}, and its head is of epoch {head_epoch}"


def _log(db: apsw.Connection, expected: int) -> Iterator[str]:
    last: dict[bytes, Head] = {}
    for lsn, key, entry in db.execute("SELECT lsn, k, entry FROM log ORDER BY lsn"):
        expected += 1
        if lsn != expected:
            yield f"log: entry {expected} is missing"
            expected = lsn
        prev, head, _ = _delta.decode(entry)
        before = last.get(key)
        if head.n != prev.n + 1 or head.epoch < prev.epoch:
            yield f"log: entry {lsn} of {key_text(key)} does not lead from {prev.n} to the next unit"
        if before is not None and (prev.n < before.n or (prev.n == before.n and prev != before)):
            yield f"log: entry {lsn} of {key_text(key)} does not follow the entry before it"
        last[key] = head
    owned = "SELECT head.k, head.epoch, n, digest FROM head JOIN row USING (k) WHERE state = 'owned'"
    for key, *columns in db.execute(owned):
        head, logged = Head._make(columns), last.get(key)
        if logged is not None and (head.n < logged.n or (head.n == logged.n and head != logged)):
            yield f"{key_text(key)}: its head is behind its own log"
