"""What the LMSF keeps of a migration and of a service, and what two LMSFs tell each other.

`Migration` and `Deployment` are journalled whole at each change; `View` is what goes to the partner, and the partner's
last one is kept. Facts of the phase machine stand in `Migration.row`, and nowhere else.
"""

from typing import Any, Literal

import msgspec

from outrider.core.contract import Contract
from outrider.core.loss import Loss
from outrider.core.manifest import Manifest
from outrider.core.refusal import Refusal
from outrider.protocol.phase import Ending, Fact, Phase, Role, Row
from outrider.store.port import StoreMark

Envelope = str
"""A DSSE envelope as text: its exact bytes are signed, so it is carried as one string."""


def role_of(network: str, contract: Contract) -> Role:
    """The side of a migration that a party of its contract is on."""
    if network == contract.home:
        return Role.HOME if contract.onward else Role.SOURCE
    return Role.GIVER if network == contract.source else Role.TARGET


class Progress(msgspec.Struct, frozen=True, rename="camel"):
    """How far a migration is, as the own keeper reports it; never journalled while it changes."""

    state: str = ""
    copied_ues: int = 0
    total_ues: int = 0
    bytes_sent: int = 0
    bulk_bytes_sent: int = 0
    lag_entries: int = 0
    ues: int = 0
    """Contexts of UEs at this network: what the contract bounds (`max_ues`), at the source."""
    moved_ues: int = 0
    remaining_ues: int = 0
    in_doubt: list[str] = []
    in_doubt_count: int = 0
    waiting_for: str = ""
    waits: dict[str, Any] = {}
    returning: bool = False
    """The numbers are those of the way back."""
    store_lost: str = ""
    """Why the partner's store counts as lost (PROTOCOL.md §9); empty if it does not, or was declared so."""


class View(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Where one side of a migration stands: the whole of what it tells the other, each time."""

    migration_id: str
    network: str
    role: Role
    phase: Phase
    facts: frozenset[Fact] = frozenset()
    ending: Ending | None = None
    refusals: list[Refusal] = []
    """Every reason of the ending."""
    sentence: str = ""
    waiting_for: str = ""
    progress: Progress | None = None
    store_id: str = ""
    """Of the keeper's store, so that the other's keeper notices a store that was replaced."""
    other_store_id: str = ""
    """Home of a migration between two others: the store of the third, to the giver the target's and the reverse."""
    giver_gone: bool = False
    """Home of a migration between two others: the giver hosts the service no more."""
    digest_key: str | None = None
    """Lead only: the key of the content digests, so that all stores hash alike."""
    receipt: Envelope | None = None
    """Target only: the signed erasure receipt."""
    patient_until_ms: int = 0
    """Until when a human may decide about it, here or, as the lead has heard, at another party; 0 if nobody has to."""
    at_ms: int = 0


class Migration(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One migration at this network."""

    id: str
    service: str
    version: str
    partner: str
    """The other network; at home of a migration between two others the target, at the two home."""
    row: Row
    contract: Envelope
    manifest: Manifest
    package_bytes: int
    created_ms: int
    phases: dict[str, int] = {}
    """When each phase was entered (UTC, ms)."""
    why: str = ""
    """The sentence of the last step."""
    refusals: list[Refusal] = []
    """Every reason, where the ending names only the first."""
    peer: View | None = None
    giver: View | None = None
    """Home of a migration between two others: what the giver told last."""
    store_id: str = ""
    other_store_id: str = ""
    """Of a migration between two others: the giver's store; at the giver, the target's."""
    digest_key: str | None = None
    erased_ues: int | None = None
    receipt: Envelope | None = None
    undone: list[str] = []
    in_doubt: list[str] = []
    lost_store: str = ""
    """The partner's store, if an operator has declared it lost."""
    loss: Loss | None = None
    last: Progress | None = None
    """The keeper's numbers when the phase last changed."""
    back: Progress | None = None
    """The way back's last numbers."""
    told: bool = False
    """The partner has the end of this side, or is not told any more."""
    giver_told: bool = False
    """As `told`, for the giver."""

    @property
    def role(self) -> Role:
        """The side that this network is on."""
        return self.row.role

    @property
    def return_id(self) -> str:
        """Name of the way back at the keepers."""
        return f"{self.id}.r"


class Instance(msgspec.Struct, frozen=True, rename="camel"):
    """One NF service of a deployed service, as an NF instance of its own."""

    nf_instance_id: str
    nf_service: str
    nf_type: str


class Deployment(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A service that runs at this network: deployed by its operator, or hosted for a partner."""

    service: str
    version: str
    package_digest: str
    home: str
    manifest: Manifest
    instances: list[Instance]
    keeper_instance_id: str
    state: Literal["INSTALLING", "STARTING", "RUNNING", "REMOVING", "FAILED", "STORE_LOST"] = "INSTALLING"
    nf_status: str = "REGISTERED"
    selection: dict[str, Any] | None = None
    """`SelectionConditions` of TS 29.510, with nf_status CANARY_RELEASE."""
    migration_id: str | None = None
    """The migration that brought it here; None at home."""
    digest_key: str | None = None
    package_dir: str = ""
    refusal: Refusal | None = None
    created_ms: int = 0

    @property
    def store_lost(self) -> bool:
        """Whether its host does not run because the store is gone, or is an older copy of it."""
        return self.refusal is not None and self.refusal.code == "STORE_LOST"

    @property
    def nf_instance_ids(self) -> dict[str, str]:
        """NF instance id by NF service."""
        return {i.nf_service: i.nf_instance_id for i in self.instances}


class BegunAnew(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A service of this operator began again with nothing, because its store was lost: who said so, what is lost."""

    service: str
    at_ms: int
    by: str
    """Who asked for it, in their own words."""
    network: str
    sentence: str = ""
    lost: StoreMark | None = None
    """The store that is given up, as far as it was seen."""
    why: str = ""
    """What was found in its place."""


class Package(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A package in the catalogue, verified when it came."""

    digest: str
    """SHA-256 of the archive; what permissions and contracts name."""
    sbom_digest: str
    manifest: Manifest
    size_bytes: int
    vendor_key_id: str = ""
    origin: str = ""
    """The partner it was fetched from; empty if this operator onboarded it."""
    onboarded_ms: int = 0
    withdrawn_ms: int = 0
    """When this operator withdrew it; nothing new begins with it then. 0: it did not."""
    withdrawn_why: str = ""


class Offer(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What home sends to open a migration."""

    migration_id: str
    contract: Envelope
    manifest: Manifest
    package_bytes: int
    other_store_id: str = ""
    """To a target that another network than home gives to: that one's store."""


class Agreed(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to an offer that is taken: the same contract, with one more signature."""

    contract: Envelope
    store_id: str = ""
    """Of the host, where one runs."""


class Exchange(msgspec.Struct, frozen=True, rename="camel"):
    """Permissions and revocations of one side, and, in the answer, what it has against the migration.

    Home of a migration between two others gives each the other's too, and the contract that all have signed.
    """

    permissions: list[Envelope] = []
    revocations: list[Envelope] = []
    refusals: list[Refusal] = []
    contract: Envelope | None = None
