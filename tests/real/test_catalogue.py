"""A package's way through a real network: what it would do, what it then does, and its being revoked."""

import asyncio
import shutil
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outrider.demo.processes import command
from outrider.demo.stage import HOME, Operator
from outrider.functions.lmsf.impact import entry
from outrider.network import state
from outrider.package import signing
from outrider.sbi.client import SbiClient

SERVICE = "group-coordination"


async def registered(operator: Operator) -> dict[str, dict[str, Any]]:
    """Every NF profile that the network's NRF has, by instance, without what a heartbeat changes."""
    root = state.running(operator.directory).root
    async with SbiClient() as client:
        listed = await client.request("GET", f"{root}/nnrf-nfm/v1/nf-instances")
        found = {}
        for link in listed.json()["_links"]["item"]:
            profile = (await client.request("GET", f"{root}/nnrf-nfm/v1/nf-instances/{link['href'][-36:]}")).json()
            found[profile["nfInstanceId"]] = {k: v for k, v in profile.items() if k != "lastHeartbeat"}
        return found


def children(pid: int) -> set[int]:
    """Processes below one, all generations."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        below.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = set[int](), [pid]
    while todo:
        more = below.get(todo.pop(), [])
        found |= set(more)
        todo += more
    return found


def subscriptions(operator: Operator) -> int:
    """How often hosts of the network have subscribed at an AMF, as they log it."""
    logs = (operator.directory / "log").glob("*")
    return sum(path.read_text(errors="replace").count("arrivals.subscribed") for path in logs)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_what_is_told_of_a_deployment_is_what_it_does(tmp_path: Path, service_dir: Path) -> None:
    key = tmp_path / "vendor.key"
    vendor = tomllib.loads((service_dir / "outrider.toml").read_text())["vendor"]
    await command("package", "keygen", "--vendor", vendor, "-o", str(key))
    built = await command("package", "build", str(service_dir), "--key", str(key), "-o", str(tmp_path))
    folder = tmp_path / "a"
    await command("network", "init", str(folder), "--id", HOME, "--sbi-port", "0")
    shutil.copy(key.with_suffix(".pub"), folder / "vendors")
    operator = Operator(HOME, "a", "plmn", folder)
    await operator.run()
    try:
        node = state.running(folder).pid
        before, processes = await registered(operator), children(node)
        told = await operator.cli("service", "impact", built["file"])
        assert await registered(operator) == before, "nothing is done"
        assert children(node) == processes
        assert told["notPossible"] == []
        assert told["untouched"] == sorted(f"{p['nfType']} {i}" for i, p in before.items())
        (listed,) = await operator.cli("catalogue", "list")
        assert (listed["state"], listed["digest"]) == ("ONBOARDED", built["packageDigest"])

        await operator.cli("service", "deploy", built["file"])
        after = await registered(operator)
        assert {i: after[i] for i in before} == before, "what was there is as it was"
        as_entries = [msgspec.to_builtins(entry(after[i])) for i in after.keys() - before.keys()]
        by_name = sorted(told["nrfEntries"], key=lambda e: e["name"])
        assert sorted(as_entries, key=lambda e: e["name"]) == by_name
        shown = await operator.cli("service", "show", SERVICE)
        new = children(node) - processes
        assert {shown["pid"], shown["keeper"]["worker"]["pid"]} <= new
        assert len(new) <= told["resources"]["processes"] + told["resources"]["workerProcesses"]
        expected = sum(s["count"] for s in told["subscriptions"])
        async with asyncio.timeout(30):
            while subscriptions(operator) < expected:
                await asyncio.sleep(0.1)
        assert subscriptions(operator) == expected
        apis = {s["serviceName"] for p in before.values() for s in p.get("nfServices", ())}
        assert all(c["present"] == (c["api"] in apis or c["nfType"] == "NRF") for c in told["consumed"])
        again = await operator.cli("service", "impact", built["file"])
        assert [reason.partition(":")[0] for reason in again["notPossible"]] == ["SERVICE_EXISTS"]
        (listed,) = await operator.cli("catalogue", "list")
        assert listed["state"] == "IN_USE"

        # Its vendor's key is stolen: the vendor revokes it, and the operator takes the list while the node runs.
        private = signing.load_private(key)
        revoked = str(tmp_path / "vendor.revoked")
        name = ("--kind", "key", "--id", signing.key_id(private.public_key()), "--reason", "stolen")
        await command("package", "revoke", revoked, "--key", str(key), "--issuer", vendor, *name)
        await operator.cli("catalogue", "revocations", "--add", revoked)
        shown = await operator.cli("service", "show", SERVICE)
        assert (shown["state"], [r["code"] for r in shown["against"]]) == ("RUNNING", ["SIGNER_REVOKED"])
        await operator.cli("service", "remove", SERVICE, "--yes")
        assert await registered(operator) == before, "and everything is as it was before"
        refused = await operator.cli("service", "deploy", built["file"], accept=(1,))
        assert refused["refusals"][0]["code"] == "SIGNER_REVOKED"

        # Signed anew with the vendor's next key, which this operator trusts: the same package by its digest.
        new_key = tmp_path / "next.key"
        await command("package", "keygen", "--vendor", vendor, "-o", str(new_key))
        shutil.copy(new_key.with_suffix(".pub"), folder / "vendors")
        again = await command("package", "sign", built["file"], "--key", str(new_key))
        assert again["packageDigest"] == built["packageDigest"]
        assert (await operator.cli("service", "deploy", built["file"]))["state"] == "RUNNING"
        assert (await operator.cli("catalogue", "withdraw", built["packageDigest"][:12]))["state"] == "WITHDRAWN"
    finally:
        await operator.close()
