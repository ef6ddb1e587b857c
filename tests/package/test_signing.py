"""Envelopes: one key, one kind of statement, one way to write it."""

import json
import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from outrider.core import limits
from outrider.core.canonical import NotCanonical, canonical, decode_canonical
from outrider.core.refusal import Refusal, Refused
from outrider.package import signing, vendors

KIND = "application/vnd.test+json"
ONE, TWO = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


def cause(result: object) -> str:
    return result.code if isinstance(result, Refusal) else "good"


def test_what_was_signed_is_verified_by_that_key_only():
    envelope = signing.sign(b"text", KIND, ONE)
    opened = signing.verify(envelope, KIND, [TWO.public_key(), ONE.public_key()])
    assert opened == signing.Opened(b"text", (signing.key_id(ONE.public_key()),))
    assert cause(signing.verify(envelope, KIND, [TWO.public_key()])) == "SIGNER_UNKNOWN"
    assert cause(signing.verify(envelope, KIND, [])) == "SIGNER_UNKNOWN"


def test_a_signature_over_one_kind_of_statement_is_none_over_another():
    envelope = signing.sign(b"text", KIND, ONE)
    assert cause(signing.verify(envelope, "application/other", [ONE.public_key()])) == "ENVELOPE_MALFORMED"
    relabelled = canonical(json.loads(envelope) | {"payloadType": "application/other"})
    assert cause(signing.verify(relabelled, "application/other", [ONE.public_key()])) == "SIGNATURE_INVALID"


def test_two_sign_the_same_bytes():
    envelope = signing.add_signature(signing.sign(b"text", KIND, ONE), KIND, TWO)
    assert isinstance(envelope, bytes)
    opened = signing.verify(envelope, KIND, [ONE.public_key(), TWO.public_key()])
    assert isinstance(opened, signing.Opened)
    assert len(opened.key_ids) == 2
    assert signing.add_signature(envelope, KIND, TWO) == envelope
    assert cause(signing.add_signature(b"{}", KIND, TWO)) == "ENVELOPE_MALFORMED"


def test_one_bad_signature_of_a_known_key_spoils_all():
    good = json.loads(signing.add_signature(signing.sign(b"text", KIND, ONE), KIND, TWO))
    a, b = good["signatures"]
    swapped = canonical(good | {"signatures": [a | {"sig": b["sig"]}, b]})
    assert cause(signing.verify(swapped, KIND, [ONE.public_key(), TWO.public_key()])) == "SIGNATURE_INVALID"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda e: e + b" ",
        lambda e: b" " + e,
        lambda e: e[:-1] + b',"payload":"AA=="}',
        lambda e: e.replace(b'"sig":"', b'"sig":"\\u0041'),
        lambda e: e.replace(b'"payload":"dGV4dA=="', b'"payload":"dGV4dB=="'),
        lambda e: e.replace(b'"payload":"dGV4dA=="', b'"payload":"dGV4dA"'),
        lambda e: e[:10],
        lambda e: b"",
        lambda e: b"\xff",
        lambda e: b"[" * 100_000,
        lambda e: b"x" * (limits.ENVELOPE_BYTES + 1),
    ],
)
def test_an_envelope_has_one_way_to_be_written(spoil):
    envelope = spoil(signing.sign(b"text", KIND, ONE))
    assert cause(signing.verify(envelope, KIND, [ONE.public_key()])) == "ENVELOPE_MALFORMED"


def test_the_number_of_signatures_is_bounded():
    envelope = signing.sign(b"text", KIND, ONE)
    for _ in range(limits.ENVELOPE_SIGNATURES):
        envelope = signing.add_signature(envelope, KIND, Ed25519PrivateKey.generate())
    assert cause(signing.verify(envelope, KIND, [ONE.public_key()])) == "ENVELOPE_MALFORMED"


def test_keys_are_written_for_their_owner_alone_and_never_over_another(tmp_path):
    path = tmp_path / "vendor.key"
    vendor, public = vendors.generate(path, "Acme Rail")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert signing.key_id(signing.load_private(path).public_key()) == signing.key_id(vendor.key)
    assert vendors.read(public) == vendor
    assert vendors.read_all([tmp_path]) == [vendor]
    before = path.read_bytes()
    with pytest.raises(Refused, match="KEY_EXISTS"):
        vendors.generate(path, "Acme Rail")
    assert path.read_bytes() == before


def test_a_private_key_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "vendor.key"
    vendors.generate(path, "Acme Rail")
    path.chmod(0o640)
    with pytest.raises(Refused, match="KEY_EXPOSED"):
        signing.load_private(path)


@pytest.mark.parametrize("data", [b"", b"x", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused(tmp_path, data):
    path = tmp_path / "key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(Refused, match="KEY_INVALID"):
        signing.load_private(path)
    with pytest.raises(Refused, match="KEY_INVALID"):
        signing.load_public(data)


def test_keys_of_another_kind_are_refused(tmp_path):
    other = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "key"
    path.write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    path.chmod(0o600)
    with pytest.raises(Refused, match="KEY_INVALID"):
        signing.load_private(path)
    pem = other.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(Refused, match="KEY_INVALID"):
        signing.load_public(pem)


@pytest.mark.parametrize(
    "head", [b"", b"Vendor: \n", b"Vendor: \xff\n", b"vendor: x\n", b"Vendor: " + b"x" * 81 + b"\n"]
)
def test_a_vendors_file_names_the_vendor(tmp_path, head):
    path = tmp_path / "vendor.pub"
    path.write_bytes(head + signing.public_pem(ONE.public_key()))
    with pytest.raises(Refused, match="KEY_INVALID"):
        vendors.read(path)


@pytest.mark.parametrize("name", ["", "x" * 81, "two\nlines"])
def test_a_vendor_has_a_name_of_one_line(tmp_path, name):
    with pytest.raises(Refused, match="NAME_INVALID"):
        vendors.generate(tmp_path / "vendor.key", name)
    assert list(tmp_path.iterdir()) == []


def test_canonical_json_is_sorted_and_read_only_so():
    assert canonical({"b": 1, "a": {"d": "é", "c": None}}) == '{"a":{"c":null,"d":"é"},"b":1}'.encode()
    for other in (b'{"b":1,"a":2}', b'{"a": 1}', b'{"a":1,"a":1}', b'{"a":1.50}', b'{"a":1e2}', b'{"a":"\\u0061"}'):
        with pytest.raises(NotCanonical):
            decode_canonical(other, dict)
