"""SPDX expressions against lists: what is allowed must be understood, what is barred need only be seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.decide import spdx

BARRED = ("AGPL-3.0-only", "SSPL-1.0")

# What is no expression, and names a barred licence somewhere.
BROKEN = [
    "AGPL-3.0-only AND (",
    "AGPL-3.0-only OR",
    "AGPL-3.0-only, see LICENSE",
    "AGPL-3.0-only/MIT",
    "MIT; agpl-3.0-ONLY.",
    "GNU_AGPL-3.0-only",
    "Licence: AGPL-3.0 or what you like",
    "(" * 500 + "AGPL-3.0-only",
    "MIT WITH AGPL-3.0-only",
    "AGPL-3.0-only WITH something-else",
]


@pytest.mark.parametrize("licence", BROKEN, ids=lambda text: text[-30:])
def test_what_cannot_be_parsed_is_barred_by_what_it_names_and_declares_nothing(licence: str) -> None:
    assert spdx.barred_by(licence, BARRED) == ["AGPL-3.0-only"]
    assert "AGPL-3.0-only" in spdx.identifiers(licence)
    assert not spdx.declared(licence)
    assert not spdx.met(licence, ("MIT", "AGPL-3.0-only"))


@pytest.mark.parametrize("licence", ["Summit", "AGPL-3.0-onlyish", "LicenseRef-SSPL-1.0-like", "Some Licence", ";", ""])
def test_a_licence_that_only_looks_like_a_barred_one_is_none(licence: str) -> None:
    assert spdx.barred_by(licence, (*BARRED, "MIT")) == []


@pytest.mark.parametrize(
    ("licence", "declared"),
    [
        ("MIT", True),
        ("mit OR LicenseRef-Own", True),
        ("DocumentRef-a:LicenseRef-b", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", True),
        ("GPL-2.0-only WITH MIT", False),
        ("Classpath-exception-2.0", False),
        ("Proprietary", False),
        ("NOASSERTION", False),
        ("NONE", False),
        ("", False),
        (None, False),
    ],
)
def test_only_listed_licences_and_references_declare_something(licence: str | None, declared: bool) -> None:
    assert spdx.declared(licence) is declared


@pytest.mark.parametrize(
    ("identifier", "known"),
    [("MIT", True), ("LicenseRef-Own", True), ("mit", False), ("AGPL-3.0", False), ("MIT OR ISC", False), ("", False)],
)
def test_a_rule_names_a_licence_as_spdx_spells_it(identifier: str, known: bool) -> None:
    assert spdx.known(identifier) is known


_WORDS = st.sampled_from(["MIT", "ISC", "SSPL-1.0", "AGPL-3.0-only", "LicenseRef-x", "AND", "OR", "(", ")", "x"])


@given(st.lists(_WORDS, max_size=8).map(" ".join))
def test_no_text_is_both_allowed_and_barred_by_the_same_licences(licence: str) -> None:
    """Who takes MIT and ISC alone and who bars all the others say the same, whatever the text; none slips between."""
    allowed, others = ("MIT", "ISC"), ("SSPL-1.0", "AGPL-3.0-only", "LicenseRef-x", "x")
    if spdx.met(licence, allowed):
        assert spdx.barred_by(licence, others) == []
    elif spdx.barred_by(licence, others) == []:
        assert not set(licence.replace("(", " ").replace(")", " ").split()) & set(others), "a barred one was overlooked"
