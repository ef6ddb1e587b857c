"""Permissions: every network concerned, over the same digests, now; each "no" with its own cause."""

import json
from dataclasses import replace
from itertools import count

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from outrider.core.canonical import canonical
from outrider.core.permission import PERMISSION_TYPE, REVOCATION_TYPE, DataPolicy, Permission, Revocation, parties
from outrider.core.refusal import Refusal
from outrider.decide.permit import Hosting, Permitted, Signature, SignedPermission, permit
from outrider.package import signing, statements

A, B, C = "999-70", "999-71-000007ed9d5", "999-72"
KEYS = {network: Ed25519PrivateKey.generate() for network in (A, B, C)}
TRUSTED = {network: [key.public_key()] for network, key in KEYS.items()}
DAY = 86_400_000
NOW = 1_800_000_000_000

_nonces = count()


def permission(signer: str = A, **changes: object) -> Permission:
    terms: dict[str, object] = {
        "service": "roll-call",
        "package_digest": "a" * 64,
        "sbom_digest": "b" * 64,
        "source": A,
        "target": B,
        "home": A,
        "purpose": "rescue",
        "not_before_ms": NOW - DAY,
        "not_after_ms": NOW + DAY,
        "nonce": f"{next(_nonces):032x}",
    }
    return Permission(signer=signer, **(terms | changes))  # type: ignore[arg-type]


HOSTING = Hosting(
    service="roll-call",
    package_digest="a" * 64,
    sbom_digest="b" * 64,
    source=A,
    target=B,
    home=A,
    purpose="rescue",
    ue_group="team-1",
    area=("999-71-0001",),
    data_categories=frozenset({"service", "location"}),
    instances=1,
)


def presented(*permissions: Permission) -> list[SignedPermission | Refusal]:
    """Signed by their signers, handed over as files, and read by another network."""
    files = [statements.sign_permission(p, KEYS[p.signer]) for p in permissions]
    return [statements.read_permission(file, TRUSTED) for file in files]


def decide(
    given: list[SignedPermission | Refusal],
    hosting: Hosting = HOSTING,
    revocations: tuple[Revocation, ...] = (),
    now_ms: int = NOW,
) -> Permitted | list[Refusal]:
    return permit(given, hosting, revocations=revocations, now_ms=now_ms)


def causes(result: Permitted | list[Refusal]) -> list[str]:
    return [r.code for r in result] if isinstance(result, list) else ["permitted"]


def test_both_networks_permit_the_same_software():
    a, b = permission(A), permission(B, not_after_ms=NOW + 5000)
    assert decide(presented(a, b)) == Permitted({A: a.id, B: b.id}, NOW + 5000)


def test_each_network_reads_the_others_permission_with_the_others_key():
    file = statements.sign_permission(permission(A), KEYS[A])
    for reader in (B, C):
        known = {reader: TRUSTED[reader], A: TRUSTED[A]}
        assert statements.read_permission(file, known) == SignedPermission(
            msgspec.structs.replace(statements.show_permission(file)), Signature.VALID
        )
        without = {reader: TRUSTED[reader]}
        signed = statements.read_permission(file, without)
        assert isinstance(signed, SignedPermission)
        assert signed.signature is Signature.SIGNER_UNKNOWN


def test_nothing_is_permitted_without_anybodys_word():
    result = decide([])
    assert causes(result) == ["PERMISSION_MISSING", "PERMISSION_MISSING"]
    assert [r.facts["network"] for r in result] == [A, B]


@pytest.mark.parametrize(("signer", "missing"), [(A, B), (B, A)])
def test_one_network_alone_is_not_enough(signer, missing):
    result = decide(presented(permission(signer)))
    assert isinstance(result, list)
    assert [(r.code, r.facts["network"]) for r in result] == [("PERMISSION_MISSING", missing)]


def test_a_home_that_is_a_third_network_must_permit_too():
    hosting = replace(HOSTING, home=C)
    two = [permission(A, home=C), permission(B, home=C)]
    result = decide(presented(*two), hosting)
    assert isinstance(result, list)
    assert [(r.code, r.facts["network"]) for r in result] == [("PERMISSION_MISSING", C)]
    assert causes(decide(presented(*two, permission(C, home=C)), hosting)) == ["permitted"]
    assert parties(A, B, A) == (A, B)
    assert parties(A, B, C) == (A, B, C)


ALTERED = [
    ({"service": "other"}, "PERMISSION_SERVICE_MISMATCH"),
    ({"package_digest": "c" * 64}, "PERMISSION_PACKAGE_MISMATCH"),
    ({"sbom_digest": "c" * 64}, "PERMISSION_SBOM_MISMATCH"),
    ({"vex_digest": "c" * 64}, "PERMISSION_VEX_MISMATCH"),
    ({"source": C}, "PERMISSION_NETWORK_MISMATCH"),
    ({"target": C}, "PERMISSION_NETWORK_MISMATCH"),
    ({"home": C}, "PERMISSION_NETWORK_MISMATCH"),
    ({"purpose": "advertising"}, "PERMISSION_PURPOSE_MISMATCH"),
    ({"ue_group": "team-2"}, "PERMISSION_UE_GROUP_MISMATCH"),
    ({"area": ("elsewhere",)}, "PERMISSION_AREA_MISMATCH"),
    ({"area": ()}, "PERMISSION_AREA_MISMATCH"),
    ({"data_policy": DataPolicy(categories=("service",))}, "PERMISSION_DATA_NOT_COVERED"),
    ({"data_policy": DataPolicy(categories=())}, "PERMISSION_DATA_NOT_COVERED"),
    ({"not_before_ms": NOW + 1}, "PERMISSION_NOT_YET_VALID"),
    ({"not_after_ms": NOW}, "PERMISSION_EXPIRED"),
]


@pytest.mark.parametrize(("change", "expected"), ALTERED, ids=str)
@pytest.mark.parametrize("signer", [A, B])
def test_a_permission_for_something_else_has_its_own_cause(signer, change, expected):
    other = B if signer == A else A
    result = decide(presented(permission(other), permission(signer, **change)))
    assert causes(result) == [expected]
    assert result[0].facts["network"] == signer
    assert result[0].remedy


@pytest.mark.parametrize("field", [f.encode_name for f in msgspec.structs.fields(Permission)])
def test_every_field_is_under_the_signature(field):
    """Altering any field after signing makes the signature invalid, whatever else it does."""
    file = json.loads(statements.sign_permission(permission(A), KEYS[A]))
    payload = json.loads(signing.open_envelope(canonical(file), PERMISSION_TYPE).payload)  # type: ignore[union-attr]
    new = {
        "notBeforeMs": 1,
        "notAfterMs": NOW + 365 * DAY,
        "maxInstances": 99,
        "dataPolicy": {"categories": []},
        "area": ["x"],
        "nonce": "f" * 32,
        "signer": B,
        "source": C,
        "target": C,
        "home": C,
    }
    digest = field.endswith("Digest")
    payload[field] = new.get(field, "d" * 64 if digest else "other")
    import base64

    file["payload"] = base64.b64encode(canonical(payload)).decode()
    signed = statements.read_permission(canonical(file), TRUSTED)
    assert isinstance(signed, SignedPermission)
    assert signed.signature is (Signature.SIGNER_UNKNOWN if field == "signer" else Signature.INVALID)
    expected = "PERMISSION_SIGNER_UNKNOWN" if field == "signer" else "PERMISSION_SIGNATURE_INVALID"
    assert expected in causes(decide([signed, *presented(permission(B))] if field != "signer" else [signed]))


@pytest.mark.parametrize("signature", [Signature.INVALID, Signature.SIGNER_UNKNOWN])
def test_a_bad_signature_beside_a_good_one_does_no_harm(signature):
    bad = SignedPermission(permission(A), signature)
    assert causes(decide([bad, *presented(permission(A), permission(B))])) == ["permitted"]
    alone = causes(decide([bad, *presented(permission(B))]))
    assert alone == [f"PERMISSION_{signature.name}" if signature.value != "invalid" else "PERMISSION_SIGNATURE_INVALID"]


def test_a_permission_signed_by_another_network_is_not_this_networks_word():
    forged = statements.read_permission(statements.sign_permission(permission(A), KEYS[B]), TRUSTED)
    assert causes(decide([forged, *presented(permission(B))])) == ["PERMISSION_SIGNER_UNKNOWN"]


def test_the_times_are_half_open():
    given = presented(permission(A), permission(B))
    assert causes(decide(given, now_ms=NOW - DAY)) == ["permitted"]
    assert causes(decide(given, now_ms=NOW - DAY - 1)) == ["PERMISSION_NOT_YET_VALID"] * 2
    assert causes(decide(given, now_ms=NOW + DAY - 1)) == ["permitted"]
    assert causes(decide(given, now_ms=NOW + DAY)) == ["PERMISSION_EXPIRED"] * 2


def test_more_hosts_than_permitted_are_refused():
    given = presented(permission(A, max_instances=3), permission(B, max_instances=2))
    assert causes(decide(given, replace(HOSTING, instances=2))) == ["permitted"]
    result = decide(given, replace(HOSTING, instances=3))
    assert isinstance(result, list)
    assert [(r.code, r.facts["network"]) for r in result] == [("PERMISSION_INSTANCES_EXCEEDED", B)]


def test_limits_that_are_wide_enough_permit():
    wide = {
        "ue_group": "team-1",
        "area": ("x", "999-71-0001"),
        "data_policy": DataPolicy(categories=("location", "service", "policy")),
    }
    assert causes(decide(presented(permission(A, **wide), permission(B, **wide)))) == ["permitted"]


def test_a_limited_permission_does_not_cover_an_unlimited_hosting():
    given = presented(permission(A, ue_group="team-1", area=("x",)), permission(B))
    unlimited = replace(HOSTING, ue_group=None, area=None)
    assert causes(decide(given, unlimited)) == ["PERMISSION_UE_GROUP_MISMATCH", "PERMISSION_AREA_MISMATCH"]


def test_all_reasons_are_told():
    bad = permission(A, package_digest="c" * 64, not_after_ms=NOW - 1, purpose="x")
    result = decide(presented(bad))
    assert causes(result) == [
        "PERMISSION_PACKAGE_MISMATCH",
        "PERMISSION_PURPOSE_MISMATCH",
        "PERMISSION_EXPIRED",
        "PERMISSION_MISSING",
    ]


def test_a_file_that_cannot_be_read_is_a_reason_too():
    broken = statements.read_permission(b"{}", TRUSTED)
    assert isinstance(broken, Refusal)
    assert causes(decide([broken])) == ["ENVELOPE_MALFORMED", "PERMISSION_MISSING", "PERMISSION_MISSING"]
    assert causes(decide([broken, *presented(permission(A), permission(B))])) == ["permitted"]


def test_a_network_that_is_no_party_does_not_count():
    stranger = presented(permission(C))
    assert causes(decide([*presented(permission(A), permission(B)), *stranger])) == ["permitted"]
    assert causes(decide(stranger)) == ["PERMISSION_MISSING", "PERMISSION_MISSING", "PERMISSION_NETWORK_MISMATCH"]


def test_the_permission_that_ends_last_counts():
    short, long = permission(A, not_after_ms=NOW + 10), permission(A)
    b = permission(B)
    for order in ((short, long), (long, short)):
        assert decide(presented(*order, b)) == Permitted({A: long.id, B: b.id}, NOW + DAY)


class TestRevocation:
    """Taking back: by its signer only, and at once."""

    @staticmethod
    def revocation(signer: str, of: Permission) -> Revocation:
        return Revocation(signer=signer, permission_id=of.id, revoked_at_ms=NOW, reason="over")

    def test_a_permission_that_was_taken_back_is_none(self):
        a, b = permission(A), permission(B)
        result = decide(presented(a, b), revocations=(self.revocation(B, b),))
        assert causes(result) == ["PERMISSION_REVOKED"]
        assert "over" in result[0].sentence

    def test_only_its_signer_can_take_it_back(self):
        a, b = permission(A), permission(B)
        assert causes(decide(presented(a, b), revocations=(self.revocation(A, b),))) == ["permitted"]

    def test_the_same_terms_signed_again_hold(self):
        a, b = permission(A), permission(B)
        again = permission(B)
        assert causes(decide(presented(a, b, again), revocations=(self.revocation(B, b),))) == ["permitted"]

    def test_a_revocation_is_read_with_its_signers_key(self):
        revocation = self.revocation(B, permission(B))
        assert statements.read_revocation(statements.sign_revocation(revocation, KEYS[B]), TRUSTED) == revocation
        forged = statements.read_revocation(statements.sign_revocation(revocation, KEYS[A]), TRUSTED)
        assert isinstance(forged, Refusal)
        assert forged.code == "SIGNER_UNKNOWN"
        file = json.loads(statements.sign_revocation(revocation, KEYS[B]))
        file["signatures"][0]["sig"] = file["signatures"][0]["sig"][::-1]
        assert isinstance(statements.read_revocation(canonical(file), TRUSTED), Refusal)

    def test_a_permission_is_no_revocation(self):
        file = statements.sign_permission(permission(A), KEYS[A])
        result = statements.read_revocation(file, TRUSTED)
        assert isinstance(result, Refusal)
        assert result.code == "ENVELOPE_MALFORMED"
        wrong = signing.sign(permission(A).encode(), REVOCATION_TYPE, KEYS[A])
        result = statements.read_revocation(wrong, TRUSTED)
        assert isinstance(result, Refusal)
        assert result.code == "REVOCATION_MALFORMED"


@pytest.mark.parametrize(
    "change",
    [
        {"source": "99970"},
        {"target": "999-71-000007ED9D5"},
        {"target": A},
        {"notAfterMs": NOW - 2 * DAY},
        {"notBeforeMs": -1},
        {"maxInstances": 0},
        {"nonce": "x"},
        {"packageDigest": "A" * 64},
        {"service": "Roll Call"},
        {"purpose": ""},
        {"purpose": "two\nlines"},
        {"more": 1},
        {"area": "x"},
    ],
    ids=str,
)
def test_a_permission_that_makes_no_sense_cannot_be_read(change):
    payload = canonical(json.loads(permission(A).encode()) | change)
    result = statements.read_permission(signing.sign(payload, PERMISSION_TYPE, KEYS[A]), TRUSTED)
    assert isinstance(result, Refusal)
    assert result.code == "PERMISSION_MALFORMED"


def test_a_permission_says_everything_that_it_could():
    payload = json.loads(permission(A).encode())
    del payload["area"]
    result = statements.read_permission(signing.sign(canonical(payload), PERMISSION_TYPE, KEYS[A]), TRUSTED)
    assert isinstance(result, Refusal)
    assert result.code == "PERMISSION_MALFORMED"
