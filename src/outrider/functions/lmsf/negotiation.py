"""Offers and contracts: what home proposes, what the others check, and the bytes that all sign.

There is one round: a network takes the terms or refuses with every reason. It checks what can be known before
anything moves: that the offer is signed by the partner that sends it, and that this engine covers the terms; what its
operator says to the software and to the whole is asked beside it (`judging`). A target checks that it has the NF types,
the machine and the room; where another network than home is the source, that one checks that it hosts the service, and
both that they are partners of each other.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import msgspec

from outrider.core import limits
from outrider.core.contract import CONTRACT_TYPE, Contract, Window
from outrider.core.manifest import Manifest
from outrider.core.permission import Permission
from outrider.core.refusal import Refusal
from outrider.functions.lmsf.catalogue import no_room
from outrider.functions.lmsf.deployments import Deployments, fits
from outrider.functions.lmsf.ports import Partner, Partners, Signer
from outrider.functions.lmsf.record import Envelope, Offer, Package
from outrider.package import statements
from outrider.package.statements import OperatorKeys

DEADLINE_MS = 3_600_000
"""A migration that names no deadline must be relocating after an hour."""

STAY_MS = 86_400_000
"""A migration that names no end of its stay, and whose permission names none, returns after a day."""

PURPOSE = "communication-service"
"""The purpose of a migration that neither names one nor has a permission that does."""

UES_MAX = 1_000_000
"""UEs that an offer covers unless it says otherwise, or has more than half as many."""


class Wanted(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /nlmsf-migration/v1/migrations`: what the operator asks for; times in seconds from now.

    What is left out is taken from this network's own permission for that service and target, else from the defaults.
    """

    service: str
    target: str
    source: str | None = None
    """The network that it leaves, where that is another one than home, which hosts it."""
    move_all: bool = False
    deadline_s: float | None = None
    """By then UEs change owner (move-all: have changed owner), or the migration is aborted."""
    stay_s: float | None = None
    """After that everything returns."""
    purpose: str | None = None
    ue_group: str | None = None
    area: tuple[str, ...] | None = None
    max_ues: int | None = None
    arrival_evidence: str = "target-asserted"


def draft(
    wanted: Wanted, package: Package, home: str, permission: Permission | None, now_ms: int, ues: int
) -> Contract:
    """The contract that home offers; `ValueError` says which term cannot be."""
    end = now_ms + int(wanted.stay_s * 1000) if wanted.stay_s is not None else now_ms + STAY_MS
    if permission is not None and wanted.stay_s is None:
        end = permission.not_after_ms
    deadline = now_ms + int(wanted.deadline_s * 1000) if wanted.deadline_s is not None else now_ms + DEADLINE_MS
    purpose = wanted.purpose or (permission.purpose if permission is not None else PURPOSE)
    terms = {
        "contractId": f"m-{uuid4().hex[:16]}",
        "service": package.manifest.service,
        "version": package.manifest.version,
        "packageDigest": package.digest,
        "sbomDigest": package.sbom_digest,
        "source": wanted.source or home,
        "target": wanted.target,
        "home": home,
        "arrivalEvidence": wanted.arrival_evidence,
        "moveAll": wanted.move_all,
        "window": Window(start_ms=now_ms, end_ms=end),
        "deadlineMs": min(deadline, end),
        "ueGroup": wanted.ue_group or (permission.ue_group if permission is not None else None),
        "maxUes": wanted.max_ues if wanted.max_ues is not None else max(UES_MAX, 2 * ues),
        "area": wanted.area or (permission.area if permission is not None else None),
        "purpose": purpose,
        "resources": package.manifest.resources,
    }
    return msgspec.convert(terms, Contract)


def uncovered(contract: Contract, ues: int) -> Refusal | None:
    """Why a service with so many UEs is not covered by the terms."""
    if ues <= contract.max_ues:
        return None
    return Refusal(
        "UES_EXCEEDED",
        f"{contract.service} has {ues} UEs; the contract covers {contract.max_ues}.",
        {"ues": str(ues), "maxUes": str(contract.max_ues)},
        "Begin a migration that covers more, with `--max-ues`.",
        status=409,
    )


def offer(contract: Contract, package: Package, signer: Signer) -> Offer:
    """The contract signed by this network, with what the target must know before it has the package."""
    envelope = signer.sign(contract.encode(), CONTRACT_TYPE).decode()
    return Offer(
        migration_id=contract.contract_id,
        contract=envelope,
        manifest=package.manifest,
        package_bytes=package.size_bytes,
    )


def terms_of(envelope: Envelope) -> Contract:
    """The contract in an envelope that was read before."""
    contract = statements.show_contract(envelope.encode())
    assert isinstance(contract, Contract)
    return contract


def check_answer(sent: Contract, envelope: Envelope, keys: OperatorKeys, by: Sequence[str]) -> Refusal | None:
    """Whether these parties have signed the same bytes."""
    contract = statements.read_contract(envelope.encode(), keys, by=by)
    if isinstance(contract, list):
        return contract[0]
    if contract.encode() != sent.encode():
        return Refusal("CONTRACT_CHANGED", "The partner has signed other terms than those that were offered.")
    return None


class Negotiation:
    """The side of a network that is offered something."""

    def __init__(
        self,
        network: str,
        nf_types: frozenset[str],
        folder: Path,
        deployments: Deployments,
        partners: Partners,
        signer: Signer,
    ) -> None:
        self._network = network
        self._nf_types = nf_types
        self._folder = folder
        self._deployments = deployments
        self._partners = partners
        self._signer = signer

    def read(self, offer: Offer, partner: Partner, keys: OperatorKeys) -> Contract | list[Refusal]:
        """The terms of an offer that this partner really signed, for this network; nothing is judged yet."""
        contract = statements.read_contract(offer.contract.encode(), keys, by=[partner.network])
        if isinstance(contract, list):
            return contract
        gives = contract.onward and contract.source == self._network
        mismatch = {
            "migrationId": (offer.migration_id, contract.contract_id),
            "home": (partner.network, contract.home),
            "source" if gives else "target": (self._network, contract.source if gives else contract.target),
            "service": (offer.manifest.service, contract.service),
            "version": (offer.manifest.version, contract.version),
        }
        return [
            Refusal(
                "OFFER_MISMATCH",
                f"The offer says {name} {said}, its contract {signed}.",
                {"term": name, "offer": said, "contract": signed},
            )
            for name, (said, signed) in mismatch.items()
            if said != signed
        ] or contract

    def judge(self, contract: Contract, manifest: Manifest, size: int, now_ms: int) -> list[Refusal]:
        """Every reason against these terms; none to take them."""
        reasons = [*self._uncovered(contract, now_ms), *self._unlinked(contract)]
        if contract.source == self._network:
            reasons += self._not_hosting(contract)
        else:
            reasons += self._not_to_host(contract, manifest, size)
        return reasons

    def _unlinked(self, contract: Contract) -> list[Refusal]:
        """Source and target speak with each other, keeper to keeper, through their own borders."""
        other = contract.target if contract.source == self._network else contract.source
        if self._partners.get(other) is not None:
            return []
        return [
            Refusal(
                "LINK_MISSING",
                f"{self._network} and {other} are no partners, so no UE can go from {contract.source} to "
                f"{contract.target}.",
                {"network": self._network, "other": other},
                f"{self._network} and {other} exchange cards; or the service returns to {contract.home} and goes from "
                "there.",
                status=409,
            )
        ]

    def _not_hosting(self, contract: Contract) -> list[Refusal]:
        """Why this network cannot be the source of a service of another one."""
        known = self._deployments.get(contract.service)
        if known is not None and (known.home, known.package_digest) == (contract.home, contract.package_digest):
            return []
        return [
            Refusal(
                "SOURCE_NOT_HOSTING",
                f"{self._network} does not host that package of {contract.service} for {contract.home}.",
                {"source": self._network, "packageDigest": contract.package_digest},
                f"`outrider migration list` at {contract.home} shows who does.",
                status=409,
            )
        ]

    def _not_to_host(self, contract: Contract, manifest: Manifest, size: int) -> list[Refusal]:
        """Why this network cannot be the target."""
        reasons = fits(manifest, self._nf_types)
        known = self._deployments.get(contract.service)
        if known is not None and known.migration_id != contract.contract_id:
            reasons.append(
                Refusal(
                    "SERVICE_PRESENT",
                    f"{contract.service} runs at {self._network} already.",
                    {"service": contract.service, "home": known.home},
                    "The UEs can use that one; nothing needs to move.",
                    status=409,
                )
            )
        if known is None and (full := self._deployments.full()) is not None:
            reasons.append(full)
        # The archive, what it unpacks to, and as much again for the copy of the state.
        needed, free = 4 * size, shutil.disk_usage(self._folder).free
        if size > limits.PACKAGE_BYTES or free - needed < limits.DISK_RESERVE_BYTES:
            reasons.append(no_room(needed, free))
        return reasons

    def _uncovered(self, contract: Contract, now_ms: int) -> list[Refusal]:
        """Terms that this engine does not cover; it refuses rather than do something like them."""
        reasons = []
        if contract.mode != "async":
            reasons.append(
                Refusal("MODE_UNSUPPORTED", f"Contracts in {contract.mode} mode are not covered here; async is.")
            )
        if now_ms >= contract.deadline_ms:
            reasons.append(
                Refusal(
                    "DEADLINE_PASSED",
                    "The contract's deadline has passed already.",
                    {"deadlineMs": str(contract.deadline_ms), "nowMs": str(now_ms)},
                )
            )
        return reasons

    def sign(self, envelope: Envelope) -> Envelope | Refusal:
        """The contract with this network's signature too."""
        signed = self._signer.countersign(envelope.encode(), CONTRACT_TYPE)
        return signed if isinstance(signed, Refusal) else signed.decode()
