"""A service is saved, and restored at its operator on what stands for another machine: real nodes, real commands."""

import asyncio
import base64
import json
import shutil
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from outrider.core.canonical import canonical
from outrider.demo.access import NoProducer
from outrider.demo.processes import command
from outrider.demo.stage import HOME, Operator
from outrider.sbi.client import Unreachable
from outrider.sbi.http import Response
from support.consumer import Ask, consumer

SERVICE = "group-coordination"
SUPI = "imsi-999700000000001"


async def network(folder: Path, identity: str, vendor: Path | None = None) -> Operator:
    await command("network", "init", str(folder), "--id", identity, "--sbi-port", "0")
    if vendor is not None:
        shutil.copy(vendor, folder / "vendors")
    operator = Operator(identity, folder.name, "plmn", folder)
    await operator.run()
    return operator


async def refusal(operator: Operator, *args: str) -> str:
    """The cause that a command is refused with."""
    said = await operator.cli(*args, accept=(1,))
    return str(said["refusals"][0]["code"])


def altered(image: Path, into: Path, name: str, change: Callable[[bytes], bytes]) -> str:
    """A copy of an image with one part changed."""
    with zipfile.ZipFile(image) as source, zipfile.ZipFile(into, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            target.writestr(info, change(data) if info.filename == name else data)
    return str(into)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_service_is_saved_and_restored_on_another_machine(tmp_path: Path, service_dir: Path) -> None:
    key = tmp_path / "vendor.key"
    vendor = tomllib.loads((service_dir / "outrider.toml").read_text())["vendor"]
    await command("package", "keygen", "--vendor", vendor, "-o", str(key))
    built = await command("package", "build", str(service_dir), "--key", str(key), "-o", str(tmp_path))
    image = tmp_path / "service.image"
    running: list[Operator] = []
    try:
        here = await network(tmp_path / "a", HOME, key.with_suffix(".pub"))
        running.append(here)
        first = await here.cli("service", "deploy", built["file"])
        async with consumer(here) as ask:
            opened = await ask("POST", "", json={"supi": SUPI, "groupId": "crew-1", "dnn": "internet"})
            assert opened.status == 201, opened.body
            for seq in (1, 2, 3):
                sent = await ask("POST", f"/{SUPI}/transactions", json={"seq": seq, "payload": "x"}, idem=f"k{seq}")
                assert sent.json()["count"] == seq

            # Saved while it runs, which it goes on doing.
            saved = await here.cli("service", "save", SERVICE, "-o", str(image))
            assert (saved["home"], saved["store"]["ues"], saved["service"]) == (HOME, 1, SERVICE)
            assert image.stat().st_mode & 0o777 == 0o600
            later = await ask("POST", f"/{SUPI}/transactions", json={"seq": 4, "payload": "x"}, idem="k4")
            assert later.json()["count"] == 4
        assert await refusal(here, "service", "restore", str(image)) == "SERVICE_EXISTS"
        assert not list((here.directory / "lmsf" / "images").iterdir()), "the node keeps no copy"

        # Another machine of the same operator; its vendor is not trusted there at first.
        there = await network(tmp_path / "a2", HOME)
        running.append(there)
        assert await refusal(there, "service", "restore", str(image), "--signer", saved["signedBy"]) == "VENDOR_UNKNOWN"
        shutil.copy(key.with_suffix(".pub"), there.directory / "vendors")
        assert await refusal(there, "service", "restore", str(image)) == "IMAGE_SIGNER_UNKNOWN"
        known = ("--signer", saved["signedBy"])
        flipped = altered(image, tmp_path / "flipped", "contexts.db", lambda data: data[:-1] + bytes([data[-1] ^ 1]))
        assert await refusal(there, "service", "restore", flipped, *known) == "DIGEST_MISMATCH"
        other = altered(image, tmp_path / "other", "image.dsse.json", _of_another_home)
        assert await refusal(there, "service", "restore", other, *known) == "IMAGE_OF_ANOTHER_NETWORK"
        assert await refusal(there, "service", "restore", built["file"]) == "IMAGE_MALFORMED"
        assert await refusal(there, "service", "save", SERVICE, "-o", str(tmp_path / "none")) == "SERVICE_UNKNOWN"
        assert not (tmp_path / "none").exists()
        assert await there.cli("service", "list") == [], "nothing is left of what was refused"

        restored = await there.cli("service", "restore", str(image), *known)
        assert restored["state"] == "RUNNING"
        assert restored["storeId"] not in ("", first["storeId"])
        async with consumer(there) as ask:
            shown = await ask("GET", f"/{SUPI}")
            assert (shown.json()["count"], shown.json()["lastSeq"]) == (3, 3)
            more = await ask("POST", f"/{SUPI}/transactions", json={"seq": 4, "payload": "x"}, idem="k5")
            assert more.json()["count"] == 4

        # The restored store survives a crash of its node like any other.
        await there.kill()
        await there.run()
        async with consumer(there) as ask:
            assert (await _until_served(ask)).json()["count"] == 4
        db = apsw.Connection(str(there.directory / "services" / SERVICE / "data" / "contexts.db"))
        assert db.execute("SELECT count(*) FROM row WHERE state <> 'owned'").fetchall() == [(0,)]
        db.close()
    finally:
        for operator in running:
            await operator.close()


def _of_another_home(envelope: bytes) -> bytes:
    said = json.loads(envelope)
    payload = base64.b64decode(said["payload"]).replace(b'"999-70"', b'"999-75"')
    return canonical(said | {"payload": base64.b64encode(payload).decode()})


async def _until_served(ask: Ask) -> Response:
    while True:
        try:
            response = await ask("GET", f"/{SUPI}")
            if response.status == 200:
                return response
        except (NoProducer, Unreachable):
            pass
        await asyncio.sleep(0.1)
