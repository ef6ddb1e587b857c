"""What an operator's policy is asked: one typed value with every fact that a rule may look at.

It is kept with the decision, so that the same question can be put to another policy later, and it is what the file of
`outrider policy explain --request` and each case of `outrider policy test` say. A fact that is not known yet is None,
never a guess: a rule about it is then not judged, and the decision says so.
"""

import datetime as dt
import enum
from collections.abc import Iterable
from typing import Literal

import msgspec

from outrider.core.contract import Contract
from outrider.core.manifest import Manifest, Resources
from outrider.core.permission import check_networks
from outrider.core.supply import Component


class Action(enum.StrEnum):
    """What is to be allowed, and who judges it when."""

    HOST = "HostService"
    """Target: run a partner's service here. At the offer, and when the package is here, before it is installed."""
    SEND = "SendService"
    """Source, which is home: let an own service go to a partner. Before it is offered."""
    ONWARD = "GoOnward"
    """Home and the network that hosts it: let a service go from there to a third network. Before it is offered."""
    SIGN = "SignPermission"
    """Every party: let a migration of a permitted package begin. When permissions are exchanged."""
    STAY = "ContinueStay"
    """Every party: go on with a migration and the stay after it. Every second, and at once after a change."""


class Part(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What a rule sees of a component; `licence` is an SPDX expression or a name, empty where none is declared."""

    name: str
    version: str = ""
    licence: str = ""
    inactive: bool = False
    """Its own metadata says that nobody works on it any more."""


class Sbom(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What the SBOM of the package says: the service's own code first, then the libraries."""

    components: tuple[Part, ...] = ()


class Request(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """The facts of one decision. Times in UTC milliseconds since 1970."""

    action: Action
    network: str
    """Whose policy is asked."""
    partner: str
    """The other network that it is about: home for the target, else the target."""
    source: str
    target: str
    home: str
    role: Literal["source", "target", "giver", "home"]
    """The side of `network`."""
    phase: str = "NEGOTIATING"
    service: str
    version: str
    vendor: str
    licence: str = "NOASSERTION"
    """Of the service's own code, as its manifest says."""
    export_class: str = ""
    """Under export control, as its manifest says; empty where it declares none."""
    package_digest: str = ""
    nf_types: tuple[str, ...] = ()
    data_categories: tuple[str, ...] = ()
    """Of the package's state schema: what moves with each UE."""
    purpose: str
    ue_group: str | None = None
    area: tuple[str, ...] | None = None
    """None: everywhere."""
    max_ues: int
    move_all: bool = False
    mode: str = "async"
    arrival_evidence: str = "home-verified"
    start_ms: int
    end_ms: int
    deadline_ms: int
    resources: Resources = Resources()
    sbom: Sbom | None = None
    """None while the package is not here: an offer names only the SBOM's digest."""
    now_ms: int
    approved_by: str = ""
    """Who approved it here, where the policy asks for a human's approval."""

    def __post_init__(self) -> None:
        check_networks(self.network, self.partner, self.source, self.target, self.home)
        for name in ("start_ms", "end_ms", "deadline_ms", "now_ms"):
            if not 0 <= getattr(self, name) <= 253_402_300_799_999:
                raise ValueError(f"{name} is no time between 1970 and the year 9999")
        if not 0 <= self.max_ues < 1 << 53:
            raise ValueError("max_ues is no number of UEs")

    @property
    def others(self) -> tuple[str, ...]:
        """Every other party."""
        parties = dict.fromkeys((self.source, self.target, self.home))
        return tuple(party for party in parties if party != self.network)

    @property
    def enters(self) -> bool:
        """Whether data comes here; otherwise it leaves, or is let go by home."""
        return self.role == "target"

    @property
    def stay_ms(self) -> int:
        """How long the target may host the service."""
        return self.end_ms - self.start_ms

    def local(self, zone: dt.tzinfo) -> dt.datetime:
        """The time of the decision, on the operator's clock."""
        return dt.datetime.fromtimestamp(self.now_ms / 1000, dt.UTC).astimezone(zone)


def from_terms(
    action: Action,
    contract: Contract,
    manifest: Manifest,
    *,
    network: str,
    role: Literal["source", "target", "giver", "home"],
    phase: str,
    now_ms: int,
    components: Iterable[Component] | None = None,
    approved_by: str = "",
) -> Request:
    """The question about a contract and the package that it names."""
    return Request(
        action=action,
        network=network,
        partner=contract.home if role == "target" else contract.target,
        source=contract.source,
        target=contract.target,
        home=contract.home,
        role=role,
        phase=phase,
        service=contract.service,
        version=contract.version,
        vendor=manifest.vendor,
        licence=manifest.licence,
        export_class=manifest.export_class,
        package_digest=contract.package_digest,
        nf_types=tuple(sorted({spec.nf_type for spec in manifest.nf_services})),
        data_categories=tuple(sorted(set(manifest.state_schema.categories.values()))),
        purpose=contract.purpose,
        ue_group=contract.ue_group,
        area=contract.area,
        max_ues=min(contract.max_ues, (1 << 53) - 1),
        move_all=contract.move_all,
        mode=contract.mode,
        arrival_evidence=contract.arrival_evidence,
        start_ms=contract.window.start_ms,
        end_ms=contract.window.end_ms,
        deadline_ms=contract.deadline_ms,
        resources=contract.resources,
        sbom=None if components is None else Sbom(tuple(map(_seen, components))),
        now_ms=now_ms,
        approved_by=approved_by,
    )


def _seen(component: Component) -> Part:
    return Part(component.name, component.version, component.licence or "", component.inactive)
