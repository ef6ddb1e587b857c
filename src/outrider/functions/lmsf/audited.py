"""What of the life of a migration goes into the audit log: pure, from the record before and after a step.

The journal writes the entries in the transaction of the step, so each is there exactly once, whatever is repeated: an
act that is done again after a crash changes the record no more.
"""

from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from outrider.core.audit import LMSF, Actor, Entry, clause_of, refused
from outrider.core.canonical import sha256_hex
from outrider.core.contract import CONTRACT_TYPE, Contract
from outrider.core.permission import Permission, Revocation
from outrider.core.refusal import Refusal
from outrider.functions.lmsf.record import Envelope, Migration
from outrider.package import signing
from outrider.protocol import migration as machine
from outrider.protocol.migration import MIGRATION
from outrider.protocol.phase import Phase, Role

OperatorKeys = Mapping[str, Sequence[Ed25519PublicKey]]


def begun(network: str, record: Migration, contract: Contract, keys: OperatorKeys) -> list[Entry]:
    """A migration begins here: its operator's wish at home, a partner's offer elsewhere."""
    leads = record.role in (Role.SOURCE, Role.HOME)
    actor = Actor("operator", network) if leads else Actor("partner", record.partner)
    way = f"{contract.source} to {contract.target}"
    entered = Entry(
        actor,
        "phase",
        f"{contract.service} {contract.version} is {'to go' if leads else 'offered'}, from {way}.",
        "migration, NEGOTIATING",
        record.id,
        subject=subject_of(contract),
        facts={"phase": Phase.NEGOTIATING.value, "role": record.role.value, "service": contract.service},
    )
    return [*_signatures(network, record, "", contract, keys), entered]


def stepped(
    network: str, before: Migration, after: Migration, event: object, contract: Contract, why: str, keys: OperatorKeys
) -> list[Entry]:
    """What a step of the machine has decided, signed, refused and entered, in the order in which it came to be."""
    entries = _signatures(network, after, before.contract, contract, keys)
    if after.receipt is not None and after.receipt != before.receipt:
        entries.append(_receipt(network, after, contract))
    actor = actor_of(network, before, event)
    if after.row != before.row:
        entries += _decided(after, event, contract, actor)
    new = [reason for reason in after.refusals if reason not in before.refusals]
    by = after.row.ending.by if after.row.ending is not None else ""
    refuser = Actor("partner", by) if by not in ("", network) else LMSF
    entries += [refused(refuser, reason, after.id) for reason in new]
    if after.row.phase is not before.row.phase:
        entries.append(_entered(before, after, event, contract, why, actor))
    return entries


def actor_of(network: str, record: Migration, event: object) -> Actor:
    """Whose act an event is."""
    match event:
        case machine.PeerIs() | machine.PeerForgot():
            giver = getattr(event, "giver", False)
            return Actor("partner", _giver(record) if giver else record.partner)
        case machine.ReturnAsked() | machine.DeclaredLost():
            return Actor("operator", network)
        case machine.StopAsked(ending) if ending.cause != "DEADLINE_PASSED":
            return Actor("operator", network)
        case machine.OfferJudged(ending) | machine.Judged(ending) if ending is not None and ending.by != network:
            return Actor("partner", ending.by)
    return LMSF


def _giver(record: Migration) -> str:
    return record.giver.network if record.giver is not None else record.partner


def _decided(after: Migration, event: object, contract: Contract, actor: Actor) -> list[Entry]:
    """Judgements, and the operator's word that a store is lost."""
    match event:
        case machine.OfferJudged(None):
            sentence, clause = f"The terms of {contract.service} are taken.", "contract, the terms that it names"
        case machine.Judged(None):
            sentence = f"Every party permits {contract.service} from {contract.source} to {contract.target}."
            clause = "permission of every party over the same digests"
        case machine.DeclaredLost(ending):
            facts = {"cause": ending.cause, "storeId": after.lost_store}
            return [Entry(actor, "decision", ending.sentence, clause_of(ending.cause), after.id, facts=facts)]
        case _:
            return []
    return [Entry(actor, "decision", sentence, clause, after.id, subject=subject_of(contract))]


def _entered(before: Migration, after: Migration, event: object, contract: Contract, why: str, actor: Actor) -> Entry:
    facts = {"phase": after.row.phase.value, "from": before.row.phase.value, "event": type(event).__name__}
    ending = after.row.ending
    if ending is not None:
        facts |= {"cause": ending.cause, "by": ending.by}
    rule = MIGRATION.rule(before.row, None, event)
    clause = f"migration, rule {rule.id} ({rule.clause})" if rule is not None else f"migration, {after.row.phase.value}"
    sentence = why or after.row.phase.sentence
    return Entry(actor, "phase", sentence, clause, after.id, {"contract": contract.digest}, facts)


def _signatures(
    network: str, record: Migration, before: Envelope, contract: Contract, keys: OperatorKeys
) -> list[Entry]:
    """Signatures that the contract has gained."""
    if record.contract == before:
        return []
    names = {signing.key_id(key): name for name, known in keys.items() for key in known}
    gained = sorted(_signers(record.contract) - (_signers(before) if before else set()))
    entries = []
    for key in gained:
        by = names.get(key, f"key {key[:16]}")
        actor = LMSF if by == network else Actor("partner", by)
        facts = {"by": by, "keyId": key}
        entries.append(
            Entry(
                actor,
                "signature",
                f"{by} has signed the contract.",
                "contract, signatures of every party over the same bytes",
                record.id,
                {"contract": contract.digest, "package": contract.package_digest},
                facts,
            )
        )
    return entries


def _signers(envelope: Envelope) -> set[str]:
    opened = signing.open_envelope(envelope.encode(), CONTRACT_TYPE)
    return set() if isinstance(opened, Refusal) else set(opened.key_ids)


def _receipt(network: str, record: Migration, contract: Contract) -> Entry:
    own = record.role is Role.TARGET
    by = network if own else contract.target
    subject = {"receipt": sha256_hex((record.receipt or "").encode()), "contract": contract.digest}
    sentence = f"{by} has signed that state and software of {contract.service} are erased there."
    facts = {"by": by} | ({"erasedUes": str(record.erased_ues)} if record.erased_ues is not None else {})
    return Entry(
        LMSF if own else Actor("partner", by), "signature", sentence, "migration, RETIRED: the erasure receipt",
        record.id, subject, facts,
    )  # fmt: skip


def permitted(permission: Permission, given_by: str, network: str) -> Entry:
    """A permission is kept here; what it is worth is judged when it is used."""
    return Entry(
        Actor("partner", given_by) if given_by else Actor("operator", network),
        "permission",
        f"A permission of {permission.signer} for {permission.service} from {permission.source} to "
        f"{permission.target} is kept.",
        "permission, notBeforeMs to notAfterMs",
        subject={"permission": permission.id, "package": permission.package_digest, "sbom": permission.sbom_digest},
        facts={
            "signer": permission.signer,
            "home": permission.home,
            "notBeforeMs": str(permission.not_before_ms),
            "notAfterMs": str(permission.not_after_ms),
        },
        once=f"permission/{permission.id}",
    )


def revoked(revocation: Revocation, given_by: str, network: str) -> Entry:
    """A revocation is kept here: from now on the permission counts nothing."""
    return Entry(
        Actor("partner", given_by) if given_by else Actor("operator", network),
        "revocation",
        f"{revocation.signer} takes a permission back"
        + (f": {revocation.reason.rstrip('.')}." if revocation.reason else "."),
        "permission, taken back by its signer",
        subject={"permission": revocation.permission_id},
        facts={"signer": revocation.signer, "revokedAtMs": str(revocation.revoked_at_ms)},
        once=f"revocation/{revocation.signer}/{revocation.permission_id}",
    )


def subject_of(contract: Contract) -> dict[str, str]:
    """The digests that a contract names, and its own."""
    return {"contract": contract.digest, "package": contract.package_digest, "sbom": contract.sbom_digest}
