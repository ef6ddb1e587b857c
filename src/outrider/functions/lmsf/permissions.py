"""Permissions and revocations: kept as their signers signed them, and judged anew each time that it matters.

Nothing is concluded from having seen one before. `judge` reads every envelope again with the keys that count now, and
asks `decide.permit`; starting a migration and going on with it need the same answer.
"""

from collections.abc import Iterable

import msgspec

from outrider.core.contract import Contract
from outrider.core.manifest import Manifest
from outrider.core.permission import Permission, Revocation
from outrider.core.refusal import Refusal, Refused
from outrider.decide.permit import Hosting, Permitted, permit
from outrider.functions.lmsf import audited
from outrider.functions.lmsf.journal import Journal
from outrider.functions.lmsf.ports import Clock, Partners, Signer
from outrider.functions.lmsf.record import Envelope, Exchange
from outrider.functions.lmsf.signer import operator_keys
from outrider.package import statements

PERMISSIONS_LIMIT = 1_000
"""Permissions and revocations kept of one network: a partner cannot fill the journal."""


class PermissionView(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A permission as the API shows it."""

    id: str
    permission: Permission
    signature: str
    revoked: bool
    state: str
    """In a word: VALID, NOT_YET_VALID, EXPIRED, REVOKED, SIGNATURE_INVALID or SIGNER_UNKNOWN."""
    envelope: Envelope


class Permissions:
    """All permissions that this network knows, own and others'."""

    def __init__(self, network: str, journal: Journal, signer: Signer, partners: Partners, clock: Clock) -> None:
        self._network = network
        self._journal = journal
        self._signer = signer
        self._partners = partners
        self._clock = clock
        self._permissions: dict[str, tuple[Permission, Envelope]] = {}
        self._revocations: dict[str, tuple[Revocation, Envelope]] = {}
        for body in journal.all("permission"):
            permission = statements.show_permission(body)
            if isinstance(permission, Permission):
                self._permissions[permission.id] = permission, body.decode()
        for body in journal.all("revocation"):
            revocation = statements.read_revocation(body, self.keys)
            if isinstance(revocation, Revocation):
                self._revocations[_name(revocation)] = revocation, body.decode()

    @property
    def keys(self) -> statements.OperatorKeys:
        """Whose signatures count now."""
        return operator_keys(self._network, self._signer, self._partners)

    def all(self) -> list[PermissionView]:
        """Every permission, the latest to end first."""
        views = [self._view(p, e) for p, e in self._permissions.values()]
        return sorted(views, key=lambda v: (-v.permission.not_after_ms, v.id))

    def get(self, permission_id: str) -> PermissionView | None:
        """One permission."""
        known = self._permissions.get(permission_id)
        return None if known is None else self._view(*known)

    def _view(self, permission: Permission, envelope: Envelope) -> PermissionView:
        signed = statements.read_permission(envelope.encode(), self.keys)
        signature = "malformed" if isinstance(signed, Refusal) else signed.signature.value
        now = self._clock.now_ms()
        revoked = f"{permission.signer}/{permission.id}" in self._revocations
        if signature != "valid":
            state = "SIGNATURE_INVALID" if signature in ("invalid", "malformed") else "SIGNER_UNKNOWN"
        elif revoked:
            state = "REVOKED"
        elif now >= permission.not_after_ms:
            state = "EXPIRED"
        else:
            state = "NOT_YET_VALID" if now < permission.not_before_ms else "VALID"
        return PermissionView(
            id=permission.id, permission=permission, signature=signature, revoked=revoked, state=state,
            envelope=envelope,
        )  # fmt: skip

    async def add(self, envelope: Envelope, *, signers: tuple[str, ...] = (), given_by: str = "") -> Permission:
        """Keep a permission; refused if it cannot be read, or if it is of none of the `signers` that it must be of.

        Its signature is judged when it is used, so that keys exchanged later still count.
        """
        permission = statements.show_permission(envelope.encode())
        if isinstance(permission, Refusal):
            raise Refused(permission)
        if signers and permission.signer not in signers:
            raise Refused(_not_theirs(permission.signer, given_by))
        if given_by not in ("", permission.signer) and self._view(permission, envelope).signature != "valid":
            raise Refused(_not_theirs(permission.signer, given_by))  # it must not fill another's room here
        if permission.id not in self._permissions:
            self._check_room(permission.signer)
            kept = audited.permitted(permission, given_by, self._network)
            await self._journal.put("permission", permission.id, envelope.encode(), audit=[kept])
            self._permissions[permission.id] = permission, envelope
        return permission

    async def revoke(self, envelope: Envelope, *, signers: tuple[str, ...] = (), given_by: str = "") -> Revocation:
        """Keep a revocation that its signer really signed."""
        revocation = statements.read_revocation(envelope.encode(), self.keys)
        if isinstance(revocation, Refusal):
            raise Refused(revocation)
        if signers and revocation.signer not in signers:
            raise Refused(_not_theirs(revocation.signer, given_by))
        name = _name(revocation)
        if name not in self._revocations:
            self._check_room(revocation.signer)
            kept = audited.revoked(revocation, given_by, self._network)
            await self._journal.put("revocation", name, envelope.encode(), audit=[kept])
            self._revocations[name] = revocation, envelope
        return revocation

    def _check_room(self, signer: str) -> None:
        kept = sum(p.signer == signer for p, _ in self._permissions.values())
        kept += sum(r.signer == signer for r, _ in self._revocations.values())
        if kept >= PERMISSIONS_LIMIT:
            raise Refused(
                Refusal(
                    "PERMISSIONS_TOO_MANY",
                    f"{kept} permissions and revocations of {signer} are kept already.",
                    {"limit": str(PERMISSIONS_LIMIT)},
                )
            )

    def exchange(self, service: str, *signers: str) -> Exchange:
        """Permissions and revocations for a service, to give to a partner: the own ones, or those of `signers`."""
        of = signers or (self._network,)
        given = {p.id: e for p, e in self._permissions.values() if p.signer in of and p.service == service}
        revoked = [e for r, e in self._revocations.values() if r.signer in of and r.permission_id in given]
        return Exchange(list(given.values()), revoked)

    async def take(self, exchange: Exchange, partner: str, *signers: str) -> list[Refusal]:
        """Keep what a partner gave, of its own or of `signers`; what of it cannot be kept is told."""
        refused = []
        for add, envelopes in ((self.add, exchange.permissions), (self.revoke, exchange.revocations)):
            for envelope in envelopes:
                try:
                    await add(envelope, signers=signers or (partner,), given_by=partner)
                except Refused as error:
                    refused.append(error.refusal)
        return refused

    def judge(
        self, contract: Contract, manifest: Manifest, *, instances: int, presented: Iterable[Refusal] = ()
    ) -> Permitted | list[Refusal]:
        """Whether every network concerned permits what the contract says, now; otherwise every reason why not."""
        keys = self.keys
        hosting = Hosting.under(
            contract, data_categories=manifest.state_schema.categories.values(), instances=instances
        )
        networks = contract.parties
        mine = [e for p, e in self._permissions.values() if p.service == contract.service and p.signer in networks]
        about = [self._about(e, contract) for e in mine]
        candidates = [e for e, close in zip(mine, about, strict=True) if close] or mine
        signed = [statements.read_permission(e.encode(), keys) for e in candidates]
        revocations = [r for r, _ in self._revocations.values()]
        return permit([*signed, *presented], hosting, revocations=revocations, now_ms=self._clock.now_ms())

    def _about(self, envelope: Envelope, contract: Contract) -> bool:
        """Whether a permission is about this way: one for another partner is no reason for anything."""
        permission = statements.show_permission(envelope.encode())
        return isinstance(permission, Permission) and (permission.source, permission.target) == (
            contract.source,
            contract.target,
        )

    def terms_for(self, service: str, package_digest: str, source: str, target: str) -> Permission | None:
        """This network's own valid permission for that way of a service: the offer takes its terms."""
        way = (self._network, service, package_digest, source, target)
        for view in self.all():
            p = view.permission
            if (p.signer, p.service, p.package_digest, p.source, p.target) == way and view.state == "VALID":
                return p
        return None


def _name(revocation: Revocation) -> str:
    return f"{revocation.signer}/{revocation.permission_id}"


def _not_theirs(signer: str, partner: str) -> Refusal:
    return Refusal(
        "PERMISSION_NOT_THEIRS",
        f"{partner} presents a statement of {signer}, which is not its to present.",
        {"signer": signer, "presentedBy": partner},
    )
