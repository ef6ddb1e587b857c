"""Signed statements: DSSE envelopes with Ed25519, keys in PEM, nothing online.

An envelope names the type of what is signed, so that a signature over one kind of statement is never taken for
another. Its bytes are canonical JSON. A key is known by the SHA-256 of its SubjectPublicKeyInfo.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey  # type: ignore[attr-defined]

from outrider.core import limits
from outrider.core.canonical import NotCanonical, canonical, decode_canonical
from outrider.core.refusal import Refusal, Refused
from outrider.core.revoked import REVOKED_TYPE

IN_TOTO_TYPE = "application/vnd.in-toto+json"

CERTIFIED_TYPES = frozenset((IN_TOTO_TYPE, REVOKED_TYPE))
"""Kinds of statement whose signatures may bring certificates: those of vendors. Operators exchange bare keys."""


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    keyid: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    sig: Annotated[str, msgspec.Meta(max_length=128)]
    cert: Annotated[list[Annotated[str, msgspec.Meta(max_length=16_384)]], msgspec.Meta(max_length=8)] = []
    """The key's certificate, then those that vouch for it, DER in base64: only where a vendor's CA may be trusted."""


class _Envelope(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    payload: str
    payload_type: str
    signatures: Annotated[list[_Signature], msgspec.Meta(min_length=1, max_length=limits.ENVELOPE_SIGNATURES)]


class Opened(NamedTuple):
    """An envelope's content; `key_ids` are those that it claims, or, after `verify`, those that really signed."""

    payload: bytes
    key_ids: tuple[str, ...]
    chains: dict[str, tuple[bytes, ...]] = {}  # noqa: RUF012 - never changed
    """By key id: the certificates that a signature brings, DER, the key's own first. Nobody has checked them."""


def key_id(key: Ed25519PublicKey) -> str:
    """The key's name and fingerprint: SHA-256 of its SubjectPublicKeyInfo, hexadecimal."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """PKCS#8 PEM without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: Ed25519PublicKey) -> bytes:
    """SubjectPublicKeyInfo PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def load_private(path: Path) -> Ed25519PrivateKey:
    """Read an Ed25519 private key (PKCS#8 PEM); one that others can read is refused, as ssh does."""
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise Refused(
            Refusal(
                "KEY_EXPOSED",
                f"{path} can be read or written by others (mode {mode:04o}).",
                {"file": str(path)},
                f"Run `chmod 600 {path}`, and replace the key if anybody may have read it.",
            )
        )
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise Refused(_no_key(str(path), "private"))
    return key


def load_public(pem: bytes, origin: str = "the key") -> Ed25519PublicKey:
    """Read an Ed25519 public key (PEM); `origin` says where it comes from, for people."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise Refused(_no_key(origin, "public"))
    return key


def load_chain(path: Path) -> list[bytes]:
    """Read certificates (PEM), the key's own first, as DER; raises `Refused`."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        sentence = f"{path} holds no certificates in PEM ({error})."
        raise Refused(Refusal("KEY_INVALID", sentence, {"file": str(path)}, status=400)) from None
    return [certificate.public_bytes(serialization.Encoding.DER) for certificate in found]


def _no_key(origin: str, kind: str) -> Refusal:
    return Refusal(
        "KEY_INVALID",
        f"{origin} is no Ed25519 {kind} key in PEM.",
        {"file": origin},
        "Make a pair with `outrider package keygen`.",
        status=400,
    )


def write_private(path: Path, key: Ed25519PrivateKey) -> None:
    """Write a new private key that only its owner can read; an existing file is never overwritten."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(private_pem(key))


def sign(payload: bytes, payload_type: str, key: Ed25519PrivateKey, chain: Sequence[bytes] = ()) -> bytes:
    """An envelope over the payload with one signature; `chain` are certificates (DER), the key's own first."""
    return _sign(_Parsed(Envelope(payload, payload_type, {}), {}), key, chain)


def add_signature(
    envelope: bytes, payload_type: str, key: Ed25519PrivateKey, chain: Sequence[bytes] = ()
) -> bytes | Refusal:
    """The envelope with one more signature over the same bytes; a former one of the same key is replaced."""
    parsed = _parse(envelope, payload_type)
    return parsed if isinstance(parsed, Refusal) else _sign(parsed, key, chain)


def _sign(parsed: "_Parsed", key: Ed25519PrivateKey, chain: Sequence[bytes]) -> bytes:
    public = key.public_key()
    envelope, chains = parsed.envelope, parsed.chains | {key_id(public): tuple(chain)}
    envelope.sign(CryptoSigner(key, SSlibKey.from_crypto(public, keyid=key_id(public))))
    signatures = [
        _Signature(
            name,
            base64.b64encode(bytes.fromhex(envelope.signatures[name].signature)).decode(),
            [base64.b64encode(certificate).decode() for certificate in chains.get(name, ())],
        )
        for name in sorted(envelope.signatures)
    ]
    payload = base64.b64encode(envelope.payload).decode()
    return canonical(_Envelope(payload, envelope.payload_type, signatures))


def open_envelope(data: bytes, payload_type: str) -> Opened | Refusal:
    """Look into an envelope without believing it: nobody's signature is checked."""
    parsed = _parse(data, payload_type)
    if isinstance(parsed, Refusal):
        return parsed
    return Opened(parsed.envelope.payload, tuple(sorted(parsed.envelope.signatures)), parsed.chains)


def verify(data: bytes, payload_type: str, keys: Iterable[Ed25519PublicKey]) -> Opened | Refusal:
    """The payload and who of `keys` signed it, at least one; a known key's signature that does not fit is refused.

    Causes: `ENVELOPE_MALFORMED`, `SIGNATURE_INVALID`, `SIGNER_UNKNOWN`.
    """
    parsed = _parse(data, payload_type)
    if isinstance(parsed, Refusal):
        return parsed
    envelope = parsed.envelope
    known = {key_id(key): key for key in keys}
    signed = []
    for name in sorted(envelope.signatures.keys() & known.keys()):
        public = SSlibKey.from_crypto(known[name], keyid=name)
        try:
            public.verify_signature(envelope.signatures[name], envelope.pae())
        except UnverifiedSignatureError:
            return Refusal(
                "SIGNATURE_INVALID",
                f"The signature of key {name[:16]}… does not fit the content: it was changed or damaged.",
                {"keyId": name},
                "Get the file again from its signer.",
            )
        signed.append(name)
    if not signed:
        return Refusal(
            "SIGNER_UNKNOWN",
            "None of the keys that signed is trusted here.",
            {"signedBy": ", ".join(sorted(envelope.signatures))},
            "Compare the key's fingerprint with its owner, then trust the key.",
        )
    return Opened(envelope.payload, tuple(signed))


class _Parsed(NamedTuple):
    envelope: Envelope
    chains: dict[str, tuple[bytes, ...]]


def _parse(data: bytes, payload_type: str) -> _Parsed | Refusal:
    def malformed(what: str) -> Refusal:
        return Refusal("ENVELOPE_MALFORMED", f"The signed statement cannot be read: {what}.", status=400)

    if len(data) > limits.ENVELOPE_BYTES:
        return malformed(f"it has {len(data)} bytes, more than {limits.ENVELOPE_BYTES}")
    try:
        raw = decode_canonical(data, _Envelope)
    except NotCanonical as error:
        return malformed(str(error))
    if raw.payload_type != payload_type:
        return malformed(f"it is {raw.payload_type!r}, not {payload_type!r}")
    signatures: dict[str, Signature] = {}
    chains: dict[str, tuple[bytes, ...]] = {}
    for signature in raw.signatures:
        if signature.keyid in signatures:
            return malformed("one key signed twice")
        content = _base64(signature.sig)
        if content is None:
            return malformed("a signature is not base64")
        signatures[signature.keyid] = Signature(signature.keyid, content.hex())
        chain = [_base64(certificate) for certificate in signature.cert]
        if chain and payload_type not in CERTIFIED_TYPES:
            return malformed("certificates do not belong into it")
        if None in chain:
            return malformed("a certificate is not base64")
        chains[signature.keyid] = tuple(certificate for certificate in chain if certificate is not None)
    payload = _base64(raw.payload)
    if payload is None:
        return malformed("the payload is not base64")
    return _Parsed(Envelope(payload, raw.payload_type, signatures), chains)


def _base64(text: str) -> bytes | None:
    """Decode strictly: one text for one value."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode() == text else None
