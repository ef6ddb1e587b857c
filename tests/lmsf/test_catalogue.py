"""Packages come in ranges, are verified before they count, and services are brought up from them."""

import asyncio
import hashlib
from typing import Any

import pytest

from outrider.core.refusal import Refusal

A, B = "999-70", "999-71-000007ed9d5"
SERVICE = "group-coordination"
DATA = b"x" * 1000


async def _put(network: Any, digest: str, first: int, part: bytes, total: int, status: int = 200) -> Any:
    span = [("content-range", f"bytes {first}-{first + len(part) - 1}/{total}")]
    return await network.ask("PUT", f"/nlmsf-catalogue/v1/uploads/{digest}", body=part, headers=span, status=status)


async def test_an_upload_goes_on_where_it_stopped(networks: Any) -> None:
    digest = hashlib.sha256(DATA).hexdigest()
    await _put(networks.a, digest, 0, DATA[:400], 1000)
    await networks.a.restart()
    answer = await networks.a.ask("GET", f"/nlmsf-catalogue/v1/uploads/{digest}", status=200)
    assert answer == {"receivedBytes": 400}
    assert (await _put(networks.a, digest, 400, DATA[400:], 1000))["receivedBytes"] == 1000


async def test_a_range_sent_twice_counts_once(networks: Any) -> None:
    digest = hashlib.sha256(DATA).hexdigest()
    await _put(networks.a, digest, 0, DATA[:400], 1000)
    assert (await _put(networks.a, digest, 0, DATA[:400], 1000))["receivedBytes"] == 400
    assert (await _put(networks.a, digest, 300, DATA[300:600], 1000))["receivedBytes"] == 600


@pytest.mark.parametrize(
    ("first", "part", "total", "status", "cause"),
    [
        (5, b"12345", 1000, 409, "RANGE_GAP"),
        (0, b"12345", 4, 413, "PACKAGE_TOO_LARGE"),
        (0, b"12345", 1 << 40, 413, "PACKAGE_TOO_LARGE"),
        (0, b"1" * (512 * 1024 + 1), 1 << 20, 400, "INVALID_RANGE"),
    ],
)
async def test_a_range_that_cannot_be(
    networks: Any, first: int, part: bytes, total: int, status: int, cause: str
) -> None:
    assert (await _put(networks.a, "0" * 64, first, part, total, status))["cause"] == cause


@pytest.mark.parametrize("digest", ["../../etc/passwd", "0" * 63, "A" * 64])
async def test_a_digest_that_is_none_is_refused(networks: Any, digest: str) -> None:
    answer = await networks.a.ask("PUT", f"/nlmsf-catalogue/v1/uploads/{digest.replace('/', '%2F')}", body=b"1",
                                  headers=[("content-range", "bytes 0-0/1")])  # fmt: skip
    assert answer["cause"] == "INVALID_DIGEST"


async def test_an_archive_that_was_damaged_is_refused_and_deleted(networks: Any) -> None:
    await _put(networks.a, "0" * 64, 0, DATA, 1000)
    answer = await networks.a.ask("POST", "/nlmsf-catalogue/v1/packages", {"sha256": "0" * 64}, status=403)
    assert answer["cause"] == "DIGEST_MISMATCH"
    assert (await networks.a.ask("GET", f"/nlmsf-catalogue/v1/uploads/{'0' * 64}"))["receivedBytes"] == 0


async def test_a_package_of_an_unknown_vendor_is_not_onboarded(networks: Any) -> None:
    networks.a.software.refuse = Refusal("VENDOR_UNKNOWN", "The package is not signed by a trusted vendor.")
    digest = hashlib.sha256(DATA).hexdigest()
    await _put(networks.a, digest, 0, DATA, 1000)
    answer = await networks.a.ask("POST", "/nlmsf-catalogue/v1/packages", {"sha256": digest}, status=403)
    assert answer["cause"] == "VENDOR_UNKNOWN"
    assert (await networks.a.ask("GET", "/nlmsf-catalogue/v1/packages"))["packages"] == []


async def test_a_deployed_service_runs_and_is_discoverable(networks: Any) -> None:
    shown = await networks.a.deploy()
    assert (shown["state"], shown["hosted"], shown["home"]) == ("RUNNING", False, A)
    assert {i["nfType"] for i in shown["instances"]} == {"SMF", "PCF", "AMF"}
    assert shown["keeper"]["rows"]["owned"] == 40
    found = await networks.a.discovered()
    assert found[0]["nfServices"][0]["ipEndPoints"][0]["port"] == networks.world.keeper(A).port
    assert "smfInfo" not in found[0]


async def test_deploying_twice_is_deploying_once(networks: Any) -> None:
    first = await networks.a.deploy()
    again = await networks.a.ask(
        "POST", "/nlmsf-catalogue/v1/deployments", {"packageDigest": first["packageDigest"]}, status=201
    )
    assert again["instances"] == first["instances"]


async def test_a_removed_service_leaves_nothing(networks: Any) -> None:
    await networks.a.deploy()
    await networks.a.ask("DELETE", f"/nlmsf-catalogue/v1/deployments/{SERVICE}", status=202)
    await networks.a.lmsf.deployments.settled(SERVICE)
    await networks.a.ask("GET", f"/nlmsf-catalogue/v1/deployments/{SERVICE}", status=404)
    assert await networks.a.discovered() == []
    assert networks.world.keepers == {}
    packages = (await networks.a.ask("GET", "/nlmsf-catalogue/v1/packages"))["packages"]
    assert len(packages) == 1, "the package stays in the catalogue of its operator"
    await networks.a.ask("DELETE", f"/nlmsf-catalogue/v1/packages/{packages[0]['digest']}", status=204)


async def test_a_package_that_a_service_runs_from_stays(networks: Any) -> None:
    shown = await networks.a.deploy()
    path = f"/nlmsf-catalogue/v1/packages/{shown['packageDigest']}"
    assert (await networks.a.ask("DELETE", path, status=409))["cause"] == "PACKAGE_IN_USE"


async def test_a_host_that_does_not_start_is_told_and_can_be_deployed_again(networks: Any) -> None:
    networks.a.hosts.fail = "no memory"
    shown = await networks.a.deploy()
    assert (shown["state"], shown["refusal"]["code"]) == ("FAILED", "HOST_FAILED")
    answer = await networks.a.ask(
        "POST", "/nlmsf-migration/v1/migrations", {"service": SERVICE, "target": B}, status=409
    )
    assert answer["cause"] == "SERVICE_NOT_RUNNING"
    networks.a.hosts.fail = None
    assert (await networks.a.deploy())["state"] == "RUNNING"


async def test_an_nrf_that_forgot_an_instance_gets_it_again(networks: Any) -> None:
    from outrider.sbi.http import Request

    shown = await networks.a.deploy()
    path = f"/nnrf-nfm/v1/nf-instances/{shown['instances'][0]['nfInstanceId']}"
    await networks.a.nrf.router(Request("DELETE", path))
    async with asyncio.timeout(10):
        while (await networks.a.nrf.router(Request("GET", path))).status != 200:
            await asyncio.sleep(0.01)


async def test_the_target_fetches_in_ranges_and_goes_on_after_a_cut(pair: Any) -> None:
    from outrider.sbi.http import Response
    from outrider.sbi.problem import problem

    ranges = []

    def once(method: str, path: str) -> Response | None:
        if not path.endswith("/archive"):
            return None
        ranges.append(path)
        return problem(504, "TARGET_NF_NOT_REACHABLE", "cut") if len(ranges) in (2, 3) else None

    pair.b.intercept = once
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    assert len(ranges) == 4, "two ranges for 600 KiB, and the second one three times"


async def test_a_partner_gets_a_package_only_while_it_prepares_it(pair: Any) -> None:
    digest = pair.a.lmsf.deployments.get(SERVICE).package_digest
    path = f"/nlmsf-catalogue/v1/packages/{digest}/archive"

    async def fetch() -> Any:
        return await pair.b.request(A, "GET", path, scope="nlmsf-catalogue", headers=[("range", "bytes=0-9")])

    assert (await fetch()).json()["cause"] == "PACKAGE_NOT_OFFERED"
    name, release = await pair.held_in("PREPARING")
    pair.b.intercept = lambda method, path: None
    answer = await fetch()
    assert (answer.status, len(answer.body)) == (206, 10)
    release()
    await pair.reach(name, "SETTLED")
    assert (await fetch()).json()["cause"] == "PACKAGE_NOT_OFFERED"
