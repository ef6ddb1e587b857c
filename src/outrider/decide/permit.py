"""May this package run there now? Every network concerned must have said so, over the same package and SBOM.

Starting and continuing to run need the same answer, so the caller asks again whenever a permission ends or is taken
back. Checks fail closed: what is not a valid, current, matching permission counts as none, and says why.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from outrider.core.contract import Contract
from outrider.core.permission import Permission, Revocation, parties
from outrider.core.refusal import Refusal


class Signature(enum.Enum):
    """What verifying a permission's signature said."""

    VALID = "valid"
    """By an operator key of the network that the permission names as its signer."""
    INVALID = "invalid"
    SIGNER_UNKNOWN = "signer-unknown"
    """No key of that network is trusted here, or another key signed."""


@dataclass(frozen=True, slots=True)
class SignedPermission:
    """A permission and what verifying its signature said."""

    permission: Permission
    signature: Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosting:
    """What is to be permitted: which software, from where to where, for whom.

    `data_categories` are those of the package's state schema. `instances` counts the hosts of this package that would
    run at the target.
    """

    service: str
    package_digest: str
    sbom_digest: str
    vex_digest: str | None = None
    source: str
    target: str
    home: str
    purpose: str
    ue_group: str | None
    area: tuple[str, ...] | None
    data_categories: frozenset[str]
    instances: int

    @classmethod
    def under(
        cls, contract: Contract, *, data_categories: Iterable[str], instances: int, vex_digest: str | None = None
    ) -> "Hosting":
        """What a contract asks for."""
        return cls(
            service=contract.service,
            package_digest=contract.package_digest,
            sbom_digest=contract.sbom_digest,
            vex_digest=vex_digest,
            source=contract.source,
            target=contract.target,
            home=contract.home,
            purpose=contract.purpose,
            ue_group=contract.ue_group,
            area=contract.area,
            data_categories=frozenset(data_categories),
            instances=instances,
        )


@dataclass(frozen=True, slots=True)
class Permitted:
    """Every network concerned permits it: by which permission, and until when all of them hold."""

    by: dict[str, str]
    """Permission id by network."""
    until_ms: int


def permit(
    permissions: Sequence[SignedPermission | Refusal],
    hosting: Hosting,
    *,
    revocations: Iterable[Revocation],
    now_ms: int,
) -> Permitted | list[Refusal]:
    """Permitted if each party has a permission that holds; otherwise every reason why not.

    `permissions` are those presented; one that could not even be read is its refusal. `revocations` have verified
    signatures. A party may have several permissions: one that holds is enough, the one that ends last counts.
    """
    taken_back = {(r.signer, r.permission_id): r for r in revocations}
    refused = [p for p in permissions if isinstance(p, Refusal)]
    held: dict[str, Permission] = {}
    by_signer: dict[str, list[Refusal]] = {}
    for signed in permissions:
        if isinstance(signed, Refusal):
            continue
        permission = signed.permission
        reasons = _reasons(signed, hosting, taken_back.get((permission.signer, permission.id)), now_ms)
        by_signer.setdefault(permission.signer, []).extend(reasons)
        best = held.get(permission.signer)
        if not reasons and (best is None or best.not_after_ms < permission.not_after_ms):
            held[permission.signer] = permission
    needed = parties(hosting.source, hosting.target, hosting.home)
    missing = [network for network in needed if network not in held]
    if not missing:
        return Permitted({n: held[n].id for n in needed}, min(held[n].not_after_ms for n in needed))
    for network in missing:
        refused += by_signer.pop(network, []) or [_missing(network, hosting)]
    for network, reasons in by_signer.items():
        if network not in needed:
            refused += reasons
    return refused


def _missing(network: str, hosting: Hosting) -> Refusal:
    return Refusal(
        "PERMISSION_MISSING",
        f"{network} has not signed a permission for {hosting.service} from {hosting.source} to {hosting.target}.",
        {"network": network, "service": hosting.service, "packageDigest": hosting.package_digest},
        f"The operator of {network} runs `outrider permission sign`.",
    )


def _reasons(signed: SignedPermission, hosting: Hosting, revoked: Revocation | None, now_ms: int) -> list[Refusal]:
    """All reasons why this permission does not hold; none if it does."""
    permission = signed.permission
    who, facts = permission.signer, {"network": permission.signer, "permissionId": permission.id}
    again = f"The operator of {who} signs a permission over these terms."
    found: list[Refusal] = []

    def no(code: str, sentence: str, remedy: str = again, **more: str | None) -> None:
        found.append(Refusal(code, sentence, facts | {k: v or "none" for k, v in more.items()}, remedy))

    def same(code: str, what: str, permitted: str | None, asked: str | None, remedy: str = again) -> None:
        if permitted != asked:
            sentence = f"{who} permits {what} {permitted or 'none'}, but this is {asked or 'none'}."
            no(code, sentence, remedy, permitted=permitted, asked=asked)

    if signed.signature is Signature.INVALID:
        no("PERMISSION_SIGNATURE_INVALID", f"The signature of {who} does not fit the permission: it was changed.")
    elif signed.signature is not Signature.VALID:
        no(
            "PERMISSION_SIGNER_UNKNOWN",
            f"The permission is not signed by a key of {who} that is known here.",
            f"Exchange partner cards with {who}.",
        )
    if who not in parties(hosting.source, hosting.target, hosting.home):
        no("PERMISSION_NETWORK_MISMATCH", f"{who} permits, but is no party of this migration.")
    same("PERMISSION_SERVICE_MISMATCH", "service", permission.service, hosting.service)
    changed = "Any change of the software needs new permissions of all networks."
    same("PERMISSION_PACKAGE_MISMATCH", "package", permission.package_digest, hosting.package_digest, changed)
    same("PERMISSION_SBOM_MISMATCH", "SBOM", permission.sbom_digest, hosting.sbom_digest, changed)
    same("PERMISSION_VEX_MISMATCH", "VEX", permission.vex_digest, hosting.vex_digest, changed)
    for role in ("source", "target", "home"):
        same("PERMISSION_NETWORK_MISMATCH", role, getattr(permission, role), getattr(hosting, role))
    same("PERMISSION_PURPOSE_MISMATCH", "purpose", permission.purpose, hosting.purpose)
    if permission.ue_group is not None:
        same("PERMISSION_UE_GROUP_MISMATCH", "UE group", permission.ue_group, hosting.ue_group)
    if permission.area is not None:
        outside = None if hosting.area is None else sorted(set(hosting.area) - set(permission.area))
        if outside is None or outside:
            where = "everywhere" if outside is None else ", ".join(outside)
            no("PERMISSION_AREA_MISMATCH", f"{who} permits the area {', '.join(permission.area)}, not {where}.")
    if permission.data_policy.categories is not None:
        beyond = sorted(hosting.data_categories - set(permission.data_policy.categories))
        if beyond:
            no("PERMISSION_DATA_NOT_COVERED", f"{who} does not permit that {', '.join(beyond)} data moves.")
    if hosting.instances > permission.max_instances:
        no(
            "PERMISSION_INSTANCES_EXCEEDED",
            f"{who} permits {permission.max_instances} hosts at {hosting.target}, this would be {hosting.instances}.",
            "Retire one first, or sign for more.",
        )
    if now_ms < permission.not_before_ms:
        no(
            "PERMISSION_NOT_YET_VALID",
            f"The permission of {who} begins in {_span(permission.not_before_ms - now_ms)}.",
            "Wait, or sign an earlier one.",
            notBeforeMs=str(permission.not_before_ms),
        )
    if now_ms >= permission.not_after_ms:
        no(
            "PERMISSION_EXPIRED",
            f"The permission of {who} ended {_span(now_ms - permission.not_after_ms)} ago.",
            again,
            notAfterMs=str(permission.not_after_ms),
        )
    if revoked is not None:
        because = f": {revoked.reason}" if revoked.reason else ""
        no(
            "PERMISSION_REVOKED",
            f"{who} has taken its permission back{because}.",
            revokedAtMs=str(revoked.revoked_at_ms),
        )
    return found


def _span(ms: int) -> str:
    """A duration for people."""
    for unit, size in (("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000)):
        if ms >= 2 * size:
            return f"{ms // size} {unit}"
    return f"{max(ms, 0) / 1000:.1f} seconds"
