"""How far a store in a file is, read without changing or creating anything."""

from pathlib import Path

import apsw

from outrider.store.port import StoreMark
from outrider.store.schema import connect, is_ours


def mark_of(path: Path) -> StoreMark | None:
    """How far the store in a file is; None if there is no file, or nothing in it yet."""
    if not path.exists():
        return None
    db = connect(path)
    try:
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # a write-ahead log that does not belong here stays one
        if not is_ours(db, path):
            return None
        last = db.execute("SELECT coalesce(max(lsn), 0) FROM log").get
        of_it = db.execute("SELECT store_id, incarnation, trimmed_lsn, decisions FROM store")
        for store_id, incarnation, trimmed, decisions in of_it:
            return StoreMark(store_id, incarnation, max(trimmed, last) + decisions)
        return None
    finally:
        db.close()
