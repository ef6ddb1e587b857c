"""No identity of a UE reaches the target before its UE does: not in what the borders say, not in what the target keeps.

Two networks run for real; the link between their borders is recorded in clear. Their service is the example, also for
UEs that are known by GPSI. Everything that has passed, and every file of the target, is searched while the copy is
being loaded, when it is complete and followed, and when one of the UEs has arrived.
"""

import asyncio
import base64
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from urllib.parse import quote

import apsw
import msgspec
import pytest

from outrider.core.compress import compress
from outrider.demo.access import Nf
from outrider.demo.injection import prepare
from outrider.protocol.messages import Answer, Answered, BulkBatch, Chunk, LaneBatch, encode
from outrider.store.packed import HeadColumns, RecordColumns, pack_chunk
from support.consumer import Ask, access, consumer
from support.identities import Piece, files, forms, search
from support.wire import RecordedStage

IDENTITIES = (
    "imsi-999703185270469",
    "imsi-999704720916385",
    "imsi-999708305261947",
    "nai-tr41n.driver@depot.example",
    "msisdn-882275091463",
    "msisdn-882134670958",
)
ARRIVING = IDENTITIES[0]
REGISTRATION = Nf("AMF", "namf-basic", "internet")


def service(example: Path, into: Path, *, leaks: bool = False) -> Path:
    """The example for UEs that are known by GPSI too; one that leaks keeps the identity in a record."""
    folder = shutil.copytree(example, into)
    _replace(folder / "group_coordination" / "sbi.py", "^(imsi-", "^(msisdn-[0-9]{5,15}|imsi-")
    if leaks:
        made = '    who = {"supi": wanted.supi, "groupId": wanted.group_id}\n'
        _replace(folder / "group_coordination" / "session.py", made, f'{made}    unit.put("who", wanted.supi)\n')
    return folder


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


@contextlib.asynccontextmanager
async def networks(directory: Path, folder: Path) -> AsyncIterator[tuple[RecordedStage, str]]:
    """Both networks, with the service at home and permissions for its migration."""
    stage = RecordedStage(directory)
    prepare(stage.b)
    try:
        await stage.build()
        name = await stage.deploy(folder)
        await stage.permit()
        yield stage, name
    finally:
        await stage.close()


async def transact(ask: Ask, identity: str, seq: int) -> None:
    """A transaction, under a key as a careless consumer makes it."""
    path = f"/{quote(identity, safe='')}/transactions"
    sent = await ask("POST", path, json={"seq": seq, "payload": "x"}, idem=f"{identity}-{seq}")
    assert (sent.status, sent.json()["count"]) == (200, seq), sent.body


async def until_copied(stage: RecordedStage, migration: str) -> None:
    """Wait until contexts may change owner, and the target has all that was written."""
    while True:
        shown = await stage.a.migration(migration)
        assert not shown["over"], shown
        if shown["phase"] == "RELOCATING" and not shown["progress"]["lagEntries"]:
            return
        await asyncio.sleep(0.05)


async def loading(stage: RecordedStage) -> int:
    """Wait until the target's keeper has stopped itself with a chunk in its staging file; its pid."""
    report = stage.directory / "fired-b.txt"
    while not report.exists():
        await asyncio.sleep(0.02)
    return int(report.read_text().strip().rpartition(":")[2])


def found(pieces: Iterable[Piece]) -> set[str]:
    """Whose identities are there."""
    return {sighting.identity for sighting in search(IDENTITIES, pieces)}


def at_target(stage: RecordedStage) -> list[Piece]:
    return list(files(stage.b.directory))


async def copied(stage: RecordedStage, name: str) -> list[Piece]:
    """Sessions, a migration, and transactions before, during and after its copy; what was there while it was loaded."""
    order = stage.directory / "fail-point-b"
    async with consumer(stage.a) as ask:
        for n, identity in enumerate(IDENTITIES):
            body = {"supi": identity, "groupId": f"crew-{n % 2}", "dnn": "internet"}
            opened = await ask("POST", "", json=body, idem=identity.partition("-")[2])
            assert opened.status == 201, opened.body
            await transact(ask, identity, 1)
        order.write_text("chunk-loaded:stop:1")
        migration = await stage.a.migrate(name, stage.b.id)
        keeper = await loading(stage)
        try:
            while_loaded = at_target(stage)
        finally:
            os.kill(keeper, signal.SIGCONT)
        for identity in IDENTITIES:
            await transact(ask, identity, 2)
        await until_copied(stage, migration)
        for identity in IDENTITIES:
            await transact(ask, identity, 3)
        await until_copied(stage, migration)
    return while_loaded


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_target_learns_the_identity_of_a_ue_that_has_arrived_and_of_no_other(
    tmp_path: Path, service_dir: Path
) -> None:
    async with networks(tmp_path / "run", service(service_dir, tmp_path / "service")) as (stage, name):
        while_loaded = await copied(stage, name)
        assert any("staging" in piece.where and "rows" in piece.where for piece in while_loaded)
        assert search(IDENTITIES, while_loaded) == []
        heard = {piece.where.split(": ")[0] for piece in stage.heard}
        assert heard == {f"{way}, {channel}" for way in ("A to B", "B to A") for channel in ("control", "bulk")}
        assert search(IDENTITIES, stage.heard) == []
        assert search(IDENTITIES, at_target(stage)) == []

        async with access(stage.b) as way, consumer(stage.b) as ask:
            path = f"/namf-basic/v1/registrations/{ARRIVING}"
            registered = await way.send(REGISTRATION, "PUT", path, json={"tai": way.network.tai})
            assert registered.status == 201, registered.body
            await transact(ask, ARRIVING, 4)
        assert found(stage.heard) == {ARRIVING}
        kept = search(IDENTITIES, at_target(stage))
        assert {sighting.identity for sighting in kept} == {ARRIVING}
        data = f"{stage.b.directory}/services/{name}/data/"
        assert {sighting.where.startswith(data) for sighting in kept} == {True}
        assert found(files(stage.a.directory / "log")) == set(), "no log names anybody, at home neither"


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_record_that_holds_an_identity_is_found_on_the_wire_and_at_the_target(
    tmp_path: Path, service_dir: Path
) -> None:
    async with networks(tmp_path / "run", service(service_dir, tmp_path / "service", leaks=True)) as (stage, name):
        while_loaded = await copied(stage, name)
        for pieces in (while_loaded, stage.heard, at_target(stage)):
            assert found(pieces) == set(IDENTITIES)
        bulk = [piece for piece in stage.heard if piece.where.startswith("A to B, bulk")]
        rows = [piece for piece in at_target(stage) if piece.where.endswith("contexts.db, rows")]
        assert found(bulk) == found(rows) == set(IDENTITIES)


def _on_the_bulk_lane(body: bytes) -> bytes:
    head = HeadColumns(b"u0", bytes(16), msgspec.json.encode([(2, 1, 1)]))
    rest = msgspec.json.encode([(2, 0, "nsmf-groupsession", "session", len(body), 1, None)])
    content = pack_chunk(head, RecordColumns(b"u0", body, rest))
    batch = BulkBatch("s", 1, None, 0, 1, 1, [Chunk("m", 1, b"s", b"v", 0, content)])
    return b"POST /bulk\r\n\r\n" + encode(batch)


def _on_a_lane(body: bytes) -> bytes:
    answered = Answered(1, b"u0", 1, Answer(200, [], body))
    return b"POST /lane\r\n\r\n" + compress(encode(LaneBatch("s", 1, None, 0, 1, 1, [answered])))


@pytest.mark.parametrize("carried", [bytes, _on_the_bulk_lane, _on_a_lane])
@pytest.mark.parametrize("identity", IDENTITIES)
def test_every_form_of_an_identity_is_found_wherever_it_travels(
    identity: str, carried: Callable[[bytes], bytes]
) -> None:
    for form, written in forms(identity).items():
        seen = search(IDENTITIES, [Piece("", carried(b"\x01" + written + b"\x02"))])
        assert (identity, form) in {(sighting.identity, sighting.form) for sighting in seen}
        assert {sighting.identity for sighting in seen} == {identity}


@pytest.mark.parametrize("before", ["", "a", "ab"])
def test_an_identity_within_base64_is_found_wherever_it_begins(before: str) -> None:
    for encoded in (base64.b64encode, base64.urlsafe_b64encode):
        text = encoded(f"{before}{ARRIVING}!".encode())
        assert found([Piece("", text)]) == {ARRIVING}


def test_an_identity_is_found_in_a_value_that_a_database_file_has_in_pieces(tmp_path: Path) -> None:
    db = apsw.Connection(str(tmp_path / "x.db"))
    db.pragma("page_size", 512)
    db.execute("CREATE TABLE t (v)")
    for size in range(480, 1040):
        db.execute("INSERT INTO t VALUES (?)", (b"." * size + (ARRIVING if size == 777 else "").encode() + b"." * 600,))
    db.close()
    assert {s.where.rpartition("x.db")[2] for s in search(IDENTITIES, files(tmp_path))} >= {", rows"}
