"""Whose signature on a package counts: a vendor's key, or one that its certificate authority vouches for, now.

A signature counts if its key is one of a trusted vendor's, on a day on which that key is valid, or brings a certificate
chain that leads to a trusted vendor's authority; and if neither that key nor a certificate of the chain was revoked by
that vendor or by this operator. One such signature is enough, so a vendor that replaces its key signs a package with
both. What is wrong with the others is told when none counts: the most telling reason.
"""

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    ClientVerifier,
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from outrider.core.refusal import Refusal
from outrider.core.revoked import Entry, Kind
from outrider.package import signing
from outrider.package.vendors import TrustedVendor

_CHAIN_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Revoked:
    """What is revoked here, by whom: by kind and id, the entries of each issuer. `own` is this operator's network."""

    entries: dict[tuple[str, str], dict[str, Entry]] = field(default_factory=dict)
    own: str = ""

    def by(self, kind: Kind, name: str, vendors: Sequence[str]) -> Refusal | None:
        """Why a thing of these vendors does not count, if they or this operator revoked it."""
        for issuer, entry in self.entries.get((kind, name), {}).items():
            if issuer in vendors or issuer == self.own:
                return _revoked(entry, issuer)
        return None

    def software(self, package_digest: str, signer: Sequence[str], vendor: str) -> list[Refusal]:
        """Every reason against software that was taken before: its digest, its signer's key or certificate."""
        found = [self.by("package", package_digest, [vendor])]
        if signer:
            found.append(self.by("key", signer[0], [vendor]))
            found += [self.by("certificate", name, [vendor]) for name in signer[1:]]
        return [refusal for refusal in found if refusal is not None]


def _revoked(entry: Entry, issuer: str) -> Refusal:
    since = dt.datetime.fromtimestamp(entry.revoked_at_ms / 1000, dt.UTC).date()
    because = f": {entry.reason}" if entry.reason else ""
    facts = {"kind": entry.kind, "id": entry.id, "issuer": issuer, "sinceMs": str(entry.revoked_at_ms)}
    if entry.kind == "package":
        return Refusal(
            "PACKAGE_REVOKED",
            f"{issuer} has revoked the package {entry.id[:16]}… on {since}{because}.",
            facts,
            "Use another version of the service.",
        )
    return Refusal(
        "SIGNER_REVOKED",
        f"{issuer} has revoked the {entry.kind} {entry.id[:16]}… that signed the package on {since}{because}.",
        facts,
        "Ask the vendor for the package with a signature of its present key.",
    )


class Signer(NamedTuple):
    """Who signed a package."""

    key_id: str
    certificates: tuple[str, ...]
    """SHA-256 of each certificate that vouches for the key, its own first; none for a key that is trusted itself."""
    vendors: tuple[str, ...]


def check(
    envelope: bytes,
    trusted: Sequence[TrustedVendor],
    revoked: Revoked,
    at: dt.datetime,
    payload_type: str = signing.IN_TOTO_TYPE,
) -> tuple[bytes, Signer] | Refusal:
    """What was signed, and by whom, as described above; a trusted key's signature that does not fit is refused."""
    opened = signing.open_envelope(envelope, payload_type)
    if isinstance(opened, Refusal):
        return opened
    counting: list[tuple[Signer, Ed25519PublicKey]] = []
    against: list[Refusal] = []
    for key_id in opened.key_ids:
        found = _signer(key_id, opened.chains.get(key_id, ()), trusted, at)
        if isinstance(found, Refusal):
            against.append(found)
            continue
        signer, _ = found
        names = [revoked.by("key", key_id, signer.vendors)]
        names += [revoked.by("certificate", name, signer.vendors) for name in signer.certificates]
        reasons = [reason for reason in names if reason is not None]
        against += reasons
        if not reasons:
            counting.append(found)
    if not counting:
        return max(against, key=lambda r: _TELLING.index(r.code))
    verified = signing.verify(envelope, payload_type, [key for _, key in counting])
    if isinstance(verified, Refusal):
        return verified
    return verified.payload, next(signer for signer, _ in counting if signer.key_id == verified.key_ids[0])


_TELLING = ("VENDOR_UNKNOWN", "VENDOR_KEY_EXPIRED", "VENDOR_CHAIN_INVALID", "SIGNER_REVOKED")
"""Causes from the least to the most telling."""


def _signer(
    key_id: str, chain: Sequence[bytes], trusted: Sequence[TrustedVendor], at: dt.datetime
) -> tuple[Signer, Ed25519PublicKey] | Refusal:
    keys = [v for v in trusted if v.key is not None and signing.key_id(v.key) == key_id]
    valid = [v for v in keys if v.valid(at.date())]
    if valid and valid[0].key is not None:
        return Signer(key_id, (), tuple(v.name for v in valid)), valid[0].key
    authorities = [v for v in trusted if v.authority is not None and v.valid(at.date())]
    if chain and authorities:
        return _certified(key_id, chain, authorities, at)
    if keys:
        vendor = keys[0]
        when = f"until {vendor.not_after}" if vendor.not_after and vendor.not_after < at.date() else (
            f"from {vendor.not_before} on"
        )  # fmt: skip
        return Refusal(
            "VENDOR_KEY_EXPIRED",
            f"The key {key_id[:16]}… of {vendor.name} counts {when}, not today.",
            {"keyId": key_id, "vendor": vendor.name},
            "Ask the vendor for the package with a signature of its present key.",
        )
    return Refusal(
        "VENDOR_UNKNOWN",
        "The package is not signed by a vendor that is trusted here.",
        {"signedBy": key_id},
        "Compare the key's fingerprint with the vendor, then trust its key.",
    )


def _certified(
    key_id: str, chain: Sequence[bytes], authorities: Sequence[TrustedVendor], at: dt.datetime
) -> tuple[Signer, Ed25519PublicKey] | Refusal:
    """The vendors to whose authority a chain leads; by each authority alone, so that none vouches for another."""
    try:
        leaf, *between = [x509.load_der_x509_certificate(der) for der in chain]
        key = leaf.public_key()
    except (ValueError, TypeError) as error:
        return _chain_invalid(key_id, f"a certificate cannot be read ({error})")
    if not isinstance(key, Ed25519PublicKey) or signing.key_id(key) != key_id:
        return _chain_invalid(key_id, "the certificate is of another key")
    names, why = [], ""
    for vendor in authorities:
        assert vendor.authority is not None
        try:
            _verifier(vendor.authority, at).verify(leaf, between)
            names.append(vendor.name)
        except (VerificationError, ValueError) as error:
            why = str(error).partition(" (encountered")[0]
    if not names:
        return _chain_invalid(key_id, why)
    return Signer(key_id, tuple(hashlib.sha256(der).hexdigest() for der in chain), tuple(names)), key


def _verifier(authority: x509.Certificate, at: dt.datetime) -> ClientVerifier:
    """Path validation with one authority, for certificates that are for signing code."""
    ours = ExtensionPolicy.permit_all().require_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _for_signing_code)
    builder = PolicyBuilder().store(Store([authority])).time(at).max_chain_depth(_CHAIN_DEPTH)
    policies = builder.extension_policies(ee_policy=ours, ca_policy=ExtensionPolicy.webpki_defaults_ca())
    return policies.build_client_verifier()


def _for_signing_code(_: Policy, __: x509.Certificate, usage: x509.ExtendedKeyUsage) -> None:
    if ExtendedKeyUsageOID.CODE_SIGNING not in usage:
        raise ValueError("the certificate is not for signing code")


def _chain_invalid(key_id: str, why: str) -> Refusal:
    return Refusal(
        "VENDOR_CHAIN_INVALID",
        f"The certificates of key {key_id[:16]}… lead to no vendor that is trusted here: {why[:200]}.",
        {"keyId": key_id},
        "Ask the vendor which authority certifies its keys, and to sign anew if a certificate has ended.",
    )
