"""Whose signature counts: keys in their time, certificate chains, and what was revoked, by whom."""

import datetime as dt
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from outrider.core import limits
from outrider.core.canonical import canonical
from outrider.core.refusal import Refusal, Refused
from outrider.core.revoked import Entry, RevocationList
from outrider.package import layout, revocations, signing, vendors
from outrider.package.revocations import Revocations
from outrider.package.trust import Revoked
from outrider.package.vendors import TrustedVendor
from outrider.package.verify import Verified, verify
from support.hostile import get, other, places, put, show, without, wrong_type

NOW = dt.datetime.now(dt.UTC)
TODAY = NOW.date()
DAY = dt.timedelta(days=1)
OWN = "999-70"


def cause(result: object) -> str:
    return result.code if isinstance(result, Refusal) else "good"


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Issuer:
    """A certificate authority."""

    def __init__(self, text: str, by: "Issuer | None" = None, days: int = 30) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.text = text
        self.certificate = (by or self).issue(text, self.key.public_key(), authority=True, days=days)

    def issue(
        self, subject: str, key, *, authority: bool = False, usage=ExtendedKeyUsageOID.CODE_SIGNING, days: int = 30
    ) -> x509.Certificate:
        keys = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
        made = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(self.text))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 10 * DAY)
            .not_valid_after(NOW + days * DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(keys, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if usage is not None and not authority:
            made = made.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return made.sign(self.key, hashes.SHA256())


def der(*certificates: x509.Certificate) -> list[bytes]:
    return [c.public_bytes(serialization.Encoding.DER) for c in certificates]


def digest(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


ROOT = Issuer("Acme Root")
BETWEEN = Issuer("Acme Signing", ROOT)
ACME = TrustedVendor("Acme Rail", None, ROOT.certificate)


@pytest.fixture
def signed(sample, pack) -> Callable[..., Path]:
    """The sample with other signatures: pairs of a key and its chain."""

    def write(*by: tuple[Ed25519PrivateKey, list[bytes]]) -> Path:
        members = sample.members()
        statement = signing.open_envelope(members[layout.SIGNATURE], signing.IN_TOTO_TYPE)
        assert not isinstance(statement, Refusal)
        envelope: bytes | Refusal = b""
        for key, chain in by:
            first = envelope == b""
            envelope = (
                signing.sign(statement.payload, signing.IN_TOTO_TYPE, key, chain)
                if first
                else signing.add_signature(envelope, signing.IN_TOTO_TYPE, key, chain)  # type: ignore[arg-type]
            )
        assert isinstance(envelope, bytes)
        return pack(members | {layout.SIGNATURE: envelope})

    return write


# ------------------------------------------------------------------------------------------------- chains


def test_a_key_that_the_vendors_authority_certifies_counts(signed):
    key = Ed25519PrivateKey.generate()
    leaf = BETWEEN.issue("build 7", key.public_key())
    verified = verify(signed((key, der(leaf, BETWEEN.certificate))), [ACME])
    assert isinstance(verified, Verified), verified
    assert verified.vendor_key == signing.key_id(key.public_key())
    assert verified.certificates == (digest(leaf), digest(BETWEEN.certificate))


def test_a_key_that_the_authority_itself_certifies_counts(signed):
    key = Ed25519PrivateKey.generate()
    assert cause(verify(signed((key, der(ROOT.issue("b", key.public_key())))), [ACME])) == "good"


def test_chains_that_do_not_count(signed):
    key, stranger = Ed25519PrivateKey.generate(), Issuer("Acme Root")
    leaf = BETWEEN.issue("build 7", key.public_key())
    other_key = BETWEEN.issue("build 7", Ed25519PrivateKey.generate().public_key())
    old = Issuer("Old", ROOT, days=-1)
    wrong = {
        "no certificate": ([], "VENDOR_UNKNOWN"),
        "the one between is missing": (der(leaf), "VENDOR_CHAIN_INVALID"),
        "another root of that name": (der(stranger.issue("b", key.public_key())), "VENDOR_CHAIN_INVALID"),
        "another key": (der(other_key, BETWEEN.certificate), "VENDOR_CHAIN_INVALID"),
        "ended": (der(ROOT.issue("b", key.public_key(), days=-1)), "VENDOR_CHAIN_INVALID"),
        "the one between has ended": (der(old.issue("b", key.public_key()), old.certificate), "VENDOR_CHAIN_INVALID"),
        "for something else": (
            der(ROOT.issue("b", key.public_key(), usage=ExtendedKeyUsageOID.CLIENT_AUTH)),
            "VENDOR_CHAIN_INVALID",
        ),
        "for nothing": (der(ROOT.issue("b", key.public_key(), usage=None)), "VENDOR_CHAIN_INVALID"),
        "no certificates at all": ([b"x", b""], "VENDOR_CHAIN_INVALID"),
        "the authority alone": (der(ROOT.certificate), "VENDOR_CHAIN_INVALID"),
    }
    for what, (chain, expected) in wrong.items():
        assert cause(verify(signed((key, chain)), [ACME])) == expected, what


def test_a_certified_key_cannot_certify_another(signed):
    """A leaf is no authority, whatever it signs."""
    leaf_key = Issuer("leaf")
    leaf_key.certificate = ROOT.issue("leaf", leaf_key.key.public_key())
    key = Ed25519PrivateKey.generate()
    chain = der(leaf_key.issue("b", key.public_key()), leaf_key.certificate)
    assert cause(verify(signed((key, chain)), [ACME])) == "VENDOR_CHAIN_INVALID"


def test_one_vendors_authority_does_not_vouch_for_another(signed):
    key, works = Ed25519PrivateKey.generate(), Issuer("Other Works")
    path = signed((key, der(works.issue("b", key.public_key()))))
    assert cause(verify(path, [ACME, TrustedVendor("Other Works", None, works.certificate)])) == "VENDOR_MISMATCH"


def test_a_certified_signature_over_something_else_does_not_fit(sample, signed, pack):
    key = Ed25519PrivateKey.generate()
    path = signed((key, der(ROOT.issue("b", key.public_key()))))
    import zipfile

    envelope = json.loads(zipfile.ZipFile(path).read(layout.SIGNATURE))
    envelope["signatures"][0]["sig"] = json.loads(sample.members()[layout.SIGNATURE])["signatures"][0]["sig"]
    spoilt = pack(sample.members() | {layout.SIGNATURE: canonical(envelope)})
    assert cause(verify(spoilt, [ACME])) == "SIGNATURE_INVALID"


def test_certificates_belong_to_vendors_only():
    from outrider.core.permission import PERMISSION_TYPE

    envelope = signing.sign(b"{}", PERMISSION_TYPE, Ed25519PrivateKey.generate(), [b"x"])
    assert cause(signing.open_envelope(envelope, PERMISSION_TYPE)) == "ENVELOPE_MALFORMED"


# ------------------------------------------------------------------------------------------------ rotation


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, None, "good"),
        (TODAY, TODAY, "good"),
        (TODAY - DAY, TODAY + DAY, "good"),
        (None, TODAY - DAY, "VENDOR_KEY_EXPIRED"),
        (TODAY + DAY, None, "VENDOR_KEY_EXPIRED"),
    ],
)
def test_a_key_counts_in_its_time(sample, before, after, expected):
    vendor = TrustedVendor("Acme Rail", sample.vendor.key, None, before, after)
    assert cause(verify(sample.path, [vendor], at=NOW)) == expected


def test_while_a_key_is_replaced_a_package_of_either_or_both_is_taken(sample, signed):
    new = Ed25519PrivateKey.generate()
    old = TrustedVendor("Acme Rail", sample.vendor.key, None, None, TODAY)
    both = [old, TrustedVendor("Acme Rail", new.public_key(), None, TODAY, None)]
    for path in (sample.path, signed((new, [])), signed((sample.key, []), (new, []))):
        assert cause(verify(path, both, at=NOW)) == "good"
    later = NOW + 2 * DAY
    assert cause(verify(sample.path, both, at=later)) == "VENDOR_KEY_EXPIRED"
    verified = verify(signed((sample.key, []), (new, [])), both, at=later)
    assert isinstance(verified, Verified)
    assert verified.vendor_key == signing.key_id(new.public_key())


def test_a_vendors_file_says_when_its_key_counts(tmp_path):
    made, public = vendors.generate(tmp_path / "v.key", "Acme Rail", TODAY, TODAY + DAY)
    assert vendors.read(public) == made
    authority = tmp_path / "ca.pub"
    authority.write_bytes(ACME.encode())
    assert vendors.read(authority) == ACME
    for line in ("Not-After: soon", "Not-After: 2027-13-01", "Not-After: 20270101", "Colour: red"):
        (tmp_path / "x.pub").write_bytes(made.encode().replace(b"Vendor: Acme Rail\n", f"Vendor: A\n{line}\n".encode()))
        with pytest.raises(Refused, match="KEY_INVALID"):
            vendors.read(tmp_path / "x.pub")


# ---------------------------------------------------------------------------------------------- revocation


def listed(*entries: tuple[str, str], issuer: str = "Acme Rail", sequence: int = 1) -> RevocationList:
    made = tuple(Entry(kind=k, id=i, revoked_at_ms=1, reason="stolen") for k, i in sorted(entries))  # type: ignore[arg-type]
    return RevocationList(issuer=issuer, sequence=sequence, issued_at_ms=1, entries=made)


def revoked(*entries: tuple[str, str], issuer: str = "Acme Rail") -> Revoked:
    found = listed(*entries, issuer=issuer)
    return Revoked({(e.kind, e.id): {issuer: e} for e in found.entries}, OWN)


@pytest.mark.parametrize(
    ("issuer", "counts"), [("Acme Rail", True), (OWN, True), ("Other Works", False), ("999-71", False)]
)
def test_a_key_is_revoked_by_its_vendor_or_the_own_operator_alone(sample, issuer, counts):
    taken = revoked(("key", signing.key_id(sample.vendor.key)), issuer=issuer)
    assert cause(verify(sample.path, [sample.vendor], revoked=taken)) == ("SIGNER_REVOKED" if counts else "good")


@pytest.mark.parametrize(
    ("issuer", "counts"), [("Acme Rail", True), (OWN, True), ("Other Works", False), ("999-71", False)]
)
def test_a_package_is_revoked_by_its_vendor_or_the_own_operator_alone(sample, issuer, counts):
    taken = revoked(("package", sample.built.package_digest), issuer=issuer)
    result = verify(sample.path, [sample.vendor], revoked=taken)
    assert cause(result) == ("PACKAGE_REVOKED" if counts else "good")
    if isinstance(result, Refusal):
        assert "stolen" in result.sentence


@pytest.mark.parametrize("which", [0, 1])
def test_a_revoked_certificate_anywhere_in_the_chain_ends_it(signed, which):
    key = Ed25519PrivateKey.generate()
    chain = [BETWEEN.issue("build 7", key.public_key()), BETWEEN.certificate]
    path = signed((key, der(*chain)))
    taken = revoked(("certificate", digest(chain[which])))
    assert cause(verify(path, [ACME], revoked=taken)) == "SIGNER_REVOKED"


def test_a_package_signed_anew_outlives_the_stolen_key(sample, signed):
    new = Ed25519PrivateKey.generate()
    trusted = [sample.vendor, TrustedVendor("Acme Rail", new.public_key())]
    taken = revoked(("key", signing.key_id(sample.vendor.key)))
    assert cause(verify(sample.path, trusted, revoked=taken)) == "SIGNER_REVOKED"
    assert cause(verify(signed((sample.key, []), (new, [])), trusted, revoked=taken)) == "good"


class TestLists:
    """Lists as they come and go."""

    @pytest.fixture
    def own(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.generate()

    @pytest.fixture
    def folder(self, tmp_path, own) -> Revocations:
        return Revocations(tmp_path / "revoked", OWN, own.public_key())

    def add(self, folder: Revocations, found: RevocationList, key: Ed25519PrivateKey, *trusted: TrustedVendor) -> str:
        try:
            folder.add(revocations.sign(found, key), trusted, NOW)
        except Refused as refused:
            return refused.refusal.code
        return "good"

    def test_a_vendors_and_the_operators_own_lists_count(self, folder, own, sample):
        assert self.add(folder, listed(("key", "a" * 64)), sample.key, sample.vendor) == "good"
        assert self.add(folder, listed(("package", "b" * 64), issuer=OWN), own) == "good"
        assert folder.load().entries.keys() == {("key", "a" * 64), ("package", "b" * 64)}

    def test_nobody_speaks_for_another(self, folder, own, sample):
        stranger = Ed25519PrivateKey.generate()
        assert self.add(folder, listed(), stranger, sample.vendor) == "VENDOR_UNKNOWN"
        assert self.add(folder, listed(issuer=OWN), sample.key, sample.vendor) == "VENDOR_UNKNOWN"
        assert self.add(folder, listed(issuer="Other Works"), sample.key, sample.vendor) == "VENDOR_UNKNOWN"
        assert self.add(folder, listed(), own, sample.vendor) == "VENDOR_UNKNOWN"
        assert folder.all() == []

    def test_a_number_never_goes_back(self, folder, sample):
        second = listed(("key", "a" * 64), sequence=2)
        assert self.add(folder, second, sample.key, sample.vendor) == "good"
        assert self.add(folder, second, sample.key, sample.vendor) == "good", "the same list is the same"
        assert self.add(folder, listed(sequence=1), sample.key, sample.vendor) == "REVOCATIONS_OLD"
        assert self.add(folder, listed(sequence=2), sample.key, sample.vendor) == "REVOCATIONS_OLD"
        assert folder.load().entries.keys() == {("key", "a" * 64)}
        assert self.add(folder, listed(sequence=3), sample.key, sample.vendor) == "good"

    def test_a_list_that_is_taken_away_or_exchanged_stops_everything(self, folder, sample, tmp_path, own):
        self.add(folder, listed(sequence=1), sample.key, sample.vendor)
        (path,) = [p for p in (tmp_path / "revoked").iterdir() if p.name != "seen.json"]
        shutil.copy(path, tmp_path / "first")
        self.add(folder, listed(("key", "a" * 64), sequence=2), sample.key, sample.vendor)
        shutil.copy(path, tmp_path / "second")
        for act in (lambda: shutil.copy(tmp_path / "first", path), path.unlink):
            act()
            with pytest.raises(Refused, match="REVOCATIONS_OLD"):
                folder.load()
            with pytest.raises(Refused, match="REVOCATIONS_OLD"):
                Revocations(tmp_path / "revoked", OWN, own.public_key()).load()
        folder.add((tmp_path / "second").read_bytes(), [sample.vendor], NOW)
        assert folder.load().entries.keys() == {("key", "a" * 64)}, "the same list is put back"

    def test_a_lost_list_is_put_back_by_adding_the_next_one(self, folder, sample, tmp_path):
        self.add(folder, listed(sequence=2), sample.key, sample.vendor)
        (path,) = [p for p in (tmp_path / "revoked").iterdir() if p.name != "seen.json"]
        path.unlink()
        assert self.add(folder, listed(sequence=3), sample.key, sample.vendor) == "good"
        assert folder.load().entries == {}

    def test_a_stolen_key_cannot_take_its_revocation_back(self, folder, sample):
        new = Ed25519PrivateKey.generate()
        trusted = (sample.vendor, TrustedVendor("Acme Rail", new.public_key()))
        first = listed(("key", signing.key_id(sample.vendor.key)))
        assert self.add(folder, first, new, *trusted) == "good"
        assert self.add(folder, listed(sequence=2), sample.key, *trusted) == "SIGNER_REVOKED"
        assert self.add(folder, listed(sequence=2), new, *trusted) == "good"

    def test_a_key_may_revoke_itself(self, folder, sample):
        last = listed(("key", signing.key_id(sample.vendor.key)))
        assert self.add(folder, last, sample.key, sample.vendor) == "good"

    def test_every_place_of_a_list_is_under_its_signature(self, folder, sample):
        import base64

        envelope = json.loads(revocations.sign(listed(("key", "a" * 64)), sample.key))
        document = json.loads(base64.b64decode(envelope["payload"]))
        allowed = {"SIGNATURE_INVALID", "REVOCATIONS_MALFORMED", "VENDOR_UNKNOWN"}
        for at in places(document):
            here = get(document, at)
            for altered in (put(document, at, other(here)), put(document, at, wrong_type(here)), without(document, at)):
                spoilt = envelope | {"payload": base64.b64encode(canonical(altered)).decode()}
                with pytest.raises(Refused) as refused:
                    folder.add(canonical(spoilt), [sample.vendor], NOW)
                assert refused.value.refusal.code in allowed, show(at)
                resigned = signing.sign(canonical(altered), "application/vnd.outrider.revoked.v1+json", sample.key)
                if at not in ((), ("entries",), ("issuedAtMs",), ("sequence",)) and "entries" not in at:
                    with pytest.raises(Refused):
                        folder.add(resigned, [sample.vendor], NOW)

    def test_the_largest_list_fits_its_envelope(self, sample):
        many = tuple(
            Entry(kind="package", id=f"{i:064x}", revoked_at_ms=1, reason="r" * 60) for i in range(1000)
        )  # fmt: skip
        found = RevocationList(issuer="A" * 80, sequence=2**53, issued_at_ms=1, entries=many)
        envelope = revocations.sign(found, sample.key, der(ROOT.certificate))
        assert len(envelope) <= limits.ENVELOPE_BYTES, len(envelope)
        assert revocations.show(envelope) == found

    @pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 10_000])
    def test_what_is_no_list_is_refused(self, folder, sample, data):
        with pytest.raises(Refused, match="MALFORMED"):
            folder.add(data, [sample.vendor], NOW)
