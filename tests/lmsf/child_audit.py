"""A process that journals steps with their audit events, and kills itself at one of its appends.

`python child_audit.py FILE STEPS PLACE COUNT`: goes on from the journalled step to the last one. At the COUNT-th append
it ends by SIGKILL `before` the transaction is committed, or `after` it, before anybody is told.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from outrider.core.audit import LMSF, Entry
from outrider.functions.lmsf.clocks import SystemClock
from outrider.functions.lmsf.journal import Journal, Logged


async def main(file: Path, steps: int, place: str, count: int) -> None:
    journal = Journal(file, "999-70", SystemClock())
    bodies = journal.all("migration")
    done = int(bodies[0]) if bodies else 0
    left = count

    def die(*_: object) -> int:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    if place == "before":
        journal._db.set_commit_hook(lambda: bool(die()))
    elif place == "after":
        journal._db.set_wal_hook(die)
    for step in range(done + 1, steps + 1):
        logged = Logged(step, "Stepped", f"STEP{step}", "")
        entry = Entry(LMSF, "phase", f"Step {step}.", "DESIGN.md §5", "m-1", facts={"step": str(step)})
        await journal.put("migration", "m-1", str(step).encode(), event=("m-1", logged), audit=[entry])
    journal.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
