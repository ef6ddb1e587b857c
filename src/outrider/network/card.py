"""The partner card: the one file that a network hands to a partner, and the strict reading of one from a partner.

A card is made for one partner, because each partner has listeners of its own. It is signed by the operator's key, so
damage is found at once; whose key that is, only comparing the fingerprint with the partner tells.
"""

import base64
import datetime as dt
import hashlib
import uuid
from typing import Annotated

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal
from outrider.network.config import Kind, is_host

FORMAT = "outrider-partner-card"
VERSION = 1
CARD_BYTES = 64 * 1024
"""A card has about 3 KB; more than this is not read at all."""

CardPort = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Text = Annotated[str, msgspec.Meta(max_length=80)]
Pem = Annotated[str, msgspec.Meta(max_length=8192)]


class BorderAddress(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Where a border takes the traffic of one partner."""

    host: Annotated[str, msgspec.Meta(max_length=253)]
    control_port: CardPort
    bulk_port: CardPort


class Card(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What a partner needs to know to reach and to check a network."""

    format: str = FORMAT
    version: int = VERSION
    network: Text
    kind: Kind
    name: Text
    issued_for: Text
    """The one partner whom this card is for."""
    ca: Pem
    operator_key: Pem
    nrf_key: Pem
    nrf_id: Text
    lmsf_id: Text
    border: BorderAddress
    signature: Annotated[str, msgspec.Meta(max_length=128)] = ""

    @property
    def network_id(self) -> NetworkId:
        """The network that the card describes."""
        return NetworkId.parse(self.network)


class _Version(msgspec.Struct):
    format: str = ""
    version: int = 0


def canonical(card: Card) -> bytes:
    """The bytes that are signed and fingerprinted: sorted keys, no spaces, without the signature."""
    return msgspec.json.encode(msgspec.structs.replace(card, signature=""), order="sorted")


def sign(card: Card, operator_key: ed25519.Ed25519PrivateKey) -> Card:
    """The card with the operator's signature."""
    signature = base64.b64encode(operator_key.sign(canonical(card))).decode()
    return msgspec.structs.replace(card, signature=signature)


def fingerprint(card: Card) -> str:
    """The first 128 bits of the SHA-256 over the card, in groups that can be read out on the phone."""
    digits = hashlib.sha256(canonical(card)).hexdigest()[:32].upper()
    return " ".join(digits[i : i + 4] for i in range(0, 32, 4))


def same_fingerprint(one: str, other: str) -> bool:
    """Compare fingerprints as people write them: spaces, dashes, colons and case do not matter."""

    def plain(text: str) -> str:
        return "".join(c for c in text.upper() if c.isalnum())

    return plain(one) == plain(other) != ""


def encode(card: Card) -> bytes:
    """The card as the file that is handed over."""
    return msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n"


def _no(code: str, sentence: str, remedy: str = "Ask the partner for a new card.", **facts: str) -> Refusal:
    return Refusal(code, sentence, facts, remedy)


def _check_ca(pem: str, now: dt.datetime) -> Refusal | None:
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        return _no("CARD_CA", f"The card's CA is no certificate ({error}).")
    if len(certificates) != 1:
        return _no("CARD_CA", f"The card must have one CA certificate, not {len(certificates)}.")
    ca = certificates[0]
    try:
        constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
        if not constraints.ca or not usage.key_cert_sign:
            return _no("CARD_CA", "The card's certificate may not sign others, so it is no CA.")
        if not isinstance(ca.public_key(), ec.EllipticCurvePublicKey):
            return _no("CARD_CA", "The card's CA has no EC key.")
        ca.verify_directly_issued_by(ca)
    except x509.ExtensionNotFound:
        return _no("CARD_CA", "The card's CA lacks basicConstraints or keyUsage.")
    except (ValueError, TypeError, InvalidSignature):
        return _no("CARD_CA", "The card's CA is not signed by its own key.")
    if not ca.not_valid_before_utc <= now <= ca.not_valid_after_utc:
        valid = f"{ca.not_valid_before_utc:%Y-%m-%d} to {ca.not_valid_after_utc:%Y-%m-%d}"
        return _no("CARD_CA", f"The card's CA is valid from {valid}, not now.")
    return None


def _check_keys(card: Card) -> Refusal | None:
    try:
        operator = serialization.load_pem_public_key(card.operator_key.encode())
        nrf = serialization.load_pem_public_key(card.nrf_key.encode())
    except Exception as error:  # the library raises several kinds for a hostile PEM, all meaning the same here
        return _no("CARD_KEY", f"A key of the card cannot be read ({type(error).__name__}).")
    if not isinstance(operator, ed25519.Ed25519PublicKey):
        return _no("CARD_KEY", "The card's operator key is not Ed25519.")
    if not isinstance(nrf, ec.EllipticCurvePublicKey) or not isinstance(nrf.curve, ec.SECP256R1):
        return _no("CARD_KEY", "The card's NRF key is not P-256, so its tokens cannot be ES256.")
    try:
        operator.verify(base64.b64decode(card.signature, validate=True), canonical(card))
    except (InvalidSignature, ValueError):
        return _no("CARD_SIGNATURE", "The card's signature does not fit its content: it was changed or damaged.")
    return None


def read(data: bytes, own: NetworkId, now: dt.datetime | None = None) -> Card | Refusal:
    """Read a card that somebody handed over: size, format, version, schema, then meaning. All of it is hostile."""
    now = now or dt.datetime.now(dt.UTC)
    if len(data) > CARD_BYTES:
        return _no("CARD_SIZE", f"A card has at most {CARD_BYTES} bytes, this file has {len(data)}.")
    try:
        head = msgspec.json.decode(data, type=_Version)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _no("CARD_FORMAT", f"The file is no partner card ({error}).")
    if head.format != FORMAT:
        return _no("CARD_FORMAT", "The file is no partner card.", "Make one with `outrider partner invite`.")
    if head.version != VERSION:
        return _no(
            "CARD_VERSION",
            f"The card has version {head.version}; this software reads version {VERSION}.",
            "Use the same release of Outrider on both sides to exchange cards.",
        )
    try:
        card = msgspec.json.decode(data, type=Card)
        network, issued_for = card.network_id, NetworkId.parse(card.issued_for)
        uuid.UUID(card.nrf_id), uuid.UUID(card.lmsf_id)
    except (msgspec.DecodeError, ValueError) as error:
        return _no("CARD_SCHEMA", f"The card does not fit the schema: {error}.")
    if network == own:
        return _no("CARD_OWN", f"This is the card of {own} itself.", "Hand it to the partner, and add the partner's.")
    if issued_for != own:
        return _no(
            "CARD_NOT_FOR_US",
            f"The card of {network} is for {issued_for}, not for {own}.",
            f"Ask {network} to run `outrider partner invite {own}` and to send that file.",
        )
    if not card.name.isprintable() or not is_host(card.border.host):
        return _no("CARD_SCHEMA", "The card's name or border host has characters that do not belong there.")
    if card.border.control_port == card.border.bulk_port:
        return _no("CARD_SCHEMA", "The card names one port for both control and bulk.")
    return _check_ca(card.ca, now) or _check_keys(card) or card


def read_key(data: bytes) -> tuple[str, str] | Refusal:
    """The network and the operator key (PEM) of a card, whoever it was issued for: what an auditor needs of it."""
    if len(data) > CARD_BYTES:
        return _no("CARD_SIZE", f"A card has at most {CARD_BYTES} bytes, this file has {len(data)}.")
    try:
        card = msgspec.json.decode(data, type=Card)
        network = str(card.network_id)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        return _no("CARD_FORMAT", f"The file is no partner card ({error}).")
    return _check_keys(card) or (network, card.operator_key)
