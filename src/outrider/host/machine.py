"""What this machine is like for a network: versions, disk, limits; looked at and, where it can be, tried."""

import importlib.metadata
import os
import platform
import re
import resource
import shutil
import sys
import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import apsw

from outrider.core import limits
from outrider.host.doctor import Fact
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Request, Response
from outrider.sbi.server import SbiServer

PYTHON = (3, 11)
SQLITE = (3, 37)
"""The first with strict tables, which the context store has."""

KERNEL = (5, 13)
"""The first with Landlock."""

SYNCS = 40
SYNC_BYTES = 4096
SLOW_SYNC_MS = 10.0
"""Above this the disk, not the protocol, sets how long a relocation takes."""

NO_SYNC_MS = 0.01
"""No disk is as quick: what is written stays in memory."""

OPEN_FILES_FEW, OPEN_FILES_LEAST = 4096, 256
"""Each consumer's connection takes a descriptor of the node or of a keeper."""

FILE_BYTES_LEAST = 1 << 30


class Level(StrEnum):
    """How bad it is. FAIL: a network or its services cannot run here."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


class Check(NamedTuple):
    """One thing that was looked at, in one sentence; what to do about it where it is not as it should be."""

    name: str
    level: Level
    sentence: str
    remedy: str = ""


def python() -> Check:
    """The interpreter."""
    sentence = f"Python {platform.python_version()} at {os.path.realpath(sys.executable)}."
    if sys.version_info < PYTHON:
        return Check("python", Level.FAIL, sentence, "Use Python 3.11 or newer.")
    return Check("python", Level.OK, sentence)


def sqlite() -> Check:
    """The SQLite that the context stores use."""
    version = apsw.sqlite_lib_version()
    sentence = f"SQLite {version} (apsw {apsw.apsw_version()})."
    if _numbers(version) < SQLITE:
        return Check("sqlite", Level.FAIL, sentence, "Install a newer apsw; it brings its own SQLite.")
    return Check("sqlite", Level.OK, sentence)


def kernel() -> Check:
    """The kernel; what it can do for isolation is tried apart."""
    system, release = platform.system(), platform.release()
    sentence = f"{system} {release} on {platform.machine()}."
    if system != "Linux":
        return Check("kernel", Level.FAIL, sentence, "Run on Linux: workers are isolated by Landlock and seccomp.")
    if _numbers(release) < KERNEL:
        return Check("kernel", Level.WARN, sentence, "Use a kernel from 5.13: older ones have no Landlock.")
    return Check("kernel", Level.OK, sentence)


async def http2() -> Check:
    """The HTTP/2 server and client, tried with each other over the loopback."""
    names = ("granian", "pyreqwest", "uvloop")
    stack = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)

    async def answer(request: Request) -> Response:
        return Response(204)

    server = SbiServer(answer)
    try:
        await server.start()
        try:
            async with SbiClient() as client:
                began = time.perf_counter()
                status = (await client.request("GET", f"http://127.0.0.1:{server.port}/")).status
                took_ms = (time.perf_counter() - began) * 1000
        finally:
            await server.stop()
    except (OSError, Unreachable) as error:
        return Check("http2", Level.FAIL, f"{stack}: no request reached a server on 127.0.0.1 ({error}).", _LOOPBACK)
    if status != 204:
        return Check("http2", Level.FAIL, f"{stack}: somebody else answered on 127.0.0.1 ({status}).", _LOOPBACK)
    return Check("http2", Level.OK, f"{stack}: a first request over HTTP/2 took {took_ms:.1f} ms.")


_LOOPBACK = "Allow TCP on 127.0.0.1, and take no proxy for it."


def disk(directory: Path) -> Check:
    """Free space where a network keeps its stores."""
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        return Check("disk", Level.FAIL, f"{directory} cannot be looked at: {error.strerror}.", "Name another --dir.")
    sentence = f"{free / 1e9:.1f} GB are free at {directory}."
    if free < limits.DISK_RESERVE_BYTES:
        least = f"{limits.DISK_RESERVE_BYTES / 1e9:.1f} GB"
        return Check("disk", Level.FAIL, sentence, f"Free space: nothing is taken in with less than {least} free.")
    if free < 4 * limits.DISK_RESERVE_BYTES:
        return Check("disk", Level.WARN, sentence, "Free space before a large service comes here.")
    return Check("disk", Level.OK, sentence)


def fsync(directory: Path) -> Check:
    """How long it takes until a write of one page is durable there: each acknowledged write waits for one."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".outrider-doctor-", dir=directory) as file:
            times_ms = sorted(_sync_ms(file.fileno()) for _ in range(SYNCS))
    except OSError as error:
        sentence = f"Nothing can be written durably at {directory}: {error.strerror}."
        return Check("fsync", Level.FAIL, sentence, "Name a folder on a disk of this machine that you may write to.")
    middle, worst = times_ms[SYNCS // 2], times_ms[-1]
    sentence = f"A durable write of {SYNC_BYTES} bytes at {directory} takes {middle:.2f} ms, at worst {worst:.2f} ms."
    if middle > SLOW_SYNC_MS:
        return Check("fsync", Level.WARN, sentence, "Use an SSD: every relocation waits for two durable writes.")
    if middle < NO_SYNC_MS:
        remedy = "This is memory, or a disk that does not keep its word: a power cut would lose acknowledged writes."
        return Check("fsync", Level.WARN, sentence, remedy)
    return Check("fsync", Level.OK, sentence)


def _sync_ms(descriptor: int) -> float:
    os.write(descriptor, bytes(SYNC_BYTES))
    began = time.perf_counter()
    os.fsync(descriptor)
    return (time.perf_counter() - began) * 1000


def open_files() -> Check:
    """How many descriptors a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    sentence = f"A process may have {_amount(soft)} files and connections open ({_amount(hard)} at most)."
    remedy = f"Raise it before the network starts: ulimit -n {OPEN_FILES_FEW}"
    if _below(soft, OPEN_FILES_FEW):
        level = Level.FAIL if _below(soft, OPEN_FILES_LEAST) else Level.WARN
        return Check("open files", level, sentence, remedy)
    return Check("open files", Level.OK, sentence)


def file_size() -> Check:
    """How large a file, such as a context store, may become."""
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    sentence = f"A file may have {_amount(soft)} bytes."
    if _below(soft, FILE_BYTES_LEAST):
        return Check("file size", Level.WARN, sentence, "A store may need more: ulimit -f unlimited")
    return Check("file size", Level.OK, sentence)


def isolation(facts: list[Fact]) -> list[Check]:
    """The facts of `host.doctor` as checks: without isolation no worker starts, so no service runs."""
    remedy = "Use a Linux kernel from 5.13 with Landlock and seccomp enabled, on x86_64 or aarch64."
    return [
        Check(f"isolation: {fact.name}", Level.FAIL, fact.sentence, remedy)
        if fact.ok is False
        else Check(f"isolation: {fact.name}", Level.OK, fact.sentence)
        for fact in facts
        if fact.name not in ("kernel", "python")
    ]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _below(limit: int, least: int) -> bool:
    return limit != resource.RLIM_INFINITY and limit < least


def _amount(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)
