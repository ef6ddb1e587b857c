"""Advisories × components × VEX: what is affected, what is not, and what cannot be told counts as affected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from outrider.core.supply import Advisory, Affected, Component, Event, Finding, VexStatement
from outrider.decide import vulnerable

PRODUCT = "pkg:generic/roll-call@1.2.0"


def component(name: str = "requests", version: str = "2.31.0", kind: str = "pypi") -> Component:
    ref = f"wheels/{name}-{version}.whl"
    return Component(ref=ref, name=name, version=version, purl=f"pkg:{kind}/{name}@{version}")


def advisory(*steps: Event, versions: tuple[str, ...] = (), ecosystem: str = "PyPI", **more: object) -> Advisory:
    affected = Affected(ecosystem=ecosystem, name="requests", versions=versions, ranges=(steps,) if steps else ())
    terms: dict[str, object] = {"id": "GHSA-1", "aliases": ("CVE-2026-1",), "severity": "high", "affected": (affected,)}
    return Advisory(**(terms | more))  # type: ignore[arg-type]


def found(*advisories: Advisory, of: Component | None = None, vex: tuple[VexStatement, ...] = ()) -> list[Finding]:
    return vulnerable.find([of or component()], advisories, vex, product=PRODUCT)


BELOW = Event(introduced="0"), Event(fixed="2.32.0")


def test_a_version_before_the_fix_is_affected_and_the_fix_is_told():
    (finding,) = found(advisory(*BELOW))
    assert (finding.advisory, finding.component, finding.version) == ("GHSA-1", "requests", "2.31.0")
    assert finding.fixed_in == ("2.32.0",)
    assert finding.certain


@pytest.mark.parametrize(
    ("version", "steps", "hit"),
    [
        ("2.32.0", BELOW, False),
        ("2.31.0", (Event(introduced="2.31.0"), Event(fixed="2.32.0")), True),
        ("2.30.0", (Event(introduced="2.31.0"), Event(fixed="2.32.0")), False),
        ("2.31.0", (Event(introduced="0"), Event(last_affected="2.31.0")), True),
        ("2.31.1", (Event(introduced="0"), Event(last_affected="2.31.0")), False),
        ("2.31.0", (Event(introduced="0"),), True),
        ("2.31.0rc1", (Event(introduced="0"), Event(fixed="2.31.0")), True),
        ("2.31.0+local", (Event(introduced="0"), Event(fixed="2.31.0")), False),
        ("3.1", (*BELOW, Event(introduced="3.0"), Event(fixed="3.2")), True),
        ("2.33", (*BELOW, Event(introduced="3.0"), Event(fixed="3.2")), False),
        ("0.dev1", BELOW, True),
        ("2.31.0", (Event(introduced="0"), Event(limit="2.0")), False),
        ("2.31.0", (Event(introduced="0"), Event(limit="*")), True),
    ],
)
def test_a_range_is_read_as_osv_defines_it(version, steps, hit):
    assert bool(found(advisory(*steps), of=component(version=version))) == hit


@given(
    version=st.integers(0, 12),
    cuts=st.lists(st.integers(0, 12), max_size=6, unique=True),
    shuffled=st.randoms(use_true_random=False),
)
def test_events_mean_the_same_in_any_order(version, cuts, shuffled):
    """Against the simplest reading: inside if an odd number of borders lies at or before the version."""
    borders = sorted(cuts)
    steps = [Event(introduced=str(c)) if i % 2 == 0 else Event(fixed=str(c)) for i, c in enumerate(borders)]
    inside = sum(c <= version for c in borders) % 2 == 1
    shuffled.shuffle(steps)
    assert bool(found(advisory(*steps), of=component(version=str(version)))) == inside


@given(version=st.text(max_size=8), fixed=st.text(max_size=8))
def test_no_version_crashes_the_comparison(version, fixed):
    for of in (component(version=version), component(version=version, kind="npm")):
        for ecosystem in ("PyPI", "npm"):
            found(advisory(Event(introduced="0"), Event(fixed=fixed), ecosystem=ecosystem), of=of)


def test_versions_are_compared_as_versions_where_they_are_listed():
    assert found(advisory(versions=("2.31",)))
    assert not found(advisory(versions=("2.3.1",)))


def test_names_are_compared_as_the_ecosystem_does():
    named = Affected(ecosystem="PyPI", name="Zope.Interface", versions=("1",))
    assert found(advisory(affected=(named,)), of=component("zope-interface", "1"))
    other = Affected(ecosystem="npm", name="Requests", versions=("1",))
    assert not found(advisory(affected=(other,)), of=component("requests", "1", "npm"))
    assert not found(advisory(*BELOW, ecosystem="npm")), "another ecosystem's package of that name"


def test_elsewhere_only_listed_versions_decide_and_a_bare_range_counts_as_a_hit():
    of = component(version="1.0.0", kind="npm")
    assert found(advisory(versions=("1.0.0",), ecosystem="npm"), of=of)[0].certain
    assert not found(advisory(*BELOW, versions=("0.9.0",), ecosystem="npm"), of=of)
    (finding,) = found(advisory(*BELOW, ecosystem="npm"), of=of)
    assert not finding.certain


def test_a_version_that_is_none_is_taken_for_affected():
    (finding,) = found(advisory(*BELOW), of=component(version="of-today"))
    assert not finding.certain


def test_what_is_published_nowhere_has_no_advisories():
    assert not found(advisory(*BELOW), of=component(kind="generic"))


def test_the_worst_comes_first():
    low, unknown = advisory(*BELOW, id="A", severity="low"), advisory(*BELOW, id="B", severity=None)
    exploited = advisory(*BELOW, id="C", aliases=("CVE-9",), severity="low")
    order = vulnerable.find([component()], [low, unknown, exploited], known_exploited=["CVE-9"])
    assert [f.advisory for f in order] == ["C", "B", "A"]


def vex(status: str = "not_affected", **terms: object) -> VexStatement:
    given = {"vulnerabilities": ("CVE-2026-1",), "products": ("pkg:pypi/requests@2.31.0",), "origin": "own.json"}
    return VexStatement(status=status, **(given | terms))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("terms", "counts"),
    [
        ({}, True),
        ({"vulnerabilities": ("GHSA-1",)}, True),
        ({"vulnerabilities": ("CVE-2026-2",)}, False),
        ({"products": ("pkg:pypi/requests",)}, True),
        ({"products": ("pkg:pypi/requests@2.30.0",)}, False),
        ({"products": ("wheels/requests-2.31.0.whl",)}, True),
        ({"products": (PRODUCT,)}, True),
        ({"products": ("pkg:generic/roll-call@1.2.1",)}, False),
        ({"products": (PRODUCT,), "components": ("pkg:pypi/requests",)}, True),
        ({"products": (PRODUCT,), "components": ("pkg:pypi/urllib3",)}, False),
        ({"products": ()}, False),
    ],
    ids=str,
)
def test_a_vex_statement_counts_for_its_vulnerability_in_its_product(terms, counts):
    (finding,) = found(advisory(*BELOW), vex=(vex(**terms),))
    assert (finding.vex == "not_affected") == counts


def test_of_two_statements_the_less_good_one_counts():
    for pair in ((vex(), vex("affected")), (vex("affected"), vex())):
        assert found(advisory(*BELOW), vex=pair)[0].vex == "affected"
    assert found(advisory(*BELOW), vex=(vex("fixed"), vex("under_investigation")))[0].vex == "under_investigation"


def test_only_later_fixes_are_told_the_nearest_first():
    steps = (Event(introduced="0"), Event(fixed="1.9"), Event(introduced="2.0"), Event(fixed="2.40"))
    (finding,) = found(advisory(*steps))
    assert finding.fixed_in == ("2.40",)
    assert Version(finding.fixed_in[0]) > Version("2.31.0")
