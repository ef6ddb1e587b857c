"""Attempts that a locked-in process must fail at; `outrider doctor` and the tests look at what really happens.

Only the standard library, as for everything that the launcher imports.
"""

import os
import socket
import sys
from collections.abc import Callable


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return f"read {len(file.read(64))} bytes of {path}"


def _write(path: str) -> str:
    with open(path, "wb"):
        return f"wrote {path}"


def _socket(family: str) -> str:
    with socket.socket(socket.AddressFamily[family]):
        return f"opened a socket of {family}"


def _process(_: str) -> str:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "started a process"


def _program(path: str) -> str:
    os.execv(path, [path])


def _signal(pid: str) -> str:
    os.kill(int(pid), 0)
    return f"could signal process {pid}"


def _mode(path: str) -> str:
    os.chmod(path, os.stat(path).st_mode & 0o7777)
    return f"changed the mode of {path}"


_ATTEMPTS: dict[str, Callable[[str], str]] = {
    "read": _read,
    "write": _write,
    "socket": _socket,
    "process": _process,
    "program": _program,
    "signal": _signal,
    "mode": _mode,
}
REFUSED = "refused"


def attempt(plan: dict[str, str]) -> dict[str, str]:
    """Try each `kind argument` of the plan; the outcome is `refused`, or what succeeded, or another error."""
    outcomes = {}
    for name, what in plan.items():
        kind, _, argument = what.partition(" ")
        try:
            outcomes[name] = _ATTEMPTS[kind](argument)
        except PermissionError:
            outcomes[name] = REFUSED
        except OSError as error:
            outcomes[name] = f"{type(error).__name__}: {error.strerror}"
    sys.stdout.flush()
    return outcomes
