import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from outrider.core.refusal import Refusal
from outrider.functions.lmsf.ports import HostFailed, HostSpec, StoreLost
from outrider.network import hosts as module
from outrider.network.files import write_atomic
from outrider.network.hosts import HostSettings, NodeHosts
from outrider.network.processes import end_leftover, mark
from outrider.store.port import StoreMark

FAKE = Path(__file__).parent / "fake_keeper.py"


def settings() -> HostSettings:
    return HostSettings(
        network_id="999-70",
        border_root="http://127.0.0.1:1",
        nrf_root="http://127.0.0.1:1",
        nrf_keys={"nrf": "PEM"},
        internal_key="SECRET",
        command=(sys.executable, str(FAKE)),
    )


def spec(mode: str = "ok", service: str = "demo") -> HostSpec:
    return HostSpec(service, Path(mode), "999-70", {"nsmf-demo": "uuid-1"}, "uuid-k", "00ff")


class Marks:
    """What the LMSF remembers of stores, in memory."""

    def __init__(self) -> None:
        self.noted: list[StoreMark] = []
        self.refusal: Refusal | None = None
        self.changed = asyncio.Event()

    def known(self, service: str) -> tuple[StoreMark, ...]:
        return tuple(self.noted[-1:])

    async def note(self, service: str, mark: StoreMark) -> None:
        self.noted.append(mark)
        self.changed.set()

    async def lost(self, service: str, refusal: Refusal) -> None:
        self.refusal = refusal
        self.changed.set()

    async def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self.changed.clear()
            await self.changed.wait()


def starts(root: Path, service: str = "demo") -> list[tuple[int, int]]:
    lines = (root / "services" / service / "data" / "starts").read_text().splitlines()
    return [(int(a), int(b)) for a, b in (line.split() for line in lines)]


def make(root: Path) -> NodeHosts:
    return NodeHosts(root / "services", root / "log", settings())


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[NodeHosts]:
    made = make(tmp_path)
    yield made
    await made.close()


async def until(condition: object) -> None:
    """Wait for what another process does; there is nothing to await."""
    async with asyncio.timeout(10):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_keeper_is_started_and_known_by_its_service(hosts: NodeHosts, tmp_path: Path) -> None:
    host = await hosts.start(spec(), Marks())
    assert hosts.get("demo") == host
    assert hosts.root("demo") == host.api_root == f"http://127.0.0.1:{host.port}"
    assert host.store_id == "store-1"
    with contextlib.closing(await asyncio.to_thread(_connect, host.port)):
        pass
    config = tmp_path / "services" / "demo" / "keeper.json"
    assert config.stat().st_mode & 0o777 == 0o600
    assert hosts.get("other") is None


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 2)


def _in_process_table(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_same_spec_again_changes_nothing_and_another_replaces_the_host(hosts: NodeHosts, tmp_path: Path) -> None:
    first = await hosts.start(spec(), Marks())
    assert await hosts.start(spec(), Marks()) == first
    changed = await hosts.start(HostSpec("demo", Path("ok2"), "999-71"), Marks())
    assert changed.pid != first.pid
    assert changed.port == first.port
    assert mark(first.pid) is None
    assert len(starts(tmp_path)) == 2


async def test_crashed_keeper_is_reaped_and_restarted_on_the_same_port(hosts: NodeHosts, tmp_path: Path) -> None:
    first = await hosts.start(spec(), Marks())
    os.kill(first.pid, signal.SIGKILL)
    await until(lambda: hosts.get("demo").pid != first.pid)  # type: ignore[union-attr]
    second = hosts.get("demo")
    assert second is not None
    assert second.port == first.port
    assert not _in_process_table(first.pid)  # reaped, not a zombie
    assert hosts.status()[0]["restarts"] == 1


async def test_keeper_is_restarted_when_its_store_could_not_be_noted_once(
    hosts: NodeHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESTART_MAX_S", 0.05)
    marks, failed = Marks(), []
    first = await hosts.start(spec(), marks)

    async def full(service: str, mark: StoreMark) -> None:
        failed.append(mark)
        if len(failed) > 1:
            monkeypatch.setattr(marks, "note", noting)
        raise apsw.FullError("database or disk is full")

    noting = marks.note
    monkeypatch.setattr(marks, "note", full)
    os.kill(first.pid, signal.SIGKILL)
    await until(lambda: hosts.status()[0]["restarts"] == 1)
    assert len(failed) == 2


async def test_keeper_that_keeps_dying_is_started_again_and_again(
    hosts: NodeHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESTART_MAX_S", 0.05)
    await hosts.start(spec(), Marks())
    for n in range(1, 4):
        os.kill(hosts.get("demo").pid, signal.SIGKILL)  # type: ignore[union-attr]
        await until(lambda n=n: hosts.status()[0]["restarts"] == n)
    assert len({pid for pid, _ in starts(tmp_path)}) == 4


async def test_keeper_that_does_not_start_is_told_with_the_end_of_its_log(hosts: NodeHosts, tmp_path: Path) -> None:
    with pytest.raises(HostFailed, match=r"exit code 1.*the package cannot be read.*keeper-demo\.log"):
        await hosts.start(spec("broken"), Marks())
    with pytest.raises(HostFailed, match=r"it ended before it was ready \(exit code 3\)"):
        await hosts.start(spec("mute"), Marks())
    assert hosts.get("demo") is None


async def test_stopped_host_is_gone_and_its_files_stay(hosts: NodeHosts, tmp_path: Path) -> None:
    host = await hosts.start(spec(), Marks())
    await hosts.stop("demo")
    await hosts.stop("demo")
    assert hosts.get("demo") is None
    assert mark(host.pid) is None
    assert (tmp_path / "services" / "demo" / "data" / "starts").exists()


async def test_removed_host_leaves_no_files(hosts: NodeHosts, tmp_path: Path) -> None:
    await hosts.start(spec(), Marks())
    await hosts.remove("demo")
    await hosts.remove("demo")
    assert not (tmp_path / "services" / "demo").exists()


async def test_keeper_that_ignores_the_signal_is_killed(hosts: NodeHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_LIMIT_S", 0.1)
    host = await hosts.start(spec("deaf"), Marks())
    await hosts.stop("demo")
    assert mark(host.pid) is None


async def test_hosts_of_a_restarted_node_have_their_ports_again(hosts: NodeHosts, tmp_path: Path) -> None:
    before = {s: (await hosts.start(spec(service=s), Marks())).port for s in ("one", "two")}
    await hosts.close()
    again = make(tmp_path)
    assert {s: (await again.start(spec(service=s), Marks())).port for s in before} == before
    await again.close()


async def test_port_that_somebody_else_has_meanwhile_is_replaced(hosts: NodeHosts, tmp_path: Path) -> None:
    before = await hosts.start(spec(), Marks())
    await hosts.close()
    with socket.create_server(("127.0.0.1", before.port)):
        again = make(tmp_path)
        assert (await again.start(spec(), Marks())).port != before.port
        await again.close()


NODE = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import importlib.util
found = importlib.util.spec_from_file_location("test_hosts", sys.argv[2])
tests = importlib.util.module_from_spec(found); found.loader.exec_module(tests)
async def main():
    host = await tests.make(Path(sys.argv[1])).start(tests.spec(sys.argv[4]), tests.Marks())
    print(host.pid, flush=True)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


def crash_a_node(root: Path, mode: str) -> int:
    """A node that starts a keeper and is killed; the keeper's process id."""
    source = str(Path(module.__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", NODE, str(root), __file__, source, mode], capture_output=True, text=True, check=False
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    return int(run.stdout.splitlines()[-1])


async def test_keeper_of_a_killed_node_ends_by_itself_and_a_new_node_starts_another(
    hosts: NodeHosts, tmp_path: Path
) -> None:
    old = await asyncio.to_thread(crash_a_node, tmp_path, "ok")
    await hosts.start(spec("ok"), Marks())
    assert mark(old) is None
    assert (tmp_path / "services" / "demo" / "data" / "ended-cleanly").exists()
    assert [pid for pid, _ in starts(tmp_path)] == [old, hosts.get("demo").pid]  # type: ignore[union-attr]


async def test_hung_keeper_of_a_killed_node_is_killed_before_another_starts(
    hosts: NodeHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEFTOVER_LIMIT_S", 0.1)
    monkeypatch.setattr(module, "STOP_LIMIT_S", 0.1)
    old = await asyncio.to_thread(crash_a_node, tmp_path, "deaf")
    assert mark(old) is not None
    await hosts.start(spec("ok"), Marks())
    assert mark(old) is None
    assert hosts.get("demo") is not None


async def test_process_that_only_has_the_old_ones_id_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "keeper.pid"
    own = mark(os.getpid())
    assert own is not None
    write_atomic(file, b'{"pid": %d, "start_ticks": %d}' % (own.pid, own.start_ticks - 1))
    assert await end_leftover(file, 0.01) is None
    assert mark(os.getpid()) == own


@pytest.mark.parametrize("service", ["../x", "", "A", "a/b", ".."])
async def test_service_whose_name_is_no_folder_name_is_refused(hosts: NodeHosts, service: str) -> None:
    with pytest.raises(HostFailed, match="no name of a service"):
        await hosts.start(spec(service=service), Marks())
    await hosts.stop(service) if service else None
    await hosts.remove(service)


async def test_a_store_is_noted_before_the_host_counts_as_started_and_until_its_end(hosts: NodeHosts) -> None:
    marks = Marks()
    await hosts.start(spec(), marks)
    assert marks.noted[0] == StoreMark("store-1", 1, 0)
    await marks.until(lambda: StoreMark("store-1", 1, 7) in marks.noted)
    await hosts.close()
    assert [m.changes for m in marks.noted] == [0, 7], "a terminated keeper of this test says no last word"


async def test_the_last_word_of_a_keeper_is_heard(hosts: NodeHosts, tmp_path: Path) -> None:
    marks = Marks()
    host = await hosts.start(spec("ends-on-term"), marks)
    await marks.until(lambda: len(marks.noted) == 2)
    await hosts.stop("demo")
    assert mark(host.pid) is None
    assert marks.noted[-1] == StoreMark("store-1", 1, 9)


async def test_a_host_whose_store_is_lost_is_not_started_and_says_so(hosts: NodeHosts, tmp_path: Path) -> None:
    with pytest.raises(StoreLost) as raised:
        await hosts.start(spec("lost"), Marks())
    assert raised.value.refusal.code == "STORE_LOST"
    assert (hosts.get("demo"), hosts.root("demo")) == (None, None)
    [shown] = hosts.status()
    assert (shown["service"], shown["alive"], shown["refusal"]) == ("demo", False, raised.value.refusal)
    assert len(starts(tmp_path)) == 1
    await hosts.start(spec("ok"), Marks())
    assert [s["refusal"] for s in hosts.status()] == [None]


async def test_a_keeper_that_dies_and_has_lost_its_store_is_tried_once(hosts: NodeHosts, tmp_path: Path) -> None:
    marks = Marks()
    host = await hosts.start(spec("lost-later"), marks)
    await marks.until(lambda: len(marks.noted) == 2)
    os.kill(host.pid, signal.SIGKILL)
    await marks.until(lambda: marks.refusal is not None)
    assert marks.refusal is not None
    assert marks.refusal.sentence == "Known: 7.", "the keeper is told what was noted last"
    assert len(starts(tmp_path)) == 2
    assert hosts.get("demo") is None
    assert [s["refusal"] for s in hosts.status()] == [marks.refusal]
    assert not (tmp_path / "services" / "demo" / "keeper.pid").exists()


async def test_what_is_left_of_a_lost_store_is_set_aside(hosts: NodeHosts, tmp_path: Path) -> None:
    folder = tmp_path / "services" / "demo"
    assert await hosts.set_aside("demo") is None
    await hosts.start(spec(), Marks())
    assert await hosts.set_aside("demo") is None, "it runs"
    await hosts.stop("demo")
    assert await hosts.set_aside("demo") == folder / "lost-1"
    assert (folder / "lost-1" / "starts").exists()
    assert not (folder / "data").exists()
    await hosts.start(spec(), Marks())
    await hosts.stop("demo")
    assert await hosts.set_aside("demo") == folder / "lost-2"


async def test_hosts_start_a_few_at_a_time_and_all_of_them_do(
    hosts: NodeHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, most = 0, 0
    start_process = NodeHosts._start_process

    async def counted(self: NodeHosts, *args: object) -> object:
        nonlocal starting, most
        starting += 1
        most = max(most, starting)
        try:
            return await start_process(self, *args)  # type: ignore[arg-type]
        finally:
            starting -= 1

    monkeypatch.setattr(NodeHosts, "_start_process", counted)
    names = [f"demo-{number}" for number in range(module.STARTING + 3)]
    await asyncio.gather(*(hosts.start(spec(service=name), Marks()) for name in names))
    assert most == module.STARTING
    assert all(hosts.get(name) for name in names)


async def test_a_start_that_fails_gives_its_place_to_the_next(hosts: NodeHosts) -> None:
    for number in range(module.STARTING + 1):
        with pytest.raises(HostFailed):
            await hosts.start(spec("broken", f"demo-{number}"), Marks())
    assert await hosts.start(spec(), Marks())


async def test_without_memory_no_new_host_starts_and_one_that_was_here_does(
    hosts: NodeHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda: module.limits.HOST_MEMORY_BYTES - 1)
    with pytest.raises(module.Refused) as refused:
        await hosts.start(spec(), Marks())
    assert refused.value.refusal.code == "NO_ROOM"
    assert hosts.get("demo") is None
    (tmp_path / "services" / "demo" / "data").mkdir()
    hosts._store("demo").touch()
    assert await hosts.start(spec(), Marks())


def test_the_memory_that_is_available_is_known_here() -> None:
    available = module.available_bytes()
    assert available is not None
    assert 0 < available < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


async def test_keepers_have_no_huge_pages_that_they_would_not_fill(tmp_path: Path) -> None:
    code = "import os, sys; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    told = tmp_path / "environment"
    command = (sys.executable, "-c", f"import os; open({str(told)!r}, 'w').write(repr(dict(os.environ)))\n{code}")
    hosts = NodeHosts(
        tmp_path / "services", tmp_path / "log", module.replace(settings(), command=(*command, str(FAKE)))
    )
    await hosts.start(spec(), Marks())
    try:
        told_text = await asyncio.to_thread(told.read_text)
        assert "'MIMALLOC_ALLOW_THP': '0'" in told_text
        assert "'PATH'" in told_text
    finally:
        await hosts.close()
