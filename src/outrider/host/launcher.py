"""Starts a worker: locks this process in, reports how, and only then lets the package's code in.

Run by the keeper as `python -I -S -B launcher.py CONFIG`, where CONFIG is JSON (`Launch`). Only the standard library.
The report goes to a pipe of its own and is closed before any foreign code runs, so that nothing else can have written
it.
"""

import dataclasses
import json
import os
import sys
import threading
from typing import Any

THREAD_STACK_BYTES = 2 * 1024 * 1024
"""A pool of forty threads, as frameworks start for plain functions, must fit the memory of a small worker."""


@dataclasses.dataclass(frozen=True, slots=True)
class Launch:
    """What the keeper tells the launcher."""

    source: str
    """The directory that has `outrider`; only the modules of the sandbox are taken from it."""
    site: str
    """Code and wheels of the package, all that follows the standard library on the worker's `sys.path`."""
    manifest: str
    report: int
    """Descriptor to which the report is written."""
    required: bool
    """Do not start unless the isolation is complete."""
    confinement: dict[str, Any]
    probe: dict[str, str]
    """Instead of a worker, try these (name: what to try) and report what happened; for `outrider doctor`."""


def main() -> None:
    """Confine, report, run."""
    launch = Launch(**json.loads(sys.argv[1]))
    library = list(sys.path)
    sys.path.append(launch.source)
    from outrider.host import probes, sandbox

    sys.path[:] = library
    isolation = sandbox.confine(sandbox.Confinement(**launch.confinement))
    report: dict[str, dict[str, str]] = {"active": isolation.active, "absent": isolation.absent}
    if launch.probe:
        report["probes"] = probes.attempt(launch.probe)
    with os.fdopen(launch.report, "w") as pipe:
        json.dump(report, pipe)
    if launch.probe:
        return
    if launch.required and not isolation.complete:
        sys.exit(f"isolation is not complete: {isolation.why_not()}")
    # The node's own modules leave no trace, and its files are closed by now: all that the worker imports, the SDK with
    # its entry point too, comes from the package.
    for name in [name for name in sys.modules if name.partition(".")[0] == "outrider"]:
        del sys.modules[name]
    sys.path[:] = [*library, launch.site]
    sys.path_importer_cache.clear()
    sys.argv[:] = ["worker", launch.manifest]
    threading.stack_size(THREAD_STACK_BYTES)
    from outrider.sdk import worker

    worker.main()


if __name__ == "__main__":
    main()
