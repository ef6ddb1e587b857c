"""Which known vulnerabilities are in a package: components × advisories × VEX, without I/O.

Wherever the sources leave room, the answer is the cautious one. An advisory without a severity counts as critical. A
range of versions that cannot be compared (any ecosystem but PyPI) counts as a hit unless the advisory lists versions.
A VEX statement that says less good prevails over one that says better.
"""

import functools
from collections.abc import Collection, Iterable, Sequence

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from outrider.core.supply import Advisory, Affected, Component, Event, Finding, VexStatement

ECOSYSTEMS = {
    "pypi": "PyPI",
    "npm": "npm",
    "golang": "Go",
    "cargo": "crates.io",
    "maven": "Maven",
    "nuget": "NuGet",
    "gem": "RubyGems",
    "composer": "Packagist",
    "hex": "Hex",
    "pub": "Pub",
}
"""OSV's name of an ecosystem by the type of a package URL."""

_WORST_FIRST = ("affected", "under_investigation", "fixed", "not_affected")


def place(component: Component) -> tuple[str, str] | None:
    """Ecosystem and name under which advisories know a component; None if it is published nowhere."""
    if not component.purl.startswith("pkg:"):
        return None
    kind, _, rest = component.purl.removeprefix("pkg:").partition("/")
    ecosystem = ECOSYSTEMS.get(kind)
    name = rest.partition("@")[0].partition("?")[0].replace("%40", "@")
    if ecosystem is None:
        return None
    return ecosystem, named(ecosystem, name)


def named(ecosystem: str, name: str) -> str:
    """A name as its ecosystem compares it."""
    return canonicalize_name(name) if ecosystem == "PyPI" else name


def find(
    components: Iterable[Component],
    advisories: Iterable[Advisory],
    vex: Sequence[VexStatement] = (),
    known_exploited: Collection[str] = (),
    *,
    product: str = "",
) -> list[Finding]:
    """Every vulnerability in the components, the worst first; `product` is the package URL of the package itself."""
    about: dict[tuple[str, str], list[tuple[Advisory, Affected]]] = {}
    for advisory in advisories:
        for affected in advisory.affected:
            key = affected.ecosystem.partition(":")[0], named(affected.ecosystem, affected.name)
            about.setdefault(key, []).append((advisory, affected))
    exploited = frozenset(known_exploited)
    found: dict[tuple[str, str], Finding] = {}
    for component in components:
        where = place(component)
        for advisory, affected in about.get(where, ()) if where is not None else ():
            hit = _hit(component.version, affected)
            if hit is None:
                continue
            finding = _finding(component, advisory, affected, hit, vex, exploited, product)
            key = component.ref, advisory.id
            known = found.get(key)
            if known is None or (finding.certain and not known.certain):
                found[key] = finding
    return sorted(found.values(), key=lambda f: (-f.known_exploited, -f.rank, f.component, f.advisory))


def _finding(
    component: Component,
    advisory: Advisory,
    affected: Affected,
    certain: bool,
    vex: Sequence[VexStatement],
    exploited: frozenset[str],
    product: str,
) -> Finding:
    said = _said(component, advisory, vex, product)
    fixed = {event.fixed for steps in affected.ranges for event in steps if event.fixed is not None}
    return Finding(
        advisory=advisory.id,
        aliases=advisory.aliases,
        summary=advisory.summary,
        component=component.name,
        version=component.version,
        purl=component.purl,
        severity=advisory.severity,
        score=advisory.score,
        fixed_in=tuple(_later(component.version, fixed, affected.ecosystem)),
        known_exploited=not exploited.isdisjoint(advisory.names),
        unmaintained=advisory.unmaintained,
        certain=certain,
        vex=said.status if said is not None else None,
        justification=said.justification if said is not None else "",
        vex_origin=said.origin if said is not None else "",
    )


def _hit(version: str, affected: Affected) -> bool | None:
    """True: this version is affected; False: it may be, since its range cannot be compared; None: it is not."""
    if version in affected.versions:
        return True
    if affected.ecosystem != "PyPI":
        return False if affected.ranges and not affected.versions else None
    ours = _version(version)
    if ours is None:
        return False if affected.ranges else None
    if any(_version(listed) == ours for listed in affected.versions):
        return True
    certain: bool | None = None
    for steps in affected.ranges:
        inside = _inside(ours, steps)
        if inside is not None:
            certain = inside or bool(certain)
    return certain


def _inside(version: Version, steps: Sequence[Event]) -> bool | None:
    """Whether a version is in a range, as the OSV schema evaluates it: events in the order of their versions."""
    events: list[tuple[Version, int, str]] = []
    for step in steps:
        for kind, order in (("introduced", 0), ("fixed", 1), ("limit", 1), ("last_affected", 2)):
            text = getattr(step, kind)
            if text is None:
                continue
            at = _ZERO if text == "0" and kind == "introduced" else _version(text)
            if at is None:
                if kind == "limit" and text == "*":
                    continue
                return False
            events.append((at, order, kind))
    vulnerable = False
    for at, _, kind in sorted(events):
        if kind == "introduced" and version >= at:
            vulnerable = True
        elif (kind in ("fixed", "limit") and version >= at) or (kind == "last_affected" and version > at):
            vulnerable = False
    return True if vulnerable else None


@functools.lru_cache(maxsize=16_384)
def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


_ZERO = Version("0.dev0")


def _later(version: str, fixed: Collection[str], ecosystem: str) -> list[str]:
    """Versions with the fix that are newer than this one, the nearest first."""
    ours = _version(version)
    if ecosystem != "PyPI" or ours is None:
        return sorted(fixed)
    known = {v: text for text in fixed if (v := _version(text)) is not None}
    return [known[v] for v in sorted(known) if v > ours]


def _said(
    component: Component, advisory: Advisory, statements: Sequence[VexStatement], product: str
) -> VexStatement | None:
    """The statement about this vulnerability in this component that counts: the least good one."""
    fitting = [s for s in statements if advisory.names & set(s.vulnerabilities) and _about(s, component, product)]
    return min(fitting, key=lambda s: _WORST_FIRST.index(s.status), default=None)


def _about(statement: VexStatement, component: Component, product: str) -> bool:
    if any(_same(name, component) for name in statement.products):
        return True
    if not product or not any(_purl_fits(name, product) for name in statement.products):
        return False
    return not statement.components or any(_same(name, component) for name in statement.components)


def _same(name: str, component: Component) -> bool:
    """Whether a VEX product is this component: by package URL, with or without version, or by reference."""
    return name == component.ref or _purl_fits(name, component.purl)


def _purl_fits(stated: str, purl: str) -> bool:
    if not purl or not stated.startswith("pkg:"):
        return False
    bare = stated.partition("?")[0].partition("#")[0]
    return bare == purl if "@" in bare.rpartition("/")[2] else bare == purl.partition("@")[0]
