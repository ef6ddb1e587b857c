"""The same track without a migration: the service stays at home, and UEs that are away reach it there, or not at all.

*Home routed*: a consumer in the target network finds the service through its own NRF, which asks home's through the
borders, and gets home's token the same way; its requests go to home's producer over a link with the delay of the
borders' link. For that home's operator has opened its producers to that network (`allowedPlmns`, `allowedSnpns`):
without it an SNPN's consumers are not shown them. *No service*: a consumer only asks its own NRF, which knows of none.
Every run has UEs of its own.
"""

import asyncio
import time
from dataclasses import replace
from urllib.parse import urlsplit

import msgspec

from outrider.core.ids import NetworkId
from outrider.demo.access import NetworkAt
from outrider.demo.checker import Findings
from outrider.demo.course import AFTER_S, BEFORE_S, Run, at, clients_of, judge, sink_of, turning
from outrider.demo.processes import ProcessFailed, Running
from outrider.sbi.client import SbiClient

HOME_ROUTED, NO_SERVICE = "home routed", "no service"


async def run_baselines(this: Run) -> dict[str, Findings]:
    """Each baseline after the other, over the networks of the run; what the checker finds in each."""
    stage = this.stage
    there = at(stage.b, "000002")
    service = (await stage.a.ask("GET", "/nlmsf-catalogue/v1/deployments"))["deployments"][0]
    keeper = urlsplit(service["apiRoot"]).netloc
    await _admit(this, [i["nfInstanceId"] for i in service["instances"]])
    link = await Running.start(
        "link of the consumers", stage.directory / "link.log", "outrider.demo.relay",
        "--listen", "127.0.0.1:0", "--connect", keeper, "--delay-ms", str(stage.rtt_ms / 2),
    )  # fmt: skip
    try:
        [port] = link.said["ready"]["ports"]
        routed = msgspec.structs.replace(there, home=stage.a.id, link=f"http://127.0.0.1:{port}")
        return {
            HOME_ROUTED: await _baseline(this, HOME_ROUTED, routed, 1),
            NO_SERVICE: await _baseline(this, NO_SERVICE, there, 2),
        }
    finally:
        await link.end()


async def _admit(this: Run, instances: list[str]) -> None:
    """Open home's producers to consumers of the target network."""
    other = NetworkId.parse(this.stage.b.id)
    name = "allowedSnpns" if other.nid else "allowedPlmns"
    patch = msgspec.json.encode([{"op": "add", "path": f"/{name}", "value": [other.plmn_id()]}])
    async with SbiClient() as client:
        for instance in instances:
            url = f"{this.stage.a.nrf_root}/nnrf-nfm/v1/nf-instances/{instance}"
            response = await client.request(
                "PATCH", url, headers=[("content-type", "application/json-patch+json")], body=patch
            )
            if response.status not in (200, 204):
                raise ProcessFailed(f"home's NRF does not admit {other}: {response.status} {response.body[:300]!r}")


async def _baseline(this: Run, name: str, there: NetworkAt, number: int) -> Findings:
    """Load, the group's journey over and home again, load; judged as the run with a migration is."""
    folder = this.stage.directory / f"baseline-{number}"
    folder.mkdir()
    options = replace(this.options, contexts=None, series=this.options.series + number)
    one = Run(options, this.stage, this.screen, started_s=this.started_s, folder=folder)
    async with sink_of(one) as sink, clients_of(one, sink, there) as clients:
        opened = await clients.order("open")
        if opened.get("failed"):
            raise ProcessFailed(f"{opened['failed']} of {options.ues} sessions could not be opened")
        await clients.order("load")
        one.mark("load")
        await asyncio.sleep(BEFORE_S)
        one.mark("begin")
        await clients.order("travel")
        _, _, home_s = turning(one)
        await asyncio.sleep(max(0.0, one.marks["begin"] + home_s - time.monotonic()))
        one.mark("returned")
        await asyncio.sleep(AFTER_S)
        await clients.order("stop")
        one.mark("end")
        await clients.order("read")
    findings = await judge(one, allow_failed=True)
    this.step(f"the same track, {name}: {findings.requests_ok} of {findings.requests_sent} requests answered")
    return findings
