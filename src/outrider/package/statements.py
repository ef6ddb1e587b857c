"""Permissions, revocations, contracts and heads of audit logs as signed files, read back with all doubts.

`operator_keys` are the public keys of networks that this network trusts, by network: its own and its partners'. A
network may have several, while it replaces one.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from outrider.core.audit import AUDIT_HEAD_TYPE, Head
from outrider.core.canonical import NotCanonical, decode_canonical
from outrider.core.contract import CONTRACT_TYPE, Contract
from outrider.core.permission import PERMISSION_TYPE, REVOCATION_TYPE, Permission, Revocation
from outrider.core.refusal import Refusal
from outrider.decide.permit import Signature, SignedPermission
from outrider.package import signing

OperatorKeys = Mapping[str, Sequence[Ed25519PublicKey]]

Statement = TypeVar("Statement", Permission, Revocation, Contract, Head)


def sign_permission(permission: Permission, key: Ed25519PrivateKey) -> bytes:
    """The permission in an envelope."""
    return signing.sign(permission.encode(), PERMISSION_TYPE, key)


def read_permission(envelope: bytes, operator_keys: OperatorKeys) -> SignedPermission | Refusal:
    """A permission and what its signature is worth; a refusal (`PERMISSION_MALFORMED`) if it cannot be read."""
    permission = show_permission(envelope)
    if isinstance(permission, Refusal):
        return permission
    signed = signing.verify(envelope, PERMISSION_TYPE, operator_keys.get(permission.signer, ()))
    if not isinstance(signed, Refusal):
        return SignedPermission(permission, Signature.VALID)
    invalid = signed.code == "SIGNATURE_INVALID"
    return SignedPermission(permission, Signature.INVALID if invalid else Signature.SIGNER_UNKNOWN)


def show_permission(envelope: bytes) -> Permission | Refusal:
    """What a permission says, whoever signed it."""
    opened = signing.open_envelope(envelope, PERMISSION_TYPE)
    return opened if isinstance(opened, Refusal) else _decode(opened.payload, Permission, "PERMISSION_MALFORMED")


def sign_revocation(revocation: Revocation, key: Ed25519PrivateKey) -> bytes:
    """The revocation in an envelope."""
    return signing.sign(revocation.encode(), REVOCATION_TYPE, key)


def read_revocation(envelope: bytes, operator_keys: OperatorKeys) -> Revocation | Refusal:
    """A revocation that its signer's key really signed; anything else is refused, so that nobody else can stop us."""
    opened = signing.open_envelope(envelope, REVOCATION_TYPE)
    if isinstance(opened, Refusal):
        return opened
    revocation = _decode(opened.payload, Revocation, "REVOCATION_MALFORMED")
    if isinstance(revocation, Refusal):
        return revocation
    signed = signing.verify(envelope, REVOCATION_TYPE, operator_keys.get(revocation.signer, ()))
    return signed if isinstance(signed, Refusal) else revocation


def sign_contract(contract: Contract, key: Ed25519PrivateKey) -> bytes:
    """The contract in an envelope, signed by the first party."""
    return signing.sign(contract.encode(), CONTRACT_TYPE, key)


def countersign_contract(envelope: bytes, key: Ed25519PrivateKey) -> bytes | Refusal:
    """The same bytes with one more party's signature."""
    return signing.add_signature(envelope, CONTRACT_TYPE, key)


def show_contract(envelope: bytes) -> Contract | Refusal:
    """What a contract says, whoever signed it."""
    opened = signing.open_envelope(envelope, CONTRACT_TYPE)
    return opened if isinstance(opened, Refusal) else _decode(opened.payload, Contract, "CONTRACT_MALFORMED")


def read_contract(
    envelope: bytes, operator_keys: OperatorKeys, by: Sequence[str] | None = None
) -> Contract | list[Refusal]:
    """A contract that all its parties have signed, over the same bytes; otherwise each party's reason.

    `by` asks for these parties' signatures only, as an offer has the offering party's alone.
    """
    contract = show_contract(envelope)
    if isinstance(contract, Refusal):
        return [contract]
    reasons = []
    for network in contract.parties if by is None else by:
        signed = signing.verify(envelope, CONTRACT_TYPE, operator_keys.get(network, ()))
        if isinstance(signed, Refusal):
            invalid = signed.code == "SIGNATURE_INVALID"
            reasons.append(
                Refusal(
                    "CONTRACT_SIGNATURE_INVALID" if invalid else "CONTRACT_NOT_SIGNED",
                    f"The signature of {network} does not fit the contract."
                    if invalid
                    else f"{network} has not signed the contract with a key that is known here.",
                    {"network": network, "contractId": contract.contract_id},
                    f"{network} signs the same bytes.",
                )
            )
    return reasons or contract


def show_head(envelope: bytes) -> Head | Refusal:
    """What the head of an audit log says, whoever signed it."""
    opened = signing.open_envelope(envelope, AUDIT_HEAD_TYPE)
    return opened if isinstance(opened, Refusal) else _decode(opened.payload, Head, "AUDIT_HEAD_MALFORMED")


def read_head(envelope: bytes, operator_keys: OperatorKeys, by: Sequence[str]) -> Head | Refusal:
    """The head of an audit log that each of these networks has really signed."""
    head = show_head(envelope)
    if isinstance(head, Refusal):
        return head
    for network in by:
        signed = signing.verify(envelope, AUDIT_HEAD_TYPE, operator_keys.get(network, ()))
        if isinstance(signed, Refusal):
            return Refusal(
                "AUDIT_HEAD_UNSIGNED",
                f"Head {head.sequence} of the log of {head.network} has no good signature of {network}: "
                f"{signed.sentence}",
                {"network": network, "sequence": str(head.sequence), "reason": signed.code},
            )
    return head


def _decode(payload: bytes, kind: type[Statement], code: str) -> Statement | Refusal:
    try:
        statement = decode_canonical(payload, kind)
        if statement.encode() != payload:
            raise NotCanonical("it leaves out what it must say")
    except NotCanonical as error:
        return Refusal(code, f"The {kind.__name__.lower()} cannot be read: {error}.", status=400)
    return statement
