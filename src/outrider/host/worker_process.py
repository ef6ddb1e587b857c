"""Starts a worker process: its directories, its socket, its environment, its launcher."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

import outrider
from outrider.core import limits
from outrider.core.manifest import Manifest
from outrider.core.refusal import Refusal, Refused
from outrider.host import launcher
from outrider.host.sandbox import Confinement, Isolation

_SOURCE = Path(outrider.__file__).parent
_MIB = 1024 * 1024
_SHARED_CODE_BYTES = 256 * _MIB
"""Address space for the interpreter's and the wheels' code and for unused reservations, on top of the memory."""

OUTPUT_TAIL_CHARACTERS = 2_000
_SDK = ("outrider/sdk/worker.py", "msgspec/__init__.py")
"""What a package's `site` must have for a worker to start: the worker's own code, and what it reads frames with."""


class _Report(msgspec.Struct):
    active: dict[str, str]
    absent: dict[str, str]
    probes: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker lives. It may read its package and write to `work`, and nothing else."""

    package_dir: Path
    scratch: Path

    @property
    def site(self) -> Path:
        """Code and wheels of the package, the SDK among them, unpacked."""
        return self.package_dir / "site"

    @property
    def manifest(self) -> Path:
        """The package's manifest."""
        return self.package_dir / "manifest.json"

    @property
    def work(self) -> Path:
        """The worker's directory for temporary files."""
        return self.scratch / "work"

    @property
    def output(self) -> Path:
        """What the process writes past the SDK; bounded like any file of a worker."""
        return self.scratch / "output.txt"

    def lay_out(self) -> None:
        """Make its directory anew: no file of an earlier worker is left."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)

    def excess(self) -> str | None:
        """What is too much of the worker's temporary files; None if nothing is."""
        total, files = 0, 0
        for directory, _, names in os.walk(self.work):
            for name in names:
                files += 1
                if files > limits.WORKER_SCRATCH_FILES:
                    return f"more than {limits.WORKER_SCRATCH_FILES} temporary files"
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(directory, name)).st_size
        return f"temporary files of {total} bytes" if total > limits.WORKER_SCRATCH_BYTES else None

    def output_tail(self) -> str:
        """The end of what the process wrote past the SDK: interpreter errors, a traceback at start."""
        try:
            text = self.output.read_bytes()[-4 * OUTPUT_TAIL_CHARACTERS :].decode(errors="replace")
        except OSError:
            return ""
        clean = "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
        return clean.strip()[-OUTPUT_TAIL_CHARACTERS:]


def confinement(place: Place, manifest: Manifest, descriptors: list[int]) -> Confinement:
    """What the worker of a package may use."""
    address_space = min(limits.WORKER_MEMORY_BYTES, manifest.resources.memory_mb * _MIB + _SHARED_CODE_BYTES)
    return Confinement(
        read=[str(place.site), str(place.manifest)],
        write=[str(place.work)],
        memory_bytes=min(manifest.resources.memory_mb * _MIB, address_space),
        address_space_bytes=address_space,
        open_files=limits.WORKER_OPEN_FILES,
        file_bytes=limits.WORKER_FILE_BYTES,
        keeper_pid=os.getpid(),
        descriptors=descriptors,
    )


class Started:
    """A process with its end of the socket, and the launcher's report."""

    def __init__(self, process: asyncio.subprocess.Process, connection: socket.socket, report: int) -> None:
        self.process = process
        self.connection = connection
        self._report = report
        # A descriptor names this very process; its number may be another's as soon as it is reaped. (asyncio's own
        # `kill` polls first, and so takes the exit status away from asyncio's own watcher.)
        try:
            self._handle: int | None = os.pidfd_open(process.pid)
        except ProcessLookupError:
            self._handle = None

    async def report(self) -> tuple[Isolation, dict[str, str]]:
        """What the launcher says is in force, and the outcomes of its probes; `ValueError` if it said nothing."""
        raw = await _read_all(self._report)
        try:
            told = msgspec.json.decode(raw, type=_Report)
        except msgspec.DecodeError:
            raise ValueError("the launcher ended without its report") from None
        return Isolation(told.active, told.absent), told.probes

    async def end(self) -> int:
        """Kill it if it is still there, by its pid, and reap it; returns its exit status."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        self.connection.close()
        return await self.process.wait()


async def start(place: Place, manifest: Manifest, *, required: bool, probe: Mapping[str, str] | None = None) -> Started:
    """Start the launcher of a worker. The environment is empty but for what is named here.

    Raises `Refused` (SDK_ABSENT) for a package that has no SDK: nothing of this node's environment stands in for it.
    """
    missing = [path for path in _SDK if not (place.site / path).is_file()]
    if missing and not probe:
        raise Refused(sdk_absent(manifest, missing))
    place.lay_out()
    ours, theirs = socket.socketpair()
    report_out, report_in = os.pipe()
    output = os.open(place.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    try:
        descriptors = [theirs.fileno(), report_in]
        launch = launcher.Launch(
            source=str(_SOURCE.parent),
            site=str(place.site),
            manifest=str(place.manifest),
            report=report_in,
            required=required,
            confinement=asdict(confinement(place, manifest, descriptors)),
            probe=dict(probe or {}),
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            "-B",
            launcher.__file__,
            json.dumps(asdict(launch)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(place, theirs.fileno()),
            cwd=place.work,
            pass_fds=descriptors,
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        os.close(report_out)
        raise
    finally:
        theirs.close()
        os.close(report_in)
        os.close(output)
    return Started(process, ours, report_out)


def sdk_absent(manifest: Manifest, missing: list[str]) -> Refusal:
    """Why a package without the SDK does not start."""
    return Refusal(
        "SDK_ABSENT",
        f"The package of {manifest.service} {manifest.version} does not carry the SDK that its worker runs with.",
        {"missing": ", ".join(missing)},
        "Build it with `outrider package build`, which puts the SDK and all that it imports into the package.",
    )


def _environment(place: Place, descriptor: int) -> dict[str, str]:
    return {
        "OUTRIDER_SOCKET": str(descriptor),
        "HOME": str(place.work),
        "TMPDIR": str(place.work),
        "LANG": "C.UTF-8",
        # Arenas of the C library reserve address space per thread; two are enough for an event loop and a pool.
        "MALLOC_ARENA_MAX": "2",
    }


async def _read_all(descriptor: int) -> bytes:
    """All of a pipe, to its end."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        return await reader.read(-1)
    finally:
        transport.close()
