"""The process dies at an append: no journalled step is without its audit event, and none has two."""

import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from outrider.core.audit import read_event
from outrider.functions.lmsf import audit_log

STEPS = 12


def child(file: Path, place: str, count: int) -> int:
    command = [
        sys.executable,
        str(Path(__file__).with_name("child_audit.py")),
        str(file),
        str(STEPS),
        place,
        str(count),
    ]
    return subprocess.run(command, check=False, timeout=60).returncode


def steps(file: Path) -> tuple[int, list[str], list[str]]:
    """The journalled step, the steps of the journal's events, and those of the audit log."""
    db = apsw.Connection(str(file))
    body = db.execute("SELECT body FROM document WHERE kind = 'migration'").fetchone()
    logged = [phase.removeprefix("STEP") for (phase,) in db.execute("SELECT phase FROM event ORDER BY seq")]
    audited = [read_event(b).facts["step"] for (b,) in db.execute("SELECT body FROM audit ORDER BY sequence")]
    db.close()
    return int(body[0]) if body else 0, logged, audited


@pytest.mark.parametrize("place", ["before", "after"])
def test_killed_at_the_append_no_event_is_missing_and_none_is_there_twice(tmp_path: Path, place: str) -> None:
    file = tmp_path / "lmsf.db"
    died = 0
    for count in (1, 2, 3, 1, 2):
        code = child(file, place, count)
        assert code == -9, "the fault did not fire"
        died += 1
        done, logged, audited = steps(file)
        assert logged == audited == [str(n) for n in range(1, done + 1)]
    assert child(file, "never", 0) == 0
    done, _, audited = steps(file)
    assert (done, died) == (STEPS, 5)
    assert audited == [str(n) for n in range(1, STEPS + 1)]
    verdict = audit_log.check(file, "999-70")
    assert (verdict.findings, verdict.events) == ([], STEPS)


def test_a_tail_that_was_torn_is_taken_back_with_the_step_that_it_recorded(tmp_path: Path) -> None:
    file = tmp_path / "lmsf.db"
    assert child(file, "after", 6) == -9
    wal = file.with_name("lmsf.db-wal")
    whole, torn = wal.read_bytes(), 0
    for cut in (1, 500, 3_000, 9_000):
        copy = tmp_path / str(cut) / "lmsf.db"
        copy.parent.mkdir()
        copy.write_bytes(file.read_bytes())
        copy.with_name("lmsf.db-wal").write_bytes(whole[:-cut])
        done, logged, audited = steps(copy)
        torn += done < 6
        assert logged == audited == [str(n) for n in range(1, done + 1)]
        assert child(copy, "never", 0) == 0
        assert steps(copy)[0] == STEPS
        assert audit_log.check(copy, "999-70").findings == []
    assert torn, "nothing was torn"
