"""A keeper process and its worker: which of them has to be there for what."""

import asyncio
import contextlib
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from outrider.core.ids import NetworkId
from outrider.core.manifest import KeyRule
from outrider.host.config import KeeperConfig
from outrider.network.keys import private_pem, public_pem
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Response
from outrider.sbi.tokens import TokenIssuer
from outrider.store.mark import mark_of

A = "999-70"
LOADS_WHEN_TOLD = """
import pathlib, time
while not (pathlib.Path(__file__).parent / "go").exists():
    time.sleep(0.01)
async def handle(scope, body):
    return b"served"
nf = asgi(handle)
"""


class Process:
    """A keeper as the node starts it."""

    def __init__(self, config: Path, log: Path, issuer: TokenIssuer, client: SbiClient) -> None:
        self._config, self._log, self._issuer, self._client = config, log, issuer, client
        self._root = ""
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "outrider.host.keeper", str(self._config),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip

    async def said(self) -> Any:
        """Its next line; None if it ends without."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        return json.loads(line) if line else None

    async def ready(self) -> Any:
        """Wait until it says that it is ready; None if it ends without."""
        said = await self.said()
        if said is not None:
            self._root = f"http://127.0.0.1:{said['port']}"
        return said

    def told(self, known: list[Any]) -> None:
        """The next start is told that these stores were seen."""
        config = json.loads(self._config.read_bytes())
        self._config.write_text(json.dumps(config | {"knownStores": known}))

    async def status(self) -> Any:
        bearer = "Bearer " + self._issuer.issue(subject="lmsf", audience="LMSF", scope="outrider-host")
        url = f"{self._root}/outrider-host/v1/status"
        return (await self._client.request("GET", url, headers=[("authorization", bearer)])).json()

    async def request(self) -> Response:
        bearer = "Bearer " + self._issuer.issue(subject="c", audience="SMF", scope="a")
        url, body = f"{self._root}/a/v1/ues", {"supi": "imsi-1"}
        return await self._client.request("POST", url, headers=[("authorization", bearer)], json=body)

    async def end(self, how: signal.Signals = signal.SIGKILL) -> int:
        if self.process.returncode is None:
            self.process.send_signal(how)
        return await self.process.wait()


@pytest.fixture
async def keeper(package: Any, tmp_path: Path) -> AsyncIterator[Process]:
    directory, manifest = package({"a": LOADS_WHEN_TOLD})
    rule = KeyRule(path="/a/v1/ues", at="body:/supi", methods=["POST"], creates=True)
    services = [msgspec.structs.replace(manifest.nf_services[0], keys=[rule])]
    manifest = msgspec.structs.replace(manifest, nf_services=services)
    (directory / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    key = ec.generate_private_key(ec.SECP256R1())
    nowhere, pem = "http://127.0.0.1:1", private_pem(key).decode()
    config = KeeperConfig(
        service="test-service", network_id=A, home_id=A, data_dir=str(tmp_path / "data"), package_dir=str(directory),
        border_root=nowhere, nrf_root=nowhere, nrf_keys={"nrf": public_pem(key).decode()},
        internal_key=pem, nf_instance_ids={"a": "i"}, keeper_instance_id="k",
    )  # fmt: skip
    (tmp_path / "keeper.json").write_bytes(msgspec.json.encode(config))
    async with SbiClient() as client:
        issuer = TokenIssuer(private_pem(key), "nrf", NetworkId.parse(A))
        process = Process(tmp_path / "keeper.json", tmp_path / "keeper.log", issuer, client)
        yield process
        await process.end()


async def test_a_keeper_is_ready_the_first_time_only_when_the_software_is_loaded(
    keeper: Process, tmp_path: Path
) -> None:
    await keeper.start()
    ready = asyncio.create_task(keeper.ready())
    while b"arrivals.not-subscribed" not in (tmp_path / "keeper.log").read_bytes():
        await asyncio.sleep(0.01)
    assert not ready.done()
    (tmp_path / "package" / "site" / "go").touch()
    assert await ready
    assert (await keeper.request()).body == b"served"
    assert await keeper.end(signal.SIGTERM) == 0


async def test_a_keeper_that_is_started_again_is_ready_before_its_worker_and_requests_wait_for_it(
    keeper: Process, tmp_path: Path
) -> None:
    go = tmp_path / "package" / "site" / "go"
    go.touch()
    await keeper.start()
    assert await keeper.ready()
    await keeper.end()
    go.unlink()
    await keeper.start()
    assert await keeper.ready()
    assert (await keeper.status())["worker"]["alive"] is False
    request = asyncio.create_task(keeper.request())
    while (await keeper.status())["waiting"] != 1:
        await asyncio.sleep(0.01)
    go.touch()
    assert (await request).body == b"served"
    assert await keeper.end(signal.SIGTERM) == 0


async def test_a_keeper_that_is_started_again_goes_on_trying_to_start_its_worker(
    keeper: Process, tmp_path: Path
) -> None:
    module = tmp_path / "package" / "site" / "a.py"
    whole = module.read_text().replace("while not", "while False and not")
    module.write_text(whole)
    await keeper.start()
    assert await keeper.ready()
    await keeper.end()
    module.write_text("raise RuntimeError('not today')")
    await keeper.start()
    assert await keeper.ready()
    while b"worker.not-started" not in (tmp_path / "keeper.log").read_bytes():
        await asyncio.sleep(0.01)
    module.write_text(whole)
    while not (await keeper.status())["worker"]["alive"]:
        await asyncio.sleep(0.01)
    assert (await keeper.request()).body == b"served"


async def test_software_that_was_never_loaded_and_cannot_be_ends_the_keeper(keeper: Process, tmp_path: Path) -> None:
    (tmp_path / "package" / "site" / "a.py").write_text("raise RuntimeError('never')")
    await keeper.start()
    assert not await keeper.ready()
    assert await keeper.process.wait() == 4
    assert b"WORKER_NOT_READY" in (tmp_path / "keeper.log").read_bytes()


async def test_a_keeper_that_waits_for_its_worker_ends_with_its_node(keeper: Process, tmp_path: Path) -> None:
    await keeper.start()
    while b"arrivals.not-subscribed" not in (tmp_path / "keeper.log").read_bytes():
        await asyncio.sleep(0.01)
    assert keeper.process.stdin is not None
    keeper.process.stdin.close()
    assert await keeper.process.wait() == 0


async def test_a_keeper_says_how_far_its_store_is_when_it_is_ready_and_when_it_ends(
    keeper: Process, tmp_path: Path
) -> None:
    (tmp_path / "package" / "site" / "go").touch()
    await keeper.start()
    first = (await keeper.ready())["store"]
    assert first["incarnation"] == 1
    await keeper.request()
    assert await keeper.end(signal.SIGTERM) == 0
    last = (await keeper.said())["store"]
    assert last["storeId"] == first["storeId"]
    assert last["changes"] > first["changes"]


@pytest.mark.parametrize("fault", ["deleted", "older", "another"])
async def test_a_keeper_whose_store_is_not_the_one_that_was_seen_serves_nothing_and_changes_nothing(
    keeper: Process, tmp_path: Path, fault: str
) -> None:
    data = tmp_path / "data"
    (tmp_path / "package" / "site" / "go").touch()
    await keeper.start()
    await keeper.ready()
    await keeper.end(signal.SIGTERM)
    shutil.copytree(data, tmp_path / "copy")
    await keeper.start()
    seen = (await keeper.ready())["store"]
    await keeper.end(signal.SIGTERM)
    data.rename(tmp_path / "newest")
    if fault == "older":
        (tmp_path / "copy").rename(data)
    elif fault == "another":
        await keeper.start()
        await keeper.ready()
        await keeper.end(signal.SIGTERM)

    before = mark_of(data / "contexts.db")
    keeper.told([seen])
    await keeper.start()
    said = await keeper.said()
    assert (said["ready"], said["refusal"]["code"]) == (False, "STORE_LOST")
    assert said["refusal"]["facts"]["known"] == seen["storeId"]
    assert await keeper.process.wait() == 5
    assert mark_of(data / "contexts.db") == before
    assert b"store.lost" in (tmp_path / "keeper.log").read_bytes()

    shutil.rmtree(data)
    (tmp_path / "newest").rename(data)
    await keeper.start()
    again = (await keeper.ready())["store"]
    assert (again["storeId"], again["incarnation"]) == (seen["storeId"], seen["incarnation"] + 1)


@pytest.mark.parametrize("busy", [True, False])
async def test_a_keeper_ends_when_its_store_is_taken_away_under_it(keeper: Process, tmp_path: Path, busy: bool) -> None:
    (tmp_path / "package" / "site" / "go").touch()
    await keeper.start()
    seen = (await keeper.ready())["store"]
    (tmp_path / "data" / "contexts.db").rename(tmp_path / "gone.db")
    if busy:
        with contextlib.suppress(Unreachable):
            assert (await keeper.request()).status >= 500
    assert await keeper.process.wait() == 4
    keeper.told([seen])
    await keeper.start()
    while (said := await keeper.said()) is not None and "refusal" not in said:
        pass
    assert await keeper.process.wait() == 5
