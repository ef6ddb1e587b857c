"""Services at rest, seen from the LMSF: what is saved, and every reason not to restore. The stores are real ones."""

import asyncio
import base64
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from outrider.core.canonical import canonical
from outrider.core.ids import partition_key
from outrider.core.record import Change, Kind
from outrider.core.refusal import Refusal
from outrider.functions.lmsf import image
from outrider.functions.lmsf.signer import KeySigner
from outrider.package.wheels import Machine
from outrider.protocol.ownership import Ownership, Row
from outrider.sbi.http import Request
from outrider.store.image import StoreFacts, save
from outrider.store.port import SetRow, Work
from outrider.store.sqlite import SqliteStore

A, B = "999-70", "999-71-000007ed9d5"
SERVICE = "group-coordination"
ROOT = "/nlmsf-catalogue/v1"
UE = b"u" + bytes(16)


class StoredHosts:
    """What the fake hosts lack: a store in a file that is saved and restored."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "contexts.db"
        self.restored: list[Path] = []
        self.gate: asyncio.Event | None = None
        store = SqliteStore.open(self.store)
        star = partition_key(0)
        store.commit([SetRow(star, store.row(star), Row(Ownership.OWNED, 1))])
        store.commit([Work(UE, 1, [Change(Kind.DATA, "nsmf-x", "a", b"body")], identity="imsi-999700000000001")])
        store.close()

    def own(self, row: Row) -> None:
        store = SqliteStore.open(self.store)
        store.commit([SetRow(UE, store.row(UE), row)])
        store.close()

    async def save(self, service: str, into: Path) -> StoreFacts:
        if self.gate is not None:
            await self.gate.wait()
        return save(self.store, into)

    async def restore(self, service: str, store: Path) -> None:
        self.restored.append(store.rename(store.with_suffix(".restored")))


@pytest.fixture
def stored(networks: Any, tmp_path: Path) -> StoredHosts:
    stored = StoredHosts(tmp_path)
    for network in (networks.a, networks.b):
        network.hosts.save, network.hosts.restore = stored.save, stored.restore
    return stored


async def saving(network: Any) -> Any:
    """An image that has been saved, or not."""
    info = await network.ask("POST", f"{ROOT}/deployments/{SERVICE}/image", status=202)
    while info["state"] == "SAVING":
        await asyncio.sleep(0.01)
        info = await network.ask("GET", f"{ROOT}/images/{info['imageId']}", status=200)
    return info


async def fetched(network: Any, info: Any, into: Path) -> Path:
    data = b""
    while len(data) < info["sizeBytes"]:
        last = f"bytes={len(data)}-{info['sizeBytes'] - 1}"
        token = network.issuer.issue(subject="operator", audience="LMSF", scope="nlmsf-catalogue")
        sent = {"range": last, "authorization": f"Bearer {token}"}
        path = f"{ROOT}/images/{info['imageId']}/content"
        answer = await network.faces.router(Request("GET", path, headers=sent))
        assert answer.status == 206
        data += answer.body
    into.write_bytes(data)
    return into


async def restoring(network: Any, file: Path, status: int, **more: Any) -> Any:
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    for first in range(0, len(data), 512 * 1024):
        part = data[first : first + 512 * 1024]
        span = [("content-range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")]
        await network.ask("PUT", f"{ROOT}/uploads/{digest}", body=part, headers=span, status=200)
    return await network.ask("POST", f"{ROOT}/restorations", {"sha256": digest, **more}, status=status)


@pytest.fixture
async def saved(networks: Any, stored: StoredHosts, tmp_path: Path) -> Path:
    """An image of A's service, which A then removes."""
    await networks.a.deploy()
    info = await saving(networks.a)
    assert info["state"] == "SAVED", info
    file = await fetched(networks.a, info, tmp_path / "image")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == info["sha256"]
    await networks.a.ask("DELETE", f"{ROOT}/images/{info['imageId']}", status=204)
    await networks.a.ask("GET", f"{ROOT}/images/{info['imageId']}", status=404)
    assert list((networks.a.folder / "images").iterdir()) == []
    await networks.a.ask("DELETE", f"{ROOT}/deployments/{SERVICE}", status=202)
    await networks.a.lmsf.deployments.settled(SERVICE)
    return file


def rewritten(file: Path, into: Path, signer: KeySigner, *, package: bytes | None = None, **changes: Any) -> Path:
    """The image as somebody would write it who computes the digests anew, and signs."""
    with image.Image(file) as source:
        source.extract(image.STORE, into.with_suffix(".db"))
        source.extract(image.PACKAGE, into.with_suffix(".lms"))
        meta = source.meta
    if package is not None:
        into.with_suffix(".lms").write_bytes(package)
    parts = {n: image.part_of(into.with_suffix(s)) for n, s in ((image.PACKAGE, ".lms"), (image.STORE, ".db"))}
    meta = msgspec.structs.replace(meta, parts=parts, **changes)
    image.write(into, meta, into.with_suffix(".lms"), into.with_suffix(".db"), signer, lambda size: None)
    return into


async def test_a_saved_service_is_restored_and_runs(networks: Any, stored: StoredHosts, saved: Path) -> None:
    shown = await restoring(networks.a, saved, 201)
    assert (shown["service"], shown["home"], shown["hosted"]) == (SERVICE, A, False)
    await networks.a.lmsf.deployments.settled(SERVICE)
    assert (await networks.a.ask("GET", f"{ROOT}/deployments/{SERVICE}"))["state"] == "RUNNING"
    [file] = stored.restored
    store = SqliteStore.open(file)
    assert store.key_of("imsi-999700000000001") == UE
    assert store.row(UE).epoch > 1
    store.close()
    assert (await restoring(networks.a, saved, 409))["cause"] == "SERVICE_EXISTS"


async def test_a_service_that_is_partly_elsewhere_is_not_saved(networks: Any, stored: StoredHosts) -> None:
    await networks.a.deploy()
    stored.own(Row(Ownership.GRANTED, 2, B))
    info = await saving(networks.a)
    assert (info["state"], info["refusal"]["code"]) == ("FAILED", "NOT_ALL_OWNED")
    assert info["refusal"]["facts"]["networks"] == B
    assert list((networks.a.folder / "images").iterdir()) == []


async def test_an_image_of_another_network_is_refused(networks: Any, saved: Path) -> None:
    answer = await restoring(networks.b, saved, 409)
    assert (answer["cause"], answer["facts"]) == ("IMAGE_OF_ANOTHER_NETWORK", {"home": A, "network": B})


@pytest.mark.parametrize("part", [image.PACKAGE, image.STORE, image.META])
async def test_a_tampered_image_is_refused(networks: Any, saved: Path, tmp_path: Path, part: str) -> None:
    tampered = tmp_path / "tampered"
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(tampered, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            if info.filename == part:
                data = _with_another_ue(data) if part == image.META else data[:-1] + b"?"
            target.writestr(info, data)
    answer = await restoring(networks.a, tampered, 403)
    assert answer["cause"] == ("SIGNATURE_INVALID" if part == image.META else "DIGEST_MISMATCH")
    await networks.a.ask("GET", f"{ROOT}/deployments/{SERVICE}", status=404)


def _with_another_ue(envelope: bytes) -> bytes:
    said = json.loads(envelope)
    payload = base64.b64decode(said["payload"]).replace(b'"ues":1', b'"ues":2')
    return canonical(said | {"payload": base64.b64encode(payload).decode()})


async def test_an_image_that_says_other_than_its_contexts_is_refused(
    networks: Any, saved: Path, tmp_path: Path
) -> None:
    with image.Image(saved) as source:
        store = msgspec.structs.replace(source.meta.store, ues=2)
    changed = rewritten(saved, tmp_path / "changed", networks.a.signer, store=store)
    assert (await restoring(networks.a, changed, 400))["cause"] == "IMAGE_DAMAGED"


async def test_an_image_that_another_key_has_signed_is_restored_only_if_that_key_is_named(
    networks: Any, stored: StoredHosts, saved: Path, tmp_path: Path
) -> None:
    other = KeySigner(Ed25519PrivateKey.generate())
    pem = other.public_pem.decode()
    changed = rewritten(saved, tmp_path / "changed", other, operator_key=pem)
    answer = await restoring(networks.a, changed, 403)
    assert (answer["cause"], answer["facts"]) == ("IMAGE_SIGNER_UNKNOWN", {"signedBy": image.key_id(other.public_pem)})
    assert stored.restored == []
    await restoring(networks.a, changed, 201, signer=image.key_id(other.public_pem))
    await networks.a.lmsf.deployments.settled(SERVICE)
    assert len(stored.restored) == 1


async def test_an_image_that_names_a_key_which_did_not_sign_it_is_refused(
    networks: Any, saved: Path, tmp_path: Path
) -> None:
    changed = rewritten(saved, tmp_path / "changed", KeySigner(Ed25519PrivateKey.generate()))
    assert (await restoring(networks.a, changed, 403))["cause"] == "SIGNER_UNKNOWN"


async def test_a_package_without_this_machines_architecture_is_refused(
    networks: Any, stored: StoredHosts, saved: Path, tmp_path: Path
) -> None:
    other = "aarch64" if Machine.here().architecture != "aarch64" else "x86_64"
    with image.Image(saved) as source:
        source.extract(image.PACKAGE, tmp_path / "p")
    manifest = msgspec.json.decode((tmp_path / "p").read_bytes().rstrip(b" "))
    package = msgspec.json.encode(manifest | {"architectures": [other], "python": "3.11"})
    digest = hashlib.sha256(package).hexdigest()
    changed = rewritten(saved, tmp_path / "changed", networks.a.signer, package=package, package_digest=digest)
    answer = await restoring(networks.a, changed, 403)
    assert answer["cause"] == "ARCHITECTURE_ABSENT"
    assert stored.restored == []
    digests = [p["digest"] for p in (await networks.a.ask("GET", f"{ROOT}/packages"))["packages"]]
    assert digest not in digests, "the package of a refused image does not stay"


async def test_an_image_whose_package_is_not_trusted_is_refused(networks: Any, saved: Path) -> None:
    networks.a.software.refuse = Refusal("VENDOR_UNKNOWN", "The package is not signed by a trusted vendor.")
    assert (await restoring(networks.a, saved, 403))["cause"] == "VENDOR_UNKNOWN"


async def test_an_image_with_another_package_than_it_says_is_refused(
    networks: Any, saved: Path, tmp_path: Path
) -> None:
    changed = rewritten(saved, tmp_path / "changed", networks.a.signer, package_digest="0" * 64)
    assert (await restoring(networks.a, changed, 400))["cause"] == "IMAGE_MALFORMED"


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06" + bytes(18), b"no zip at all"])
async def test_what_is_no_image_is_refused(networks: Any, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "none").write_bytes(data)
    if data:
        assert (await restoring(networks.a, tmp_path / "none", 400))["cause"] == "IMAGE_MALFORMED"
    else:
        answer = await networks.a.ask("POST", f"{ROOT}/restorations", {"sha256": "0" * 64}, status=404)
        assert answer["cause"] == "PACKAGE_UNKNOWN"


async def test_a_service_in_a_migration_is_neither_saved_nor_restored(
    networks: Any, stored: StoredHosts, saved: Path
) -> None:
    await networks.a.deploy()
    networks.world.frozen = True
    await networks.a.permit()
    await networks.b.permit()
    begun = await networks.a.ask(
        "POST", "/nlmsf-migration/v1/migrations", {"service": SERVICE, "target": B}, status=201
    )
    answer = await networks.a.ask("POST", f"{ROOT}/deployments/{SERVICE}/image", status=409)
    assert (answer["cause"], answer["facts"]["migrationId"]) == ("SERVICE_MIGRATING", begun["migrationId"])
    assert answer["facts"]["partner"] == B
    assert (await restoring(networks.a, saved, 409))["cause"] == "SERVICE_MIGRATING"


async def test_no_migration_begins_while_a_service_is_being_saved(networks: Any, stored: StoredHosts) -> None:
    await networks.a.deploy()
    stored.gate = asyncio.Event()
    info = await networks.a.ask("POST", f"{ROOT}/deployments/{SERVICE}/image", status=202)
    wanted = {"service": SERVICE, "target": B}
    answer = await networks.a.ask("POST", "/nlmsf-migration/v1/migrations", wanted, status=409)
    assert answer["cause"] == "SERVICE_BUSY"
    again = await networks.a.ask("POST", f"{ROOT}/deployments/{SERVICE}/image", status=409)
    assert again["cause"] == "SERVICE_BUSY"
    await networks.a.ask("DELETE", f"{ROOT}/images/{info['imageId']}", status=204)
    await networks.a.ask("POST", "/nlmsf-migration/v1/migrations", wanted, status=201)


LOST = Refusal("STORE_LOST", "There is no store.", {}, "Put it back.", 503)


async def lost(network: Any, world: Any) -> None:
    """The node comes back and finds no store."""
    network.hosts.lost = LOST
    world.keepers.pop((str(network.id), SERVICE))
    await network.restart()
    await network.lmsf.deployments.settled(SERVICE)
    assert (await network.ask("GET", f"{ROOT}/deployments/{SERVICE}"))["state"] == "STORE_LOST"


async def test_a_lost_store_is_replaced_by_an_image_and_is_the_one_that_counts_from_then_on(
    networks: Any, stored: StoredHosts, saved: Path, world: Any
) -> None:
    await networks.a.deploy()
    await lost(networks.a, world)
    shown = await restoring(networks.a, saved, 201)
    assert networks.a.hosts.aside == [SERVICE]
    [file] = stored.restored
    store = SqliteStore.open(file)
    [first, *_] = networks.a.lmsf.deployments.stores.known(SERVICE)
    assert first.store_id == store.identity.store_id
    store.close()
    await networks.a.lmsf.deployments.settled(SERVICE)
    assert (await networks.a.ask("GET", f"{ROOT}/deployments/{SERVICE}"))["state"] == "RUNNING"
    assert shown["refusal"] is None


async def test_a_lost_store_is_not_replaced_while_a_partner_may_own_ues(
    pair: Any, stored: StoredHosts, world: Any, tmp_path: Path
) -> None:
    file = await fetched(pair.a, await saving(pair.a), tmp_path / "image")
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    await lost(pair.a, world)
    answer = await restoring(pair.a, file, 409)
    assert (answer["cause"], answer["facts"]["migrationId"]) == ("UES_AWAY", name)
    assert (stored.restored, pair.a.hosts.aside) == ([], [])
