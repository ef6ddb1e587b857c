"""What a worker is locked into, and an honest report of it.

Only the standard library, because a worker's launcher runs this before anything else is there. Each measure is taken
by the process on itself and cannot be undone by it. What isolation rests on: Landlock (which files), seccomp (which
system calls) and no-new-privs; without any one of the three, foreign code is refused.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from outrider.host import landlock, seccomp
from outrider.host.landlock import READ, READ_DIR, READ_FILE, WRITE, WRITE_FILE, Rule

ESSENTIAL = ("landlock", "seccomp", "no-new-privs")

_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 1, 24, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522

_PACKAGE_DIRECTORIES = frozenset(("site-packages", "dist-packages"))


@dataclass(frozen=True, slots=True)
class Confinement:
    """What one worker may use. Paths are absolute; `read` and `write` cover all beneath a directory."""

    read: list[str]
    write: list[str]
    memory_bytes: int
    address_space_bytes: int
    open_files: int
    file_bytes: int
    keeper_pid: int
    descriptors: list[int]
    """The only ones left open, besides 0, 1 and 2."""


@dataclass(slots=True)
class Isolation:
    """Which measures are in force, and which are not and why."""

    active: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether foreign code may run under it."""
        return all(measure in self.active for measure in ESSENTIAL)

    def why_not(self) -> str:
        """The missing essential measures, with their reasons."""
        return "; ".join(f"{name}: {self.absent[name]}" for name in ESSENTIAL if name in self.absent)


def available() -> Isolation:
    """What this machine offers for the essential measures, without taking them."""
    found = Isolation({"no-new-privs": "no program gains privileges"})
    if (version := landlock.abi()) > 0:
        found.active["landlock"] = f"ABI {version}: {landlock.covers(version)}"
    else:
        found.absent["landlock"] = "the kernel has no Landlock, or it is not enabled"
    if (missing := seccomp.supported()) is None:
        found.active["seccomp"] = "no new sockets, processes, programs; no other process; no kernel interfaces"
    else:
        found.absent["seccomp"] = missing
    return found


def confine(confinement: Confinement) -> Isolation:
    """Lock the calling process in for good, as far as this machine can; the report says how far that is."""
    done = Isolation()
    _die_with(confinement.keeper_pid)
    _close_others(confinement.descriptors)
    done.active["descriptors"] = "only the keeper's socket is open"
    _limit(confinement)
    done.active["rlimits"] = (
        f"memory {confinement.memory_bytes >> 20} MiB, address space {confinement.address_space_bytes >> 20} MiB, "
        f"{confinement.open_files} open files, {confinement.file_bytes >> 20} MiB per file, no core files"
    )
    with _measure(done, "capabilities"):
        _drop_capabilities()
        done.active["capabilities"] = "none, also as root"
    with _measure(done, "no-new-privs"):
        seccomp.no_new_privs()
        done.active["no-new-privs"] = "no program gains privileges"
    with _measure(done, "landlock"):
        version = landlock.restrict([*interpreter_rules(), *_rules(confinement)])
        done.active["landlock"] = f"ABI {version}: {landlock.covers(version)}"
    if (missing := seccomp.supported()) is not None:
        done.absent["seccomp"] = missing
    else:
        with _measure(done, "seccomp"):
            seccomp.restrict()
            done.active["seccomp"] = available().active["seccomp"]
    done.absent["cpu"] = "the share of the processor is not limited: that needs a control group, which needs root"
    return done


@contextlib.contextmanager
def _measure(done: Isolation, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        done.absent[name] = f"the kernel refused it: {error.strerror or error}"


def _rules(confinement: Confinement) -> Iterator[Rule]:
    yield from (Rule(path, READ) for path in confinement.read)
    yield from (Rule(path, WRITE) for path in confinement.write)


def interpreter_rules() -> Iterator[Rule]:
    """What Python needs of the machine: its standard library, without what is installed there, and shared libraries."""
    for directory in sys.path:
        # The standard library must be listed; the names of installed packages show, their files stay closed.
        yield Rule(directory, READ_DIR)
        yield from (Rule(p, READ) for p in _children(directory) if os.path.basename(p) not in _PACKAGE_DIRECTORIES)
    libraries = {os.path.realpath(d) for d in ("/lib", "/lib64", "/usr/lib", "/usr/lib64")}
    for directory in libraries:
        yield from (Rule(p, READ) for p in _children(directory) if _is_library(os.path.basename(p)))
    for prefix in {sys.base_prefix, sys.base_exec_prefix}:
        yield from (Rule(p, READ) for p in _children(os.path.join(prefix, "lib")) if ".so" in os.path.basename(p))
    for path in ("/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/usr/share/zoneinfo"):
        yield Rule(path, READ)
    for device in ("/dev/urandom", "/dev/random", "/dev/zero"):
        yield Rule(device, READ_FILE)
    yield Rule("/dev/null", READ_FILE | WRITE_FILE)


def _is_library(name: str) -> bool:
    return ".so" in name or "-linux-" in name or name == "locale"


def _children(directory: str) -> list[str]:
    try:
        return [os.path.join(directory, name) for name in os.listdir(directory)]
    except OSError:
        return []


def _limit(confinement: Confinement) -> None:
    wanted = {
        resource.RLIMIT_DATA: confinement.memory_bytes,
        resource.RLIMIT_AS: confinement.address_space_bytes,
        resource.RLIMIT_NOFILE: confinement.open_files,
        resource.RLIMIT_FSIZE: confinement.file_bytes,
        resource.RLIMIT_CORE: 0,
    }
    for what, value in wanted.items():
        _, hard = resource.getrlimit(what)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (bound, bound))


def _close_others(descriptors: list[int]) -> None:
    keep = {0, 1, 2, *descriptors}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            # The one that the listing itself used is gone already.
            with contextlib.suppress(OSError):
                os.close(int(name))


def _die_with(keeper_pid: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper_pid:
        # The keeper died before it was watched; nobody wants this worker.
        os._exit(1)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def _drop_capabilities() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        for capability in range(64):
            with contextlib.suppress(OSError):
                _prctl(_PR_CAPBSET_DROP, capability)
    with contextlib.suppress(OSError):
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    if libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)())) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
