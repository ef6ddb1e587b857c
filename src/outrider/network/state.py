"""What a running node tells other commands of this machine, in files of its folder: that it runs, and where."""

import fcntl
import os
from pathlib import Path
from typing import IO

import msgspec

from outrider.core.refusal import Refusal, Refused
from outrider.network.files import write_atomic


class Running(msgspec.Struct, frozen=True, rename="camel"):
    """A node that is ready."""

    network: str
    pid: int
    root: str
    started_at: str


def state_file(directory: Path) -> Path:
    """Where a ready node says so."""
    return directory / "run" / "node.json"


def announce(directory: Path, running: Running) -> None:
    """Say that the node is ready."""
    write_atomic(state_file(directory), msgspec.json.encode(running))


def withdraw(directory: Path) -> None:
    """Say that the node is not there any more."""
    state_file(directory).unlink(missing_ok=True)


def running(directory: Path) -> Running:
    """The node of a folder, as it said itself; it may have died since. Raises `Refused` if none runs."""
    try:
        return msgspec.json.decode(state_file(directory).read_bytes(), type=Running)
    except (FileNotFoundError, msgspec.DecodeError):
        raise Refused(
            Refusal(
                "NODE_DOWN",
                f"No node of {directory} runs.",
                {"folder": str(directory)},
                f"Start it with `outrider network run {directory}`.",
                status=504,
            )
        ) from None


def lock(directory: Path) -> IO[str]:
    """Make sure that this is the only node on a folder, until the returned file is closed or the process ends."""
    folder = directory / "run"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = open(folder / "lock", "a+", encoding="ascii")  # noqa: SIM115 - held open as long as the node runs
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise Refused(
            Refusal(
                "NODE_RUNS",
                f"A node of {directory} runs already (process {holder}).",
                {"folder": str(directory), "pid": holder},
                "Stop it first, or take another folder.",
                status=409,
            )
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
