"""A store at rest: one consistent copy of a running store, and a copy that comes to life again as another store.

Only a store that owns everything is copied, and only such a copy lives again: its contexts are nowhere else, so no
other network has a row that the reborn store would have to know. It gets a new id, so that whoever knew the old one
sees STORE_LOST (PROTOCOL.md §9), and it forgets log, migrations and peers: it never accepts, refuses or confirms an
epoch of its earlier life. The earlier store may have gone on after the copy was taken and used epochs that the copy
does not know; so every row goes on above them, from the time of the rebirth in seconds, which grows faster than
epochs do. That is a second fence: what keeps the old epochs out is the new id.
"""

from pathlib import Path
from secrets import token_hex
from typing import Any

import apsw
import msgspec

from outrider.core.ids import key_text
from outrider.core.refusal import Refusal, Refused
from outrider.store.check import check
from outrider.store.faults import fault
from outrider.store.files import sync
from outrider.store.port import StoreFault
from outrider.store.schema import VERSION, check_length, connect, is_ours

_NAMED = 5
"""Keys that a refusal names; their number is told too."""

_ID_BYTES = 16
_KEPT = "permitted"
"""The value that outlives a rebirth: whether the software may serve."""


class StoreFacts(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What a copy holds, as of when it was taken."""

    layout: int
    store_id: str
    incarnation: int
    last_lsn: int
    ues: int
    records: int
    max_epoch: int


def save(store: Path, into: Path) -> StoreFacts:
    """Copy a store that may be in use, as of one moment, and check the copy to its last digest.

    Raises `Refused` (NOT_ALL_OWNED) if something in it belongs elsewhere or is in doubt.
    """
    into.unlink(missing_ok=True)
    try:
        if not store.is_file():
            raise StoreFault(f"{store}: there is no store. Look at why the host has not made one.")
        db = connect(store)
        try:
            if not is_ours(db, store):
                raise StoreFault(f"{store}: the file is empty. Start the host first.")
            db.execute("VACUUM INTO ?", (str(into),))
        finally:
            db.close()
        into.chmod(0o600)
        db = connect(into)
        try:
            db.pragma("journal_mode", "delete")
            _check_owned(db)
            facts = _facts(db)
            with db:
                _forget(db)
        finally:
            db.close()
        _check_sound(into)
        sync(into)
    except apsw.Error as error:
        raise fault(store, "copying the store", error) from error
    return facts


def revive(copy: Path, facts: StoreFacts, *, now_s: int) -> str:
    """Make a copy, which must be what `facts` say, into a store of its own; its new id.

    Raises `Refused` if it is damaged, of another layout, or does not own everything.
    """
    try:
        check_length(copy)
        db = connect(copy)
        try:
            if not is_ours(db, copy):
                raise _unsound(["the store is empty"])
            _check_sound(copy)
            _check_owned(db)
            if _facts(db) != facts:
                raise _unsound(["the store is not the one that the image describes"])
            store_id = token_hex(_ID_BYTES)
            with db:
                _forget(db)
                db.execute("UPDATE store SET store_id = ?", (store_id,))
                db.execute("UPDATE row SET epoch = max(epoch + 1, ?), peer = NULL, refused = 0, fenced = 0", (now_s,))
        finally:
            db.close()
        sync(copy)
    except (apsw.Error, StoreFault) as error:
        raise _unsound([str(error)]) from error
    return store_id


def _forget(db: apsw.Connection) -> None:
    """What only the earlier life needs: the log for those who followed it, migrations, and what peers were at."""
    db.execute("UPDATE store SET trimmed_lsn = max(trimmed_lsn, (SELECT coalesce(max(lsn), 0) FROM log))")
    db.execute("DELETE FROM log")
    db.execute("DELETE FROM val WHERE name <> ?", (_KEPT,))
    db.execute("UPDATE row SET mig = NULL")


def _facts(db: apsw.Connection) -> StoreFacts:
    def one(query: str) -> Any:
        return db.execute(query).fetchall()[0]

    store_id, incarnation, trimmed = one("SELECT store_id, incarnation, trimmed_lsn FROM store")
    return StoreFacts(
        layout=VERSION,
        store_id=store_id,
        incarnation=incarnation,
        last_lsn=max(trimmed, one("SELECT coalesce(max(lsn), 0) FROM log")[0]),
        ues=one("SELECT count(*) FROM head WHERE substr(k, 1, 1) = x'75'")[0],
        records=one("SELECT count(*) FROM rec")[0],
        max_epoch=one("SELECT coalesce(max(epoch), 0) FROM row")[0],
    )


def _check_owned(db: apsw.Connection) -> None:
    """Refuse unless every key is owned here."""
    away: list[Any] = db.execute("SELECT k, state, peer FROM row WHERE state <> 'owned' ORDER BY k").fetchall()
    if not away:
        if db.execute("SELECT count(*) FROM row").fetchall() == [(0,)]:
            raise _unsound(["it says of no key who owns it"])
        return
    how = {"granted": "in doubt with", "foreign": "at"}
    named = ", ".join(f"{key_text(key)} {how[state]} {peer}" for key, state, peer in away[:_NAMED])
    more = f" and {len(away) - _NAMED} more" if len(away) > _NAMED else ""
    raise Refused(
        Refusal(
            "NOT_ALL_OWNED",
            f"Not everything is at home: {named}{more}.",
            {"keys": str(len(away)), "networks": ", ".join(sorted({str(peer) for _, _, peer in away}))},
            "Bring the service home first: `outrider migration return`.",
            status=409,
        )
    )


def _check_sound(copy: Path) -> None:
    if found := check(copy):
        raise _unsound(found)


def _unsound(found: list[str]) -> Refused:
    return Refused(
        Refusal(
            "IMAGE_DAMAGED",
            f"The image's contexts cannot be used: {found[0]}.",
            {"found": "; ".join(found[:_NAMED])},
            "Use another image of the service.",
            status=400,
        )
    )
