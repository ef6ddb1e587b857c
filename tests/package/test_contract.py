"""Contracts: the same bytes, signed by every party."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from outrider.core.canonical import canonical
from outrider.core.contract import CONTRACT_TYPE, Contract, Window
from outrider.core.refusal import Refusal
from outrider.decide.permit import Hosting
from outrider.package import signing, statements

A, B, C = "999-70", "999-71", "999-72"
KEYS = {network: Ed25519PrivateKey.generate() for network in (A, B, C)}
TRUSTED = {network: [key.public_key()] for network, key in KEYS.items()}


def contract(**changes: object) -> Contract:
    terms: dict[str, object] = {
        "contract_id": "c-1",
        "service": "roll-call",
        "version": "1.2.0",
        "package_digest": "a" * 64,
        "sbom_digest": "b" * 64,
        "source": A,
        "target": B,
        "home": A,
        "window": Window(start_ms=1000, end_ms=9000),
        "deadline_ms": 5000,
        "max_ues": 300,
        "purpose": "rescue",
    }
    return Contract(**(terms | changes))  # type: ignore[arg-type]


def signed(terms: Contract, *networks: str) -> bytes:
    envelope = statements.sign_contract(terms, KEYS[networks[0]])
    for network in networks[1:]:
        more = statements.countersign_contract(envelope, KEYS[network])
        assert isinstance(more, bytes)
        envelope = more
    return envelope


def causes(result: Contract | list[Refusal]) -> list[tuple[str, str]]:
    return [(r.code, r.facts.get("network", "")) for r in result] if isinstance(result, list) else [("signed", "")]


def test_a_contract_holds_when_all_parties_signed_it():
    terms = contract(home=C)
    assert statements.read_contract(signed(terms, A, B, C), TRUSTED) == terms
    assert causes(statements.read_contract(signed(terms, A, B), TRUSTED)) == [("CONTRACT_NOT_SIGNED", C)]
    assert causes(statements.read_contract(signed(terms, C), TRUSTED)) == [
        ("CONTRACT_NOT_SIGNED", A),
        ("CONTRACT_NOT_SIGNED", B),
    ]


def test_the_order_of_signing_does_not_matter():
    terms = contract()
    assert signed(terms, A, B) == signed(terms, B, A)


def test_an_offer_has_the_offering_partys_signature():
    terms = contract()
    assert statements.read_contract(signed(terms, A), TRUSTED, by=[A]) == terms
    assert causes(statements.read_contract(signed(terms, A), TRUSTED, by=[B])) == [("CONTRACT_NOT_SIGNED", B)]


def test_a_party_whose_key_is_not_known_has_not_signed():
    assert causes(statements.read_contract(signed(contract(), A, B), {A: TRUSTED[A]})) == [("CONTRACT_NOT_SIGNED", B)]


def test_a_network_may_have_two_keys_while_it_changes_them():
    new = Ed25519PrivateKey.generate().public_key()
    assert causes(statements.read_contract(signed(contract(), A, B), TRUSTED | {B: [new, *TRUSTED[B]]})) == [
        ("signed", "")
    ]


def test_a_signature_over_other_terms_does_not_fit():
    one, other = json.loads(signed(contract(), A, B)), json.loads(signed(contract(max_ues=301), A, B))
    mixed = canonical(one | {"signatures": [one["signatures"][0], other["signatures"][1]]})
    result = statements.read_contract(mixed, TRUSTED)
    assert [code for code, _ in causes(result)] == ["CONTRACT_SIGNATURE_INVALID"]


def test_every_term_changes_the_digest():
    assert contract().digest == contract().digest
    assert contract().digest != contract(mode="sync").digest
    assert b"digestKey" not in contract().encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"deadline_ms": 9001},
        {"deadline_ms": 1000},
        {"target": A},
        {"source": "A"},
    ],
    ids=str,
)
def test_terms_that_make_no_sense_are_no_contract(changes):
    with pytest.raises(ValueError, match=r"."):
        contract(**changes)


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "maybe"},
        {"arrivalEvidence": "none"},
        {"maxUes": 0},
        {"tariff": 1},
        {"window": {"startMs": 2, "endMs": 1}},
    ],
    ids=str,
)
def test_a_contract_that_does_not_fit_the_schema_cannot_be_read(change):
    payload = canonical(json.loads(contract().encode()) | change)
    result = statements.read_contract(signing.sign(payload, CONTRACT_TYPE, KEYS[A]), TRUSTED)
    assert isinstance(result, list)
    assert [r.code for r in result] == ["CONTRACT_MALFORMED"]


def test_what_a_contract_asks_for_is_what_is_to_be_permitted():
    terms = contract(ue_group="team-1", area=("x",))
    hosting = Hosting.under(terms, data_categories=["service"], instances=1)
    assert (hosting.package_digest, hosting.ue_group, hosting.area) == (terms.package_digest, "team-1", ("x",))
    assert (hosting.source, hosting.target, hosting.home, hosting.purpose) == (A, B, A, "rescue")
