"""Barred software is refused where it is taken in, handed on and hosted; revoked software also where it runs."""

import asyncio
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from outrider.core.revoked import Entry, RevocationList
from outrider.core.supply import Component, SupplyRules
from outrider.decide.policy.request import Action
from outrider.functions.lmsf.runner import Runner
from outrider.functions.lmsf.supply import OperatorSupply
from outrider.package import revocations
from outrider.package.revocations import Revocations
from outrider.package.vendors import TrustedVendor
from outrider.protocol.phase import Phase

A, B = "999-70", "999-71-000007ed9d5"
SERVICE = "group-coordination"
VENDOR = "Example Vendor"
ROOT = "/nlmsf-catalogue/v1"
LIBRARY = Component(
    ref="wheels/lib.whl", name="lib", version="1.5", purl="pkg:pypi/lib@1.5", licence="GPL-3.0-only", compiled=True
)
OSV = {
    "id": "GHSA-1",
    "aliases": ["CVE-2026-1"],
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "lib"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.6"}]}],
        }
    ],
    "database_specific": {"severity": "CRITICAL"},
}
NOW = dt.datetime.now(dt.UTC)


class Demands:
    """What one network demands: its rules, its folder of advisories, and its revocation lists."""

    def __init__(self, network: Any, key: Ed25519PrivateKey, **rules: Any) -> None:
        self.key = key
        self.key_id = "a" * 64
        self.folder = Path(network.folder) / "supply"
        self.trusted = [TrustedVendor(VENDOR, key.public_key())]
        self.lists = Revocations(self.folder / "revoked", str(network.id), network.operator_key.public_key())
        rules = {"source_offer_licences": ()} | rules
        self.supply = OperatorSupply(SupplyRules(**rules), self.folder, self.lists, lambda: self.trusted)
        network.supply = self.supply
        network.software.other = {"components": (LIBRARY,), "vendor_key_id": self.key_id}

    def know(self, advisory: dict[str, Any]) -> None:
        (self.folder / "osv").mkdir(parents=True, exist_ok=True)
        (self.folder / "osv" / f"{advisory['id']}.json").write_text(json.dumps(advisory))

    def revoke(self, kind: str, name: str, sequence: int = 1) -> None:
        entry = Entry(kind=kind, id=name, revoked_at_ms=1, reason="stolen")  # type: ignore[arg-type]
        found = RevocationList(issuer=VENDOR, sequence=sequence, issued_at_ms=1, entries=(entry,))
        self.supply.add_revocations(revocations.sign(found, self.key))


@pytest.fixture
async def demands(networks: Any) -> Any:
    """Makes both networks demand something; `rules` are by network."""

    async def make(a: dict[str, Any] | None = None, b: dict[str, Any] | None = None) -> tuple[Demands, Demands]:
        key = Ed25519PrivateKey.generate()
        made = Demands(networks.a, key, **(a or {})), Demands(networks.b, key, **(b or {}))
        for network in (networks.a, networks.b):
            await network.restart()
            await network.lmsf.deployments.settled(SERVICE)
        return made

    return make


async def _refused(network: Any, package_bytes: bytes, status: int = 403) -> Any:
    """Onboarding is refused, and leaves nothing."""
    answer = await network.onboard(package_bytes, status)
    assert (await network.ask("GET", f"{ROOT}/packages"))["packages"] == []
    assert list((Path(network.folder) / "packages").iterdir()) == []
    return answer


async def _digest(network: Any) -> str:
    return str((await network.ask("GET", f"{ROOT}/packages"))["packages"][0]["digest"])


@pytest.mark.parametrize(
    ("rules", "cause"),
    [
        ({"barred_licences": ("GPL-3.0-only",)}, "LICENCE_BARRED"),
        ({"barred_components": ("pkg:pypi/lib@<2",)}, "COMPONENT_BARRED"),
        ({"unmaintained": "refuse", "unmaintained_components": ("pkg:pypi/lib",)}, "COMPONENT_UNMAINTAINED"),
    ],
    ids=str,
)
async def test_barred_software_is_not_onboarded(
    networks: Any, demands: Any, package_bytes: bytes, rules: Any, cause: str
) -> None:
    await demands(rules)
    answer = await _refused(networks.a, package_bytes)
    assert answer["cause"] == cause
    assert answer["facts"]["component"] == "lib"
    assert answer["remedy"]


async def test_every_reason_is_answered(networks: Any, demands: Any, package_bytes: bytes) -> None:
    of_a, _ = await demands({"barred_licences": ("GPL-3.0-only",), "barred_components": ("pkg:pypi/lib",)})
    of_a.know(OSV)
    answer = await _refused(networks.a, package_bytes)
    assert [r["code"] for r in answer["refusals"]] == ["LICENCE_BARRED", "COMPONENT_BARRED", "COMPONENT_VULNERABLE"]


async def test_known_vulnerable_software_is_not_onboarded(networks: Any, demands: Any, package_bytes: bytes) -> None:
    of_a, _ = await demands()
    of_a.know(OSV)
    answer = await _refused(networks.a, package_bytes)
    assert (answer["cause"], answer["facts"]["advisory"], answer["facts"]["fixedIn"]) == (
        "COMPONENT_VULNERABLE", "GHSA-1", "1.6",
    )  # fmt: skip


async def test_without_what_is_known_nothing_is_taken(networks: Any, demands: Any, package_bytes: bytes) -> None:
    of_a, _ = await demands()
    of_a.know(OSV)
    (of_a.folder / "osv" / "broken.json").write_text("{")
    answer = await _refused(networks.a, package_bytes, 500)
    assert answer["cause"] == "ADVISORIES_UNREADABLE"


async def test_an_advisory_that_comes_later_is_shown_and_stops_what_begins(networks: Any, demands: Any) -> None:
    of_a, _ = await demands()
    await networks.a.deploy()
    of_a.know(OSV)
    shown = await networks.a.ask("GET", f"{ROOT}/packages/{await _digest(networks.a)}", status=200)
    assert [f["advisory"] for f in shown["findings"]] == ["GHSA-1"]
    assert [r["code"] for r in shown["against"]] == ["COMPONENT_VULNERABLE"]
    service = await networks.a.ask("GET", f"{ROOT}/deployments/{SERVICE}", status=200)
    assert service["state"] == "RUNNING", "people use it"
    answer = await networks.migrate(status=403)
    assert answer["cause"] == "COMPONENT_VULNERABLE"


@pytest.mark.parametrize(
    ("rules", "cause"),
    [
        ({"source_offer_licences": ("GPL-3.0-only",)}, "SOURCE_OFFER_MISSING"),
        ({"export_classes": ("EAR99",)}, "EXPORT_CLASS_BARRED"),
    ],
    ids=str,
)
async def test_home_does_not_hand_on_what_it_may_not(networks: Any, demands: Any, rules: Any, cause: str) -> None:
    await demands(rules)
    assert (await networks.a.deploy())["state"] == "RUNNING", "running it at home is no distribution"
    answer = await networks.migrate(status=403)
    assert answer["cause"] == cause
    assert networks.b.lmsf.all() == []


async def _ended(pair: Any, cause: str) -> Any:
    name = (await pair.migrate(move_all=True))["migrationId"]
    runner = pair.a.lmsf.get(name)
    assert await runner.until(lambda row: runner.over, 20_000), await pair.a.show(name)
    shown = await pair.a.show(name)
    assert (shown["phase"], shown["ending"]["cause"]) == ("ABORTED", cause), shown
    pair.whole_at_home()
    return shown


async def test_the_target_refuses_a_barred_component_when_the_package_has_come(pair: Any, demands: Any) -> None:
    await demands({}, {"barred_components": ("pkg:pypi/lib",), "barred_licences": ("GPL-3.0-only",)})
    shown = await _ended(pair, "LICENCE_BARRED")
    assert shown["readLogOf"] == B
    assert (await pair.b.ask("GET", f"{ROOT}/packages"))["packages"] == []
    assert list((Path(pair.b.folder) / "packages").iterdir()) == []
    assert [r.code for r in pair.b.lmsf.all()[0].record.refusals] == ["LICENCE_BARRED", "COMPONENT_BARRED"]


async def test_the_target_refuses_the_offer_for_what_the_manifest_says(pair: Any, demands: Any) -> None:
    await demands({}, {"undeclared_licences": "refuse"})
    shown = await _ended(pair, "LICENCE_UNDECLARED")
    assert "PREPARING" not in shown["phases"], "nothing was fetched"


async def test_the_target_refuses_the_offer_of_a_revoked_package(pair: Any, demands: Any) -> None:
    _, of_b = await demands()
    of_b.revoke("package", await _digest(pair.a))
    shown = await _ended(pair, "PACKAGE_REVOKED")
    assert "PREPARING" not in shown["phases"]


async def test_a_revoked_signer_ends_the_stay_and_everything_comes_home(pair: Any, demands: Any) -> None:
    """Seen at the target alone: it stops serving, and the way back begins; no context is lost."""
    _, of_b = await demands()
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    assert pair.world.keeper(B).permitted
    of_b.revoke("key", of_b.key_id)
    shown = await pair.reach(name, "RETIRED", at=pair.a)
    assert shown["ending"]["cause"] == "SIGNER_REVOKED"
    pair.whole_at_home()


GPL = {"barred_licences": ("GPL-3.0-only",)}
POLICY = '[[permit]]\nid = "all"\n[[require]]\nid = "licences"\nlicences = ["Apache-2.0"]\n'
FEW = '[[require]]\nid = "few"\nmax_ues = 1\n'
HUMAN = '[[approval]]\nid = "ask"\n'


async def _reasons(pair: Any) -> tuple[Any, list[str]]:
    name = (await pair.migrate(move_all=True))["migrationId"]
    runner = pair.a.lmsf.get(name)
    assert await runner.until(lambda row: runner.over, 20_000), await pair.a.show(name)
    shown = await pair.a.show(name)
    pair.whole_at_home()
    return shown, [r["code"] for r in shown["refusals"]]


async def test_an_offer_is_judged_by_supply_rules_and_then_by_the_policy(pair: Any, demands: Any) -> None:
    await demands(b={"barred_components": (f"pkg:generic/{SERVICE}",)})
    await pair.b.under(POLICY + FEW)
    shown, codes = await _reasons(pair)
    assert codes == ["COMPONENT_BARRED", "POLICY_UES"]
    assert "PREPARING" not in shown["phases"]


async def test_a_package_that_has_come_is_judged_by_supply_rules_and_then_by_the_policy(
    pair: Any, demands: Any
) -> None:
    await demands(b=GPL)
    await pair.b.under(POLICY)
    shown, codes = await _reasons(pair)
    assert codes == ["LICENCE_BARRED", "POLICY_LICENCE"]
    assert "PREPARING" in shown["phases"]
    await pair.clear_at_target()
    assert pair.b.hosts.digest_keys == [], "no host was ever started"
    assert (await pair.b.ask("GET", f"{ROOT}/packages"))["packages"] == []


async def test_a_look_that_comes_before_the_package_is_judged_tells_the_same(
    pair: Any, demands: Any, monkeypatch: Any
) -> None:
    """The policy sees the components once it is kept; the look must not hide the reasons of the supply rules."""
    await demands(b=GPL)
    await pair.b.under(POLICY)
    allowed, held = Runner.allowed, asyncio.Event()

    async def late(self: Runner, action: Action, terms: Any = ()) -> Any:
        if action is Action.HOST and self.row.phase is Phase.PREPARING:
            await held.wait()
        return await allowed(self, action, terms)

    monkeypatch.setattr(Runner, "allowed", late)
    _, codes = await _reasons(pair)
    held.set()
    assert codes == ["LICENCE_BARRED", "POLICY_LICENCE"]


async def test_a_package_that_is_here_is_judged_whole_at_the_offer(
    pair: Any, demands: Any, package_bytes: bytes
) -> None:
    await demands()
    await pair.b.onboard(package_bytes)
    pair.b.supply.rules = SupplyRules(**GPL)
    shown, codes = await _reasons(pair)
    assert codes == ["LICENCE_BARRED"]
    assert "PREPARING" not in shown["phases"]


async def test_no_human_is_asked_about_software_that_is_barred(pair: Any, demands: Any) -> None:
    await demands(b={"barred_components": (f"pkg:generic/{SERVICE}",)})
    await pair.b.under('[[permit]]\nid = "all"\n' + HUMAN)
    _, codes = await _reasons(pair)
    assert codes == ["COMPONENT_BARRED", "POLICY_APPROVAL_NEEDED"]
    assert (await pair.b.ask("GET", "/nlmsf-policy/v1/approvals"))["approvals"] == []


async def test_handing_on_is_judged_by_supply_rules_and_then_by_the_policy(pair: Any, demands: Any) -> None:
    of_a, _ = await demands()
    await pair.a.under(POLICY + FEW)
    of_a.supply.rules = SupplyRules(export_classes=("EAR99",), source_offer_licences=())
    answer = await pair.migrate(move_all=True, status=403)
    assert [r["code"] for r in answer["refusals"]] == ["EXPORT_CLASS_BARRED", "POLICY_UES"]


async def test_without_the_question_to_the_supply_rules_barred_software_would_be_hosted(
    pair: Any, demands: Any, monkeypatch: Any
) -> None:
    """The twin of the tests above: it is that question, and nothing else, that keeps it out."""

    async def nothing(*args: Any) -> list[Any]:
        return []

    await demands(b=GPL)
    monkeypatch.setattr(pair.b.lmsf.catalogue, "hosting", nothing)
    await pair.reach((await pair.migrate(move_all=True))["migrationId"], "SETTLED")


async def test_without_the_look_at_revocations_the_stay_would_go_on(pair: Any, demands: Any, monkeypatch: Any) -> None:
    """The twin of the test above: it is that look, and nothing else, that ends the stay."""
    _, of_b = await demands()
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    monkeypatch.setattr(pair.b.lmsf.catalogue, "revoked", lambda digest: [])
    of_b.revoke("key", of_b.key_id)
    runner = pair.b.lmsf.get(name)
    await runner.look()
    assert runner.row.phase.value == "SETTLED"
    assert pair.world.keeper(B).permitted


async def test_a_service_of_the_own_operator_says_that_its_signer_is_revoked(networks: Any, demands: Any) -> None:
    of_a, _ = await demands()
    await networks.a.deploy()
    of_a.revoke("key", of_a.key_id)
    shown = await networks.a.ask("GET", f"{ROOT}/deployments/{SERVICE}", status=200)
    assert shown["state"] == "RUNNING"
    assert [r["code"] for r in shown["against"]] == ["SIGNER_REVOKED"]
    assert "stolen" in shown["sentence"]
    assert (await networks.migrate(status=403))["cause"] == "SIGNER_REVOKED"


async def test_a_list_that_was_lost_stops_new_software_and_not_what_runs(pair: Any, demands: Any) -> None:
    _, of_b = await demands()
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    of_b.revoke("package", "f" * 64)
    for path in (of_b.folder / "revoked").glob("*.json"):
        if path.name != "seen.json":
            path.unlink()
    runner = pair.b.lmsf.get(name)
    await runner.look()
    assert runner.row.phase.value == "SETTLED"
    facts = await pair.b.lmsf.catalogue.facts(runner.contract.package_digest)
    assert [r.code for r in of_b.supply.judge(facts)] == ["REVOCATIONS_OLD"]


async def test_facts_outlive_a_restart_and_are_drawn_again_where_they_are_not_kept(networks: Any, demands: Any) -> None:
    of_a, _ = await demands()
    await networks.a.deploy()
    digest = await _digest(networks.a)
    kept = await networks.a.lmsf.catalogue.facts(digest)
    assert kept.components == (LIBRARY,)
    assert kept.signer == (of_a.key_id,)
    await networks.a.lmsf.journal.drop("software", digest)
    await networks.a.restart()
    assert await networks.a.lmsf.catalogue.facts(digest) == kept


# ------------------------------------------------------------------------------------------------- states


async def test_a_package_goes_through_its_states(pair: Any) -> None:
    """ONBOARDED until this operator permits it, ENABLED until something runs from it, IN_USE, WITHDRAWN."""
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    digest = await _digest(pair.a)
    at_home = await pair.a.ask("GET", f"{ROOT}/packages/{digest}", status=200)
    assert (at_home["state"], at_home["publishedBy"]) == ("IN_USE", VENDOR)
    assert {(r["network"], r["state"]) for r in at_home["runsAt"]} == {(A, "RUNNING"), (B, "SETTLED")}
    assert {p["network"] for p in at_home["permittedBy"]} == {A, B}
    at_target = await pair.b.ask("GET", f"{ROOT}/packages/{digest}", status=200)
    assert (at_target["state"], at_target["origin"]) == ("IN_USE", A)


async def test_a_package_without_a_permission_is_onboarded_and_with_one_enabled(
    networks: Any, package_bytes: bytes
) -> None:
    package = await networks.a.onboard(package_bytes)
    assert package["state"] == "ONBOARDED"
    await networks.a.permit(package_digest=package["digest"], sbom_digest=package["sbomDigest"])
    shown = await networks.a.ask("GET", f"{ROOT}/packages/{package['digest']}", status=200)
    assert shown["state"] == "ENABLED"


async def test_nothing_begins_with_a_withdrawn_package_and_what_runs_goes_on(pair: Any) -> None:
    digest = await _digest(pair.a)
    path = f"{ROOT}/packages/{digest}"
    shown = await pair.a.ask("POST", f"{path}/withdraw", {"sentence": "1.0.1 replaces it"}, status=200)
    assert shown["state"] == "WITHDRAWN"
    await pair.a.restart()
    await pair.a.lmsf.deployments.settled(SERVICE)
    shown = await pair.a.ask("GET", path, status=200)
    assert (shown["state"], shown["withdrawnWhy"]) == ("WITHDRAWN", "1.0.1 replaces it")
    assert (await pair.a.ask("GET", f"{ROOT}/deployments/{SERVICE}"))["state"] == "RUNNING"
    assert (await pair.migrate(status=409))["cause"] == "PACKAGE_WITHDRAWN"
    impact = await pair.a.ask("GET", f"{path}/impact", status=200)
    assert [reason.partition(":")[0] for reason in impact["notPossible"]] == ["PACKAGE_WITHDRAWN", "SERVICE_EXISTS"]


async def test_an_offer_of_a_package_that_the_target_has_withdrawn(pair: Any, package_bytes: bytes) -> None:
    digest = await _digest(pair.a)
    await pair.b.onboard(package_bytes)
    await pair.b.ask("POST", f"{ROOT}/packages/{digest}/withdraw", {}, status=200)
    await _ended(pair, "PACKAGE_WITHDRAWN")


async def test_withdrawing_what_is_not_there(networks: Any) -> None:
    answer = await networks.a.ask("POST", f"{ROOT}/packages/{'0' * 64}/withdraw", {}, status=404)
    assert answer["cause"] == "PACKAGE_UNKNOWN"
