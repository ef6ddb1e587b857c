"""A policy that is not right makes no policy: each fault with its file, line and remedy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.decide.policy.policy import FILE_BYTES, FILES, Policy, parse
from support.policies import PERMIT

ALL = "permit(principal, action, resource);\n"

INVALID = [
    ("rules.toml", '[[permit]]\nid = "a"\nmax_use = 4\n', 3, "max_use is no key here", "max_ues"),
    ("rules.toml", 'nmae = "x"\n', 1, "nmae is no key here", "timezone"),
    ("rules.toml", '[[permit]]\nid = "a"\n\n[[permit]]\nmax_ues = 4\n', 4, "permit[1] has no id", "id"),
    ("rules.toml", f"{PERMIT}[[permit]]\nid = \"b\"\nmax_ues = \"4\"\n", 5, "expected `int", "policy.md"),
    ("rules.toml", '[[permit]]\nid = "a"\nhours = "9-5"\n', 3, "hours", "policy.md"),
    ("rules.toml", '[[permit]]\nid = "a"\nwhen = { actions = ["Host"] }\n', 3, "invalid enum value 'Host'", "policy"),
    ("rules.toml", '[[permit]]\nid = "a"\nwhen = { partner = ["999-70"] }\n', 3, "partner is no key", "partners"),
    ("rules.toml", '[[permit]]\nid = "a"\npartners = ["999-7"]\n', 3, "is not a network", "MCC-MNC"),
    ("rules.toml", '[[permit]]\nid = "a"\nlicences = ["Apache 2"]\n', 3, "no SPDX licence", "Apache-2.0"),
    ("rules.toml", '[[permit]]\nid = "a"\n[[require]]\nid = "b"\n', 3, "requires nothing", "max_ues"),
    ("rules.toml", f'timezone = "Moon/Sea"\n{PERMIT}', 1, "no time zone 'Moon/Sea'", "Europe/Berlin"),
    ("rules.toml", f'{PERMIT}[jurisdictions]\nGermany = "DE"\n', 4, "'Germany' is not a network", "262"),
    ("rules.toml", '[[permit]]\nid = "a"\n[[permit]]\nid = "a"\n', 3, "a is the id of rules.toml:1 too", "Rename"),
    ("rules.toml", '[[permit]]\nid = "a"\nmax_ues =\n', 3, "not TOML", "Correct"),
    ("own.cedar", f"{ALL}\nforbid(principal, action, resource)\nwhen {{ context.uess > 1 }};", 4, "`uess`", "schema"),
    ("own.cedar", f"{ALL}forbid(principal, action, resource)\nwhen context.maxUes > 1;", 3, "not Cedar", "Correct"),
    ("own.cedar", f'{ALL}permit(principal, action == Action::"Host", resource);', 2, "unrecognized action", "schema"),
    (
        "own.cedar",
        f"{ALL}forbid(principal, action, resource)\nwhen {{\n  context.sbom.components > 1\n}};",
        4,
        "optional attribute `sbom`",
        "context has sbom",
    ),
    ("own.cedar", f"{ALL}permit(principal == ?principal, action, resource);", 2, "templates", "value"),
    ("own.cedar", f"{ALL}permit(principal, action, resource)", 2, "not Cedar", "Correct"),
    ("own.cedar", f"{ALL}@note(\"x\")\n{ALL}", 2, "@note means nothing", "@clause"),
    ("own.cedar", f"{ALL}@approval\n{ALL}", 2, "@approval stands on a permit", "forbid"),
    ("own.cedar", f'{ALL}@outcome("pause")\n{ALL}', 2, "'pause'", "abort"),
    ("own.cedar", f'{ALL}@id("")\n{ALL}', 2, "is no id", "Letters"),
    ("own.cedar", f'@id("x") {ALL}@id("x") {ALL}', 2, "x is the id of own.cedar:1 too", "Rename"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "text", "line", "what", "remedy"), INVALID)
def test_a_fault_is_told_with_its_line_and_remedy(file: str, text: str, line: int, what: str, remedy: str) -> None:
    problems = parse({file: text.encode()})
    assert isinstance(problems, list)
    found = [p for p in problems if what in p.what]
    assert found, [str(p) for p in problems]
    assert (found[0].file, found[0].line) == (file, line), [str(p) for p in problems]
    assert remedy in found[0].remedy


def test_faults_of_all_files_are_told_together() -> None:
    problems = parse({"a.cedar": b"permit;", "b.cedar": b"\xff", "rules.toml": b"x = 1", "more.toml": b""})
    assert isinstance(problems, list)
    assert {p.file for p in problems} == {"a.cedar", "b.cedar", "rules.toml"}


def test_an_id_is_unique_over_typed_rules_and_cedar() -> None:
    problems = parse({"rules.toml": PERMIT.encode(), "own.cedar": f'\n@id("all")\n{ALL}'.encode()})
    assert isinstance(problems, list)
    assert str(problems[0]) == "own.cedar:2: all is the id of rules.toml:1 too. Rename one."


def test_nothing_too_large_and_nothing_at_all() -> None:
    assert isinstance(parse({}), list)
    assert isinstance(parse({"a.cedar": b" " * (FILE_BYTES + 1)}), list)
    assert isinstance(parse({f"{i}.cedar": b"" for i in range(FILES + 1)}), list)


def test_a_policy_is_named_by_the_bytes_of_its_files() -> None:
    made = [
        parse(files)
        for files in (
            {"rules.toml": PERMIT.encode()},
            {"rules.toml": PERMIT.encode() + b"\n"},
            {"other.toml": PERMIT.encode()},
            {"rules.toml": b'name = "port"\n' + PERMIT.encode()},
        )
    ]
    versions = [p.version for p in made if isinstance(p, Policy)]
    assert len(set(versions)) == 4
    assert versions[3].startswith("port@")


@given(st.text(max_size=200), st.sampled_from(["rules.toml", "own.cedar"]))
def test_no_text_makes_it_crash(text: str, name: str) -> None:
    parse({name: text.encode(errors="surrogatepass")})


@given(st.text("@()\";/\\ \n{}[]=permitforbidprincipalactionresource'123.", max_size=120))
def test_no_text_that_is_nearly_right_makes_it_crash(text: str) -> None:
    parse({"own.cedar": (ALL + text).encode(), "rules.toml": (PERMIT + text).encode()})
