"""Landlock by system call: what this process may open, and that it may not reach the network or signal others.

Only the standard library: a worker's launcher runs this before anything else is there. Landlock needs no privilege
and no library; three system calls, the same numbers on every machine.
"""

import ctypes
import os
from collections.abc import Iterable
from typing import NamedTuple

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
BIND_TCP, CONNECT_TCP = 1, 2
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2

_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Rights that a rule for a single file may carry; the kernel refuses others there."""

READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | TRUNCATE | MAKE_REG | MAKE_DIR | REMOVE_FILE | REMOVE_DIR | REFER


class Rule(NamedTuple):
    """These rights on this file, or on everything beneath this directory."""

    path: str
    rights: int


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("parent", ctypes.c_int32))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def abi() -> int:
    """The kernel's Landlock ABI; 0 if it has none or it is switched off."""
    try:
        return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    except OSError:
        return 0


def _handled(version: int) -> _Ruleset:
    fs = (1 << 13) - 1
    fs |= REFER if version >= 2 else 0
    fs |= TRUNCATE if version >= 3 else 0
    fs |= IOCTL_DEV if version >= 5 else 0
    net = BIND_TCP | CONNECT_TCP if version >= 4 else 0
    scoped = SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS if version >= 6 else 0
    return _Ruleset(fs, net, scoped)


def restrict(rules: Iterable[Rule]) -> int:
    """From now on allow this process only what the rules say; returns the ABI in force.

    Needs no-new-privs to be set. Paths that do not exist are left out. `OSError` if the kernel has no Landlock.
    """
    version = abi()
    if version == 0:
        raise OSError(38, "the kernel has no Landlock, or it is not enabled")
    handled = _handled(version)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _call(_CREATE_RULESET, ctypes.byref(handled), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for rule in rules:
            _allow(ruleset, rule, handled.fs)
        _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, rule: Rule, handled_fs: int) -> None:
    try:
        descriptor = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        # Not there, or not for us: then there is nothing to allow.
        return
    try:
        mode = os.fstat(descriptor).st_mode
        rights = rule.rights & handled_fs
        if mode & 0o170000 != 0o040000:
            rights &= _FILE_RIGHTS
        beneath = _PathBeneath(rights, descriptor)
        _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), ctypes.byref(beneath), ctypes.c_uint32(0))
    finally:
        os.close(descriptor)


def covers(version: int) -> str:
    """What an ABI covers, in words."""
    parts = ["files" if version >= 3 else "files, but not truncation by path"]
    parts += ["TCP"] if version >= 4 else []
    parts += ["devices"] if version >= 5 else []
    parts += ["signals and abstract sockets"] if version >= 6 else []
    return ", ".join(parts)
