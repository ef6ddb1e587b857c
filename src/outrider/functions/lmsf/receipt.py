"""The erasure receipt: the target's signed word that state and software of a migration are gone."""

from collections.abc import Sequence

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from outrider.core.canonical import NotCanonical, canonical, decode_canonical
from outrider.core.refusal import Refusal
from outrider.functions.lmsf.ports import Signer
from outrider.functions.lmsf.record import Envelope
from outrider.package import signing

RECEIPT_TYPE = "application/vnd.outrider.erasure-receipt.v1+json"


class Receipt(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """What was erased. `erased_ues` counts the UEs whose copy was in the store; none of them was owned there."""

    migration_id: str
    contract_digest: str
    service: str
    package_digest: str
    network: str
    """The network that erased, and signs."""
    erased_ues: int
    software_erased: bool
    erased_at_ms: int


def sign(receipt: Receipt, signer: Signer) -> Envelope:
    """The receipt in an envelope."""
    return signer.sign(canonical(receipt), RECEIPT_TYPE).decode()


def read(envelope: Envelope, keys: Sequence[Ed25519PublicKey], expected: Receipt) -> Receipt | Refusal:
    """The receipt, if one of the keys signed it and it is about what is expected (counts and time are free)."""
    opened = signing.verify(envelope.encode(), RECEIPT_TYPE, keys)
    if isinstance(opened, Refusal):
        return opened
    try:
        receipt = decode_canonical(opened.payload, Receipt)
    except NotCanonical as error:
        return Refusal("RECEIPT_MALFORMED", f"The erasure receipt cannot be read: {error}.", status=400)
    free = {"erased_ues": expected.erased_ues, "erased_at_ms": expected.erased_at_ms}
    if msgspec.structs.replace(receipt, **free) != expected:
        return Refusal(
            "RECEIPT_MISMATCH",
            "The erasure receipt is about something else, or does not say that everything is gone.",
            {"migrationId": receipt.migration_id, "service": receipt.service, "network": receipt.network},
        )
    return receipt
