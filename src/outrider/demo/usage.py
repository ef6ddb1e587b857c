"""What processes have used, from /proc: CPU seconds and peak resident memory, by what they are."""

import os
import time
from pathlib import Path

import msgspec

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_MARKS = {
    "host.keeper": "keeper",
    "store.bulk_process": "bulk",
    "host/launcher.py": "worker",
    "network run": "node",
    "demo.relay": "relay",
    "demo.client": "UEs",
    "demo.notify_sink": "receiver",
    "demo.checker": "checker",
}
"""What the command line of a process has in it, and what the process is."""

COMMANDS, DRIVER = "commands", "driver"
_KINDS = {*_MARKS.values(), DRIVER}


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


def used(pid: int, *, reaped: bool = False) -> Used | None:
    """What a process has used by now, with its ended children if `reaped`; None if it has ended itself."""
    fields = _stat(pid)
    if fields is None:
        return None
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    peak_kib = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
    ticks = sum(int(field) for field in fields[11 : 15 if reaped else 13])
    return Used(round(ticks * _TICK_S, 2), round(peak_kib / 1024, 1))


def age_s(pid: int) -> float | None:
    """How long a process has lived; None if it has ended."""
    fields = _stat(pid)
    return None if fields is None else max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) * _TICK_S)


def kind(pid: int) -> str:
    """What a process is: `node`, `keeper`, `bulk`, `worker`, one of the demo's, or the program's name."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "?"
    line = " ".join(words)
    for mark, name in _MARKS.items():
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


def spent(before: dict[str, Used], after: dict[str, Used]) -> dict[str, Used]:
    """CPU seconds between two looks, and the peak memory by the second."""
    return {
        name: Used(round(use.cpu_s - (before[name].cpu_s if name in before else 0.0), 2), use.peak_rss_mb)
        for name, use in after.items()
    }


class Ledger:
    """CPU seconds of this process and of all that it has started, by what they are; those that ended are kept."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[str, float]] = {}
        self._all_s = 0.0

    def look(self) -> float:
        """Note what each process has used by now; all of them together, with those that have ended."""
        self._all_s = 0.0
        for pid in family(os.getpid()):
            own, whole = used(pid), used(pid, reaped=True)
            if own is None or whole is None:
                continue
            self._all_s += whole.cpu_s
            name = DRIVER if pid == os.getpid() else kind(pid)
            if name in _KINDS:  # not so in the moment between fork and exec, and after the end
                self._seen[pid] = name, own.cpu_s
        return self._all_s

    def by_kind(self) -> dict[str, float]:
        """As far as they were looked at, the one that used most first; what else was used is that of commands."""
        found: dict[str, float] = {}
        for name, cpu_s in self._seen.values():
            found[name] = found.get(name, 0.0) + cpu_s
        found[COMMANDS] = max(0.0, self._all_s - sum(found.values()))
        return {name: round(cpu_s, 1) for name, cpu_s in sorted(found.items(), key=lambda f: -f[1])}
