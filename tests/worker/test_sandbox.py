"""What a worker cannot do, tried from inside by hostile NF services."""

import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from outrider.core.refusal import Refused
from outrider.host import launcher, probes, sandbox, seccomp
from outrider.host.doctor import isolation_facts
from outrider.host.sandbox import Isolation

# Runs what the request's body says and answers with its value, or the error's name.
TRY = """
import ctypes, resource, signal, socket, subprocess, threading

async def handle(scope, body):
    try:
        return repr(eval(body.decode())).encode()
    except BaseException as error:
        return f"{type(error).__name__}: {error}".encode()
nf = asgi(handle)
"""


@pytest.fixture
async def attempt(start: Any) -> Any:
    """Evaluate an expression inside a worker."""
    keeper = await start({"a": TRY})

    async def evaluate(expression: str) -> str:
        return (await keeper.propose(body=expression.encode())).body.decode()

    evaluate.keeper = keeper  # type: ignore[attr-defined]
    return evaluate


@pytest.mark.parametrize(
    "expression",
    [
        "open('/etc/passwd').read()",
        "open('/proc/self/maps').read()",
        pytest.param(f"open('/proc/{os.getpid()}/environ').read()", id="another process's environment"),
        "os.listdir('/')",
        "os.listdir('/etc')",
        "open('/dev/tty', 'w')",
        "open('/tmp/outrider-escape', 'w')",
        "os.mkdir('/tmp/outrider-escape')",
        "os.symlink('/etc', os.environ['HOME'] + '/etc')",
        "os.mkfifo(os.environ['HOME'] + '/fifo')",
        "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_UNIX)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
        "socket.socketpair()[0].connect('/run/some.sock')",
        "socket.create_connection(('127.0.0.1', 9))",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "subprocess.run(['/bin/true'])",
        "os.kill(os.getppid(), 0)",
        "os.kill(-1, 0)",
        "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
        "os.sched_setaffinity(os.getppid(), [0])",
        "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)",
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, 1 << 40))",
        "os.chroot('.')",
        "os.memfd_create('x')",
        "os.utime('f')",
        "os.setxattr('/tmp', 'user.x', b'1')",
        "os.truncate('f', 0)",
        "os.pidfd_open(os.getppid())",
    ],
)
async def test_is_refused(attempt: Any, expression: str) -> None:
    outcome = await attempt(expression)
    # Raising a limit is a ValueError in Python's words; a blocked lookup of a name is one of a socket.
    assert outcome.startswith(("PermissionError", "ValueError: not allowed", "gaierror")), outcome


async def test_the_keepers_files_are_closed_even_beside_its_own(attempt: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "private.pem").write_text("secret")
    (tmp_path / "scratch" / "other").mkdir()
    assert (await attempt(f"open({str(keys / 'private.pem')!r}).read()")).startswith("PermissionError")
    assert (await attempt(f"os.listdir({str(keys)!r})")).startswith("PermissionError")
    assert (await attempt(f"os.chmod({str(keys)!r}, 0o777)")).startswith("PermissionError")
    assert (await attempt(f"os.rename({str(keys)!r}, os.environ['HOME'] + '/keys')")).startswith("PermissionError")
    assert (await attempt(f"open({str(tmp_path / 'scratch' / 'other' / 'f')!r}, 'w')")).startswith("PermissionError")
    # Its own package and SDK are read-only.
    assert (await attempt("open(sys.modules[handle.__module__].__file__, 'a')")).startswith("PermissionError")
    assert (await attempt("open(sdk.__file__, 'a')")).startswith("PermissionError")
    assert (keys / "private.pem").read_text() == "secret"


async def test_what_it_may_do(attempt: Any) -> None:
    assert await attempt("open(os.environ['HOME'] + '/f', 'w').write('abc')") == "3"
    assert await attempt("os.listdir(os.environ['TMPDIR'])") == "['f']"
    assert await attempt("os.rename('f', 'g') or open('g').read()") == "'abc'"
    assert await attempt("len(os.urandom(8))") == "8"
    assert await attempt("threading.Thread(target=print).start()") == "None"
    assert await attempt("__import__('zoneinfo').ZoneInfo('UTC').key") == "'UTC'"
    assert await attempt("__import__('sqlite3').connect(':memory:').execute('select 1').fetchone()") == "(1,)"
    assert await attempt("__import__('ssl').create_default_context().verify_mode.name") == "'CERT_REQUIRED'"
    assert await attempt("[m.__name__ for m in map(__import__, ('decimal', 'hashlib', 'lzma', 'bz2', 'ctypes'))][0]")


async def test_nothing_of_the_nodes_environment_can_be_imported(attempt: Any) -> None:
    site = str(Path(apsw.__file__).parent.parent)
    assert (await attempt("__import__('apsw')")).startswith("ModuleNotFoundError")
    assert (await attempt("__import__('outrider.core')")).startswith("ModuleNotFoundError")
    assert (await attempt("__import__('outrider.host')")).startswith("ModuleNotFoundError")
    assert site not in (await attempt("sys.path"))
    assert "site-packages" not in (await attempt("sys.path"))
    assert await attempt("[m for m in sys.modules if m.startswith('outrider.host')]") == "[]"
    # Not even when it knows the way.
    assert (await attempt(f"sys.path.append({site!r})")) == "None"
    assert (await attempt("__import__('apsw')")).startswith("ModuleNotFoundError")
    assert (await attempt(f"open({apsw.__file__!r}, 'rb').read(4)")).startswith("PermissionError")
    assert (await attempt(f"open({sandbox.__file__!r}).read(4)")).startswith("PermissionError")
    base = Path(os.__file__).parent / "site-packages"
    assert (await attempt(f"open({str(base / 'README.txt')!r})")).startswith(("PermissionError", "FileNotFoundError"))


async def test_all_that_it_imports_comes_from_its_package_or_the_standard_library(attempt: Any, tmp_path: Path) -> None:
    site = str(tmp_path / "package" / "site")
    files = "[f for f in (getattr(m, '__file__', None) for m in list(sys.modules.values())) if f]"
    allowed = (site, str(Path(os.__file__).parent))
    # The launcher is the one file of the node's: it was run to lock the process in before anything was imported.
    assert await attempt(f"[f for f in {files} if not f.startswith({allowed!r})]") == repr([launcher.__file__])
    assert await attempt("sys.path[-1]") == repr(site)
    assert await attempt(f"[p for p in sys.path[:-1] if not p.startswith({sys.base_prefix!r})]") == "[]"
    where = await attempt("(sdk.__file__, sys.modules['outrider.sdk.worker'].__file__, __import__('msgspec').__file__)")
    assert where.count(site) == 3


async def test_the_sdk_is_the_packages_and_not_a_newer_one_of_the_node(unstarted: Any, tmp_path: Path) -> None:
    keeper = unstarted({"a": TRY})
    (tmp_path / "package" / "site" / "outrider" / "sdk" / "age.py").write_text("OF = 'the package'\n")
    (tmp_path / "package" / "site" / "msgspec" / "age.py").write_text("OF = 'the package'\n")
    (tmp_path / "package" / "site" / "outrider" / "sdk" / "testing.py").unlink()
    await keeper.worker.start()
    assert importlib.util.find_spec("outrider.sdk.testing") is not None
    newer = await keeper.propose(body=b"__import__('outrider.sdk.testing')")
    assert newer.body.startswith(b"ModuleNotFoundError")
    for name in ("outrider.sdk.age", "msgspec.age"):
        # The node's SDK and msgspec have no such module: what a worker gets is what its vendor packed.
        assert importlib.util.find_spec(name) is None
        answer = await keeper.propose(body=f"__import__({name!r}, fromlist=['OF']).OF".encode())
        assert answer.body == b"'the package'"


@pytest.mark.parametrize("missing", ["outrider/sdk/worker.py", "msgspec/__init__.py"])
async def test_a_package_without_the_sdk_is_refused(unstarted: Any, tmp_path: Path, missing: str) -> None:
    keeper = unstarted({"a": TRY})
    (tmp_path / "package" / "site" / missing).unlink()
    with pytest.raises(Refused) as refused:
        await keeper.worker.start()
    assert refused.value.refusal.code == "SDK_ABSENT"
    assert refused.value.refusal.facts == {"missing": missing}
    assert keeper.worker.status().pid == 0


async def test_its_environment_and_descriptors_are_bare(attempt: Any) -> None:
    names = await attempt("sorted(os.environ)")
    assert names == "['HOME', 'LANG', 'MALLOC_ARENA_MAX', 'TMPDIR']"
    probe = "[fd for fd in range(3, 64) if (lambda: ctypes.CDLL(None).fcntl(fd, 1) >= 0)()]"
    # The keeper's socket, and what asyncio opens for itself (epoll, a pair to wake up).
    assert len(json.loads(await attempt(probe))) <= 4
    assert await attempt("os.getpgrp() == os.getpid() == os.getsid(0)") == "True"


async def test_it_has_no_capabilities_even_as_root(attempt: Any) -> None:
    pid = attempt.keeper.worker.status().pid
    fields = _process_status(pid)
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


def _process_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t") for line in lines if ":\t" in line)


async def test_its_limits_are_those_of_the_manifest(start: Any) -> None:
    keeper = await start({"a": TRY}, memory_mb=128)
    body = b"[resource.getrlimit(r)[1] for r in (resource.RLIMIT_DATA, resource.RLIMIT_CORE, resource.RLIMIT_NOFILE)]"
    assert (await keeper.propose(body=body)).body == b"[134217728, 0, 128]"


async def test_the_report_says_what_is_active_and_what_is_not(start: Any) -> None:
    keeper = await start({"a": TRY})
    isolation = keeper.worker.status().isolation
    assert isolation.complete
    assert set(isolation.active) >= {"landlock", "seccomp", "no-new-privs", "rlimits", "descriptors"}
    assert "share of the processor" in isolation.absent["cpu"]


def test_every_call_in_the_filter_has_a_number_the_table_knows() -> None:
    numbers = list(seccomp._DENIED.values())
    for column in (0, 1):
        known = [pair[column] for pair in numbers if pair[column] is not None]
        assert len(known) == len(set(known))
        assert max(n for n in known if n is not None) < seccomp._FIRST_UNKNOWN


async def test_without_isolation_a_foreign_package_is_refused(unstarted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "available", lambda: Isolation({}, {"landlock": "the kernel has no Landlock"}))
    keeper = unstarted({"a": TRY})
    with pytest.raises(Refused) as refused:
        await keeper.worker.start()
    assert refused.value.refusal.code == "SANDBOX_ABSENT"
    assert "the kernel has no Landlock" in refused.value.refusal.sentence
    assert keeper.worker.status().pid == 0


async def test_doctor_tries_it_for_real() -> None:
    facts = {fact.name: fact for fact in await isolation_facts()}
    assert facts["verdict"].ok is True
    tried = [fact for name, fact in facts.items() if name.startswith("try ")]
    assert len(tried) >= 9
    assert all(fact.ok and fact.sentence.endswith(probes.REFUSED) for fact in tried)


def test_the_probes_succeed_where_nothing_is_confined_so_a_refusal_means_something(tmp_path: Path) -> None:
    plan = {
        "file": "read /etc/passwd",
        "write": f"write {tmp_path / 'f'}",
        "tcp": "socket AF_INET",
        "self": f"signal {os.getpid()}",
        "mode": f"mode {tmp_path}",
        "gone": f"read {tmp_path / 'absent'}",
    }
    outcomes = probes.attempt(plan)
    assert probes.REFUSED not in outcomes.values()
    assert outcomes["gone"].startswith("FileNotFoundError")


KEEPER = """
import asyncio, json, sys
from pathlib import Path
import msgspec
from outrider.core.manifest import Manifest
from outrider.host.workers import Worker

async def main():
    directory = Path(sys.argv[1])
    manifest = msgspec.json.decode((directory / "manifest.json").read_bytes(), type=Manifest)
    worker = Worker(directory, manifest, scratch=Path(sys.argv[2]), network={}, instances={}, on_log=print,
                    require_isolation=True)
    await worker.start()
    print(worker.status().pid, flush=True)
    await asyncio.sleep(3600)

if sys.argv[3] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_worker_does_not_outlive_its_keeper(package: Any, tmp_path: Path, loop: str) -> None:
    directory, _ = package({"a": "def nap():\n    import time; time.sleep(3600)\nasync def nf(s, r, e): ...\n"})
    arguments = [sys.executable, "-c", KEEPER, str(directory), str(tmp_path / "scratch"), loop]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout is not None
        worker = os.pidfd_open(int(keeper.stdout.readline()))
        os.kill(keeper.pid, signal.SIGKILL)
    # A process descriptor becomes readable when the process has ended.
    assert select.select([worker], [], [], 20)[0]
    os.close(worker)
