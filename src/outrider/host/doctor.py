"""What this machine can do for the isolation of foreign code: asked, and then tried for real."""

import asyncio
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from outrider.core.manifest import Manifest
from outrider.host import probes, sandbox, worker_process

_NOTHING = Manifest(service="probe", version="0", vendor="outrider", nf_services=[])
PROBE_LIMIT_S = 20.0


class Fact(NamedTuple):
    """One thing that was looked at; `ok` is None where it is neither good nor bad."""

    name: str
    ok: bool | None
    sentence: str


async def isolation_facts() -> list[Fact]:
    """The facts about isolation, and what a confined process really could do."""
    facts = _machine()
    offer = sandbox.available()
    with tempfile.TemporaryDirectory(prefix="outrider-doctor-") as directory:
        try:
            active, outcomes = await asyncio.wait_for(_probe(Path(directory)), PROBE_LIMIT_S)
        except (OSError, ValueError, TimeoutError) as error:
            facts += [Fact(name, None, f"offered: {text}") for name, text in offer.active.items()]
            facts += [Fact(name, False, text) for name, text in offer.absent.items()]
            return [*facts, Fact("probe", False, f"A confined process could not be tried: {error or 'it hung'}.")]
    essential = sandbox.ESSENTIAL
    facts += [Fact(name, True, text) for name, text in active.active.items()]
    facts += [Fact(name, False if name in essential else None, text) for name, text in active.absent.items()]
    facts += [
        Fact(f"try {name}", outcome == probes.REFUSED, f"a confined process that would {name}: {outcome}")
        for name, outcome in outcomes.items()
    ]
    verdict = "Foreign packages may run here." if active.complete else "Foreign packages are refused here."
    return [*facts, Fact("verdict", active.complete and all(f.ok is not False for f in facts), verdict)]


def _machine() -> list[Fact]:
    return [
        Fact("kernel", None, f"{platform.system()} {platform.release()} on {platform.machine()}"),
        Fact("python", None, f"{platform.python_version()} at {os.path.realpath(sys.executable)}"),
        Fact("user", None, "root; a worker drops all capabilities" if os.geteuid() == 0 else "not root"),
    ]


async def _probe(directory: Path) -> tuple[sandbox.Isolation, dict[str, str]]:
    """Run the launcher with attempts instead of a worker."""
    secret = directory / "secret.pem"
    secret.write_text("not a key")
    package = directory / "package"
    (package / "site").mkdir(parents=True)
    plan = {
        "read a system file": "read /etc/passwd",
        "read a key of this node": f"read {secret}",
        "write outside its directory": f"write {directory / 'written'}",
        "change a file's mode": f"mode {secret}",
        "open a TCP or UDP socket": "socket AF_INET",
        "open a Unix socket": "socket AF_UNIX",
        "start a process": "process",
        "start a program": "program /bin/true",
        "signal its keeper": f"signal {os.getpid()}",
    }
    place = worker_process.Place(package, directory / "scratch")
    started = await worker_process.start(place, _NOTHING, required=False, probe=plan)
    try:
        return await started.report()
    finally:
        await started.end()
