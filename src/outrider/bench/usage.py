"""What processes have used, from /proc: CPU seconds and peak resident memory, by what they are."""

import os
from pathlib import Path

import msgspec

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Used(msgspec.Struct, frozen=True, rename="camel"):
    """Of one process."""

    cpu_s: float
    peak_rss_mb: float


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def used(pid: int) -> Used | None:
    """What a process has used by now; None if it has ended."""
    fields = _stat(pid)
    if fields is None:
        return None
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    peak_kib = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
    return Used(round((int(fields[11]) + int(fields[12])) * _TICK_S, 2), round(peak_kib / 1024, 1))


def kind(pid: int) -> str:
    """What a process of a node is: `node`, `keeper`, `worker`, or the program's name."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "?"
    line = " ".join(words)
    for mark, name in (("host.keeper", "keeper"), ("host/launcher.py", "worker"), ("network run", "node")):
        if mark in line:
            return name
    return Path(words[0]).name


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()
