"""Who may ask what: tokens by scope, the operator's APIs for the own network only, a partner for its own migrations."""

from typing import Any

import msgspec
import pytest

from outrider.sbi.http import Request

A, B = "999-70", "999-71-000007ed9d5"
MIGRATIONS = "/nlmsf-migration/v1/migrations"


def _token(network: Any, scope: str, **claims: Any) -> dict[str, str]:
    token = network.issuer.issue(subject="somebody", audience=claims.pop("audience", "LMSF"), scope=scope, **claims)
    return {"authorization": f"Bearer {token}"}


async def test_without_a_token(networks: Any) -> None:
    answer = await networks.a.faces.router(Request("GET", MIGRATIONS))
    assert (answer.status, answer.json()["cause"]) == (401, "TOKEN_MISSING")


@pytest.mark.parametrize(
    ("claims", "scope", "cause"),
    [
        ({}, "nlmsf-catalogue", "SCOPE_INSUFFICIENT"),
        ({"audience": "SMF"}, "nlmsf-migration", "TOKEN_INVALID"),
        ({"ttl_s": -100}, "nlmsf-migration", "TOKEN_INVALID"),
        ({"consumer_plmn": {"mcc": "999", "mnc": "71", "nid": "000007ed9d5"}}, "nlmsf-migration", "CONSUMER_MISMATCH"),
    ],
)
async def test_a_token_that_does_not_allow_it(networks: Any, claims: dict[str, Any], scope: str, cause: str) -> None:
    answer = await networks.a.faces.router(Request("GET", MIGRATIONS, headers=_token(networks.a, scope, **claims)))
    assert answer.json()["cause"] == cause


async def test_a_token_of_another_networks_nrf(networks: Any) -> None:
    answer = await networks.a.faces.router(Request("GET", MIGRATIONS, headers=_token(networks.b, "nlmsf-migration")))
    assert (answer.status, answer.json()["cause"]) == (401, "TOKEN_INVALID")


async def test_the_own_networks_token_is_none_for_a_partners_listener(networks: Any) -> None:
    router = networks.a.faces.partner_router(B)
    request = Request("POST", "/nlmsf-negotiation/v1/offers", headers=_token(networks.a, "nlmsf-negotiation"))
    assert (await router(request)).json()["cause"] == "CONSUMER_MISMATCH"


async def test_the_operators_apis_are_not_on_a_partners_listener(networks: Any) -> None:
    router = networks.a.faces.partner_router(B)
    for method, path in (("POST", MIGRATIONS), ("POST", "/nlmsf-catalogue/v1/deployments")):
        request = Request(method, path, headers=_token(networks.a, path.split("/")[1]))
        assert (await router(request)).status == 404


async def _as(networks: Any, other: str, method: str, path: str, json: object) -> Any:
    """A request of another partner of A, with a good token."""
    scope = path.split("/")[1]
    sent = _token(networks.a, scope, consumer_plmn={"mcc": "001", "mnc": "01"})
    request = Request(method, path, headers=sent, body=msgspec.json.encode(json))
    return (await networks.a.faces.partner_router(other)(request)).json()


async def test_another_partners_migration_does_not_exist_for_a_partner(pair: Any) -> None:
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    path = f"/nlmsf-negotiation/v1/migrations/{name}/view"
    view = pair.b.lmsf.get(name).view(A)
    assert (await _as(pair, "001-01", "PUT", path, view))["cause"] == "MIGRATION_UNKNOWN"
    assert (await _as(pair, "001-01", "GET", path, {}))["cause"] == "MIGRATION_UNKNOWN"


async def test_a_view_of_another_side_is_refused(pair: Any) -> None:
    name = (await pair.migrate(move_all=True))["migrationId"]
    await pair.reach(name, "SETTLED")
    path = f"/nlmsf-negotiation/v1/migrations/{name}/view"
    view = pair.b.lmsf.get(name).view(A)
    for changes in ({"network": A}, {"migration_id": "m-other"}, {"role": pair.a.lmsf.get(name).row.role}):
        wrong = msgspec.structs.replace(view, **changes)
        answer = await pair.b.request(A, "PUT", path, scope="nlmsf-negotiation", json=wrong)
        assert (answer.status, answer.json()["cause"]) == (403, "VIEW_MISMATCH")
    assert pair.a.lmsf.get(name).row.phase.value == "SETTLED"


async def test_a_source_that_skips_the_permissions_is_stopped(pair: Any) -> None:
    name, _ = await pair.held_in("PERMITTING")
    view = msgspec.structs.replace(pair.a.lmsf.get(name).view(B), phase="COPYING")
    path = f"/nlmsf-negotiation/v1/migrations/{name}/view"
    await pair.a.request(B, "PUT", path, scope="nlmsf-negotiation", json=view)
    _, target = await pair.ended(name)
    assert (target["phase"], target["ending"]["cause"]) == ("ABORTED", "PARTNER_OUT_OF_ORDER")


async def test_an_offer_that_somebody_else_signed(pair: Any) -> None:
    from outrider.core.contract import CONTRACT_TYPE
    from outrider.functions.lmsf import negotiation
    from outrider.functions.lmsf.record import Offer

    name, _ = await pair.held_in("NEGOTIATING")
    record = pair.a.lmsf.get(name).record
    contract = negotiation.terms_of(record.contract)
    await pair.a.lmsf.get(name).stop()  # its own offer must not come in between
    for envelope, cause in (
        (pair.b.signer.sign(contract.encode(), CONTRACT_TYPE), "CONTRACT_NOT_SIGNED"),
        (b"{}", "ENVELOPE_MALFORMED"),
    ):
        offer = Offer(migration_id=name, contract=envelope.decode(), manifest=record.manifest, package_bytes=1)
        pair.a.intercept = lambda method, path: None
        answer = await pair.a.request(B, "POST", "/nlmsf-negotiation/v1/offers", scope="nlmsf-negotiation", json=offer)
        assert answer.json()["cause"] == cause
        assert pair.b.lmsf.get(name) is None or cause == "ENVELOPE_MALFORMED"


async def test_an_offer_whose_words_differ_from_its_contract(pair: Any) -> None:
    from outrider.functions.lmsf.record import Offer

    name, _ = await pair.held_in("NEGOTIATING")
    record = pair.a.lmsf.get(name).record
    pair.a.intercept = lambda method, path: None
    offer = Offer(migration_id="m-other", contract=record.contract, manifest=record.manifest, package_bytes=1)
    answer = await pair.a.request(B, "POST", "/nlmsf-negotiation/v1/offers", scope="nlmsf-negotiation", json=offer)
    assert answer.json()["cause"] == "OFFER_MISMATCH"


async def test_the_same_offer_twice_is_one_migration(pair: Any) -> None:
    from outrider.functions.lmsf.record import Offer

    name = (await pair.migrate(move_all=True))["migrationId"]
    before = pair.a.lmsf.get(name).record
    offer = Offer(
        migration_id=name, contract=before.contract, manifest=before.manifest, package_bytes=before.package_bytes
    )
    await pair.reach(name, "SETTLED")
    answer = await pair.a.request(B, "POST", "/nlmsf-negotiation/v1/offers", scope="nlmsf-negotiation", json=offer)
    assert answer.status == 201
    assert answer.json()["contract"] == pair.a.lmsf.get(name).record.contract
    assert len(pair.b.lmsf.all()) == 1


async def test_a_partner_presents_only_its_own_permissions(pair: Any) -> None:
    name, _ = await pair.held_in("PERMITTING")
    foreign = pair.b.lmsf.permissions.exchange("group-coordination").permissions
    pair.a.intercept = lambda method, path: None
    answer = await pair.a.request(
        B, "PUT", f"/nlmsf-permission/v1/migrations/{name}/exchange", scope="nlmsf-permission",
        json={"permissions": foreign},
    )  # fmt: skip
    assert "PERMISSION_NOT_THEIRS" in [r["code"] for r in answer.json()["refusals"]]


async def test_a_partner_revokes_only_its_own_permissions(networks: Any) -> None:
    from outrider.core.permission import Revocation
    from outrider.package import statements

    mine = await networks.a.permit()
    for signer, cause in ((A, "SIGNER_UNKNOWN"), (B, None)):
        revocation = Revocation(signer=signer, permission_id=mine, revoked_at_ms=0)
        envelope = statements.sign_revocation(revocation, networks.b.operator_key)
        answer = await networks.b.request(
            A, "POST", "/nlmsf-permission/v1/revocations", scope="nlmsf-permission", body=envelope
        )
        assert answer.json().get("cause") == cause
    assert (await networks.a.ask("GET", f"/nlmsf-permission/v1/permissions/{mine}"))["state"] == "VALID"


async def test_permissions_are_listed_with_what_they_are_worth(networks: Any) -> None:
    good = await networks.a.permit()
    bad = await networks.a.permit(networks.b.operator_key, nonce="0" * 32)
    listed = (await networks.a.ask("GET", "/nlmsf-permission/v1/permissions"))["permissions"]
    assert {p["id"]: p["state"] for p in listed} == {good: "VALID", bad: "SIGNER_UNKNOWN"}
    await networks.a.revoke(good)
    assert (await networks.a.ask("GET", f"/nlmsf-permission/v1/permissions/{good}"))["state"] == "REVOKED"
    await networks.a.restart()
    assert (await networks.a.ask("GET", f"/nlmsf-permission/v1/permissions/{good}"))["state"] == "REVOKED"
