"""What is known of software's origin, and what an operator demands of it: the values of supply chain decisions.

`Component` is a fact, taken from the bytes of a package. `Advisory` and `VexStatement` are what others say of such
components, from folders that the operator keeps; nothing is looked up online. `SupplyRules` is what this operator
takes. `decide.vulnerable` and `decide.supply` bring them together.
"""

from typing import Annotated, Literal

import msgspec

from outrider.core.permission import Digest

Severity = Literal["none", "low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("none", "low", "medium", "high", "critical")
"""From harmless to worst; CVSS scores 0, below 4, 7, 9, and from 9 on."""

Purl = Annotated[str, msgspec.Meta(pattern=r"\Apkg:[a-z0-9.+-]+/\S+\Z", max_length=400)]


class Component(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One part of a package: the service itself, its vendor's code, or a library."""

    ref: str
    """Its reference in the SBOM: for a library, the wheel's path in the package."""
    name: str
    version: str
    purl: str = ""
    licence: str | None = None
    """SPDX expression, or the name that it gives itself; None if it declares none."""
    sha256: str = ""
    supplier: str | None = None
    compiled: bool = False
    """It has machine code, so having it is not having its source."""
    source_offer: str = ""
    """Where its source can be had, as the package's vendor says."""
    inactive: bool = False
    """Its own metadata says that nobody works on it any more."""


class SoftwareFacts(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """All that supply chain decisions need of one package."""

    service: str
    version: str
    package_digest: Digest
    sbom_digest: Digest
    vendor: str
    signer: tuple[str, ...] = ()
    """Who signed: fingerprint of the key, then of each certificate that vouches for it."""
    export_class: str = ""
    components: tuple[Component, ...] = ()


class SupplyRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What this operator takes from others and hands to others: `[supply]` of its `network.toml`."""

    barred_licences: tuple[str, ...] = ()
    """SPDX identifiers. An expression with `OR` is refused only if every choice is barred; a text that is no
    expression, if it names one."""
    undeclared_licences: Literal["allow", "refuse"] = "allow"
    barred_components: tuple[Purl, ...] = ()
    """Package URLs: without a version all of them, with `@1.2` that one, with `@<2.0` a range (PyPI only)."""
    unmaintained: Literal["allow", "refuse"] = "allow"
    """Components that say so themselves, that an advisory calls so, or that are listed in the next key."""
    unmaintained_components: tuple[Purl, ...] = ()
    max_severity: Severity = "high"
    """The worst known vulnerability that is tolerated without a justification."""
    known_exploited: Literal["allow", "refuse"] = "refuse"
    """Whatever its severity, a vulnerability that is known to be used in attacks."""
    accepted_justifications: tuple[str, ...] = (
        "component_not_present",
        "vulnerable_code_not_present",
        "vulnerable_code_not_in_execute_path",
        "code_not_present",
        "code_not_reachable",
    )
    """Of VEX statements `not_affected`: names of OpenVEX and of CycloneDX."""
    export_classes: tuple[str, ...] | None = None
    """Classes that may be handed to another operator; left out: any, also none."""
    source_offer_licences: tuple[str, ...] = (
        "GPL-2.0-only",
        "GPL-2.0-or-later",
        "GPL-3.0-only",
        "GPL-3.0-or-later",
        "LGPL-2.1-only",
        "LGPL-2.1-or-later",
        "LGPL-3.0-only",
        "LGPL-3.0-or-later",
        "AGPL-3.0-only",
        "AGPL-3.0-or-later",
        "MPL-2.0",
        "EUPL-1.2",
    )
    """Licences whose source must go along, or be offered, when software is handed on."""


class Event(msgspec.Struct, frozen=True):
    """One step of a range of versions (OSV): from `introduced` on, until before `fixed` or with `last_affected`."""

    introduced: str | None = None
    fixed: str | None = None
    last_affected: str | None = None
    limit: str | None = None


class Affected(msgspec.Struct, frozen=True):
    """Which versions of one distribution an advisory is about."""

    ecosystem: str
    """As OSV names it: `PyPI`, `npm`, …"""
    name: str
    versions: tuple[str, ...] = ()
    ranges: tuple[tuple[Event, ...], ...] = ()


class Advisory(msgspec.Struct, frozen=True, kw_only=True):
    """A known vulnerability, or the word that something is not maintained."""

    id: str
    aliases: tuple[str, ...] = ()
    summary: str = ""
    severity: Severity | None = None
    """None: the advisory does not say, and then it counts as the worst."""
    score: float | None = None
    affected: tuple[Affected, ...] = ()
    unmaintained: bool = False

    @property
    def names(self) -> frozenset[str]:
        """Every name of the vulnerability."""
        return frozenset((self.id, *self.aliases))


VexStatus = Literal["not_affected", "affected", "fixed", "under_investigation"]


class VexStatement(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody's word whether a vulnerability matters in a product."""

    vulnerabilities: tuple[str, ...]
    """Identifiers, each a name of the same one."""
    status: VexStatus
    justification: str = ""
    products: tuple[str, ...] = ()
    """Package URLs or references of components or packages."""
    components: tuple[str, ...] = ()
    """Of a product: only these parts of it. Empty: all."""
    origin: str = ""
    """The file, for people."""


class Finding(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A vulnerability in a component of a package, and what speaks against refusing for it."""

    advisory: str
    aliases: tuple[str, ...] = ()
    summary: str = ""
    component: str
    version: str
    purl: str = ""
    severity: Severity | None = None
    score: float | None = None
    fixed_in: tuple[str, ...] = ()
    known_exploited: bool = False
    unmaintained: bool = False
    certain: bool = True
    """False: the advisory gives a range of versions that cannot be compared in that ecosystem."""
    vex: VexStatus | None = None
    justification: str = ""
    vex_origin: str = ""

    @property
    def rank(self) -> int:
        """How bad, 4 worst; what is not known counts as the worst."""
        return SEVERITIES.index(self.severity or "critical")
