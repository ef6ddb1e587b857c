"""How the operator's APIs show migrations and services: the same sentences everywhere."""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from outrider.core.loss import Loss
from outrider.core.manifest import Manifest
from outrider.core.refusal import Refusal
from outrider.core.supply import Finding
from outrider.functions.lmsf.anew import Anew
from outrider.functions.lmsf.deployments import Deployments
from outrider.functions.lmsf.permissions import Permissions
from outrider.functions.lmsf.record import BegunAnew, Deployment, Instance, Package, Progress, View
from outrider.functions.lmsf.runner import Runner
from outrider.protocol.phase import Ending, Fact, Phase, Role


class PartnerInfo(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The other side, in its own words, as of `atMs`."""

    network: str
    answers: bool
    phase: Phase | None = None
    facts: list[Fact] = []
    sentence: str = ""
    waiting_for: str = ""
    progress: Progress | None = None
    store_id: str = ""
    """Of its host, as it was when it was prepared."""
    at_ms: int = 0


class MigrationInfo(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A migration as its operator sees it."""

    migration_id: str
    service: str
    version: str
    source: str
    target: str
    home: str
    role: Role
    move_all: bool
    phase: Phase
    sentence: str
    waiting_for: str
    why: str
    over: bool
    facts: list[Fact]
    phases: dict[str, int]
    progress: Progress | None
    last: Progress | None
    ending: Ending | None
    refusals: list[Refusal]
    undone: list[str]
    in_doubt: list[str]
    unreachable_ues: int
    loss: Loss | None
    read_log_of: str | None
    deadline_ms: int
    end_ms: int
    package_digest: str
    contract_digest: str
    receipt: str | None
    partner: PartnerInfo
    giver: PartnerInfo | None
    """To home of a migration between two others, the source; `partner` is the target."""
    created_ms: int


def migration(r: Runner) -> MigrationInfo:
    """What there is to know of a migration here, and of the partner's side."""
    record, row, contract = r.record, r.row, r.contract
    home = row.role is Role.HOME
    silent = r.partner in r.silent
    back = row.phase in (Phase.RETURNING, Phase.ABORTING)
    away = r.progress.moved_ues if r.progress is not None and silent and back and row.role is Role.SOURCE else 0
    stopped = row.phase in (Phase.ABORTING, Phase.ABORTED)
    return MigrationInfo(
        migration_id=r.id,
        service=record.service,
        version=record.version,
        source=contract.source,
        target=contract.target,
        home=contract.home,
        role=row.role,
        move_all=row.move_all,
        phase=row.phase,
        sentence=row.phase.sentence,
        waiting_for=r.waiting_for(),
        why=record.why,
        over=r.over,
        facts=sorted(row.facts, key=lambda f: f.value),
        phases=record.phases,
        progress=record.peer.progress if home and record.peer is not None else r.progress,
        last=record.last,
        ending=row.ending,
        refusals=record.refusals,
        undone=record.undone if stopped else [],
        in_doubt=(r.progress.in_doubt if r.progress is not None else []) if not r.over else [],
        unreachable_ues=away,
        loss=record.loss,
        read_log_of=row.ending.by if row.ending is not None and stopped else None,
        deadline_ms=contract.deadline_ms,
        end_ms=contract.window.end_ms,
        package_digest=contract.package_digest,
        contract_digest=contract.digest,
        receipt=record.receipt,
        partner=_partner(r, r.partner, record.peer),
        giver=_partner(r, contract.source, record.giver) if home else None,
        created_ms=record.created_ms,
    )


def _partner(r: Runner, network: str, view: View | None) -> PartnerInfo:
    return PartnerInfo(
        network=network,
        answers=network not in r.silent,
        phase=view.phase if view is not None else None,
        facts=sorted(view.facts, key=lambda f: f.value) if view is not None else [],
        sentence=view.sentence if view is not None else "",
        waiting_for=view.waiting_for if view is not None else "",
        progress=view.progress if view is not None else None,
        store_id=view.store_id if view is not None else "",
        at_ms=view.at_ms if view is not None else 0,
    )


class ServiceInfo(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A service that runs at this network, as its operator sees it."""

    service: str
    version: str
    description: str
    package_digest: str
    home: str
    hosted: bool
    state: str
    sentence: str
    nf_status: str
    instances: list[Instance]
    api_root: str | None
    pid: int
    store_id: str
    keeper_instance_id: str
    migration_id: str | None
    refusal: Refusal | None
    against: list[Refusal]
    """Why nobody should run this software any more: revocations of its package or its signer."""
    begun_anew: list[BegunAnew]
    """Each time that it began again with nothing, because its store was lost."""
    created_ms: int


_STATES = {
    "INSTALLING": "the package is being installed",
    "STARTING": "the host is being started",
    "RUNNING": "the host runs and its NF instances are registered",
    "REMOVING": "the host is being removed",
    "FAILED": "the host could not be started",
    "STORE_LOST": "the store is lost, and nothing is served",
}


def service(deployment: Deployment, deployments: Deployments, anew: Anew, against: list[Refusal]) -> ServiceInfo:
    """What there is to know of a service here, but for its keeper's own numbers."""
    host = deployments.host(deployment.service)
    sentence = deployment.refusal.sentence if deployment.refusal is not None else _STATES[deployment.state]
    if against:
        sentence += f"; but {against[0].sentence}"
    return ServiceInfo(
        service=deployment.service,
        version=deployment.version,
        description=deployment.manifest.description,
        package_digest=deployment.package_digest,
        home=deployment.home,
        hosted=deployment.migration_id is not None,
        state=deployment.state,
        sentence=sentence,
        nf_status=deployment.nf_status,
        instances=deployment.instances,
        api_root=host.api_root if host is not None else None,
        pid=host.pid if host is not None else 0,
        store_id=host.store_id if host is not None else "",
        keeper_instance_id=deployment.keeper_instance_id,
        migration_id=deployment.migration_id,
        refusal=deployment.refusal,
        against=against,
        begun_anew=anew.of(deployment.service),
        created_ms=deployment.created_ms,
    )


class PermittedBy(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Somebody's permission over a package."""

    network: str
    permission_id: str
    source: str
    target: str
    state: str


class RunsAt(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A place where a package runs, or is on its way to."""

    network: str
    service: str
    state: str
    """Of the host here; at a partner the phase of the migration."""
    migration_id: str | None = None


class PackageInfo(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A package as its operator sees it."""

    digest: str
    sbom_digest: str
    manifest: Manifest
    size_bytes: int
    vendor_key_id: str
    origin: str
    onboarded_ms: int
    published_by: str
    """The vendor who signed it."""
    state: Literal["ONBOARDED", "ENABLED", "IN_USE", "WITHDRAWN"]
    sentence: str
    permitted_by: list[PermittedBy]
    runs_at: list[RunsAt]
    withdrawn_ms: int
    withdrawn_why: str
    against: list[Refusal] = []
    """Every reason of this operator against it now; of one package only, since it takes time."""
    findings: list[Finding] = []
    """Known vulnerabilities; of one package only."""


def package(
    found: Package,
    network: str,
    permissions: Permissions,
    deployments: Deployments,
    migrations: Iterable[Runner],
) -> PackageInfo:
    """What there is to know of a package here, but for what speaks against it."""
    permitted = [
        PermittedBy(
            network=view.permission.signer,
            permission_id=view.id,
            source=view.permission.source,
            target=view.permission.target,
            state=view.state,
        )
        for view in permissions.all()
        if view.permission.package_digest == found.digest
    ]
    runs = [
        RunsAt(network=network, service=d.service, state=d.state, migration_id=d.migration_id)
        for d in deployments.all()
        if d.package_digest == found.digest
    ]
    runs += [
        RunsAt(network=r.contract.target, service=r.record.service, state=r.row.phase.value, migration_id=r.id)
        for r in migrations
        if r.row.role.leads and not r.over and r.contract.package_digest == found.digest
    ]
    enabled = any(p.network == network and p.state == "VALID" for p in permitted)
    here = any(r.network == network for r in runs)
    state: Literal["ONBOARDED", "ENABLED", "IN_USE", "WITHDRAWN"]
    if found.withdrawn_ms:
        state, sentence = "WITHDRAWN", "nothing new begins with it" + ("; what runs goes on" if here else "")
    elif here:
        state, sentence = "IN_USE", "a service runs from it here"
    elif enabled:
        state, sentence = "ENABLED", "this operator permits it, and nothing runs from it here"
    else:
        state, sentence = "ONBOARDED", "it is verified and kept; this operator has permitted nothing with it"
    return PackageInfo(
        digest=found.digest,
        sbom_digest=found.sbom_digest,
        manifest=found.manifest,
        size_bytes=found.size_bytes,
        vendor_key_id=found.vendor_key_id,
        origin=found.origin,
        onboarded_ms=found.onboarded_ms,
        published_by=found.manifest.vendor,
        state=state,
        sentence=sentence,
        permitted_by=permitted,
        runs_at=runs,
        withdrawn_ms=found.withdrawn_ms,
        withdrawn_why=found.withdrawn_why,
    )


def as_json(value: Any) -> Any:
    """The value as it stands on the wire."""
    return msgspec.to_builtins(value)
