"""`outrider policy` without a network: check, test, explain a request; what is wrong is told with its line."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from outrider.cli import policy
from outrider.cli.main import app as whole
from outrider.decide.policy.cases import read_cases, read_request
from support.policies import request

RULES = """\
name = "port"

[[permit]]
id = "partners"
partners = ["999-70"]

[[require]]
id = "small-groups"
clause = "agreement 4, § 2"
max_ues = 5000
"""
CASES = """\
[request]
max_ues = 200

[[case]]
name = "a small group may come"
expect = "allow"

[[case]]
name = "a large one may not"
expect = "refuse"
rules = ["small-groups"]
request = { max_ues = 100000, now = 2026-12-01T09:00:00Z }
"""


def run(*args: object, code: int = 0) -> Any:
    result = CliRunner().invoke(policy.app, [str(a) for a in args])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if "--json" in args else result.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "rules.toml").write_text(RULES, encoding="utf-8")
    return tmp_path / "policy"


def test_a_policy_is_checked_and_named(folder: Path) -> None:
    assert "is a policy: port@" in run("check", folder)
    one = run("check", folder / "rules.toml", "--json")
    assert one["rules"] == {"permit": 1, "require": 1, "approval": 0, "forbid": 0}
    assert (one["policy"], one["warnings"]) == (f"port@{one['digest'][:16]}", [])


def test_a_policy_that_permits_nothing_is_one_with_a_warning(folder: Path) -> None:
    (folder / "rules.toml").write_text('[[require]]\nid = "x"\nmax_ues = 1\n', encoding="utf-8")
    assert "it refuses everything" in run("check", folder)


def test_every_fault_is_told_with_file_and_line(folder: Path) -> None:
    (folder / "rules.toml").write_text(RULES + "max_use = 1\n", encoding="utf-8")
    (folder / "own.cedar").write_text("permit(principal, action, resource);\nforbid;\n", encoding="utf-8")
    words = run("check", folder, code=1)
    assert "rules.toml:11: max_use is no key here" in words
    assert "own.cedar:2: not Cedar" in words
    refusals = run("check", folder, "--json", code=1)["refusals"]
    assert [(r["code"], r["facts"]["line"]) for r in refusals] == [("POLICY_INVALID", "11"), ("POLICY_INVALID", "2")]


def test_a_folder_without_rules_is_no_policy(tmp_path: Path) -> None:
    assert "no *.toml and no *.cedar" in run("check", tmp_path, code=1)
    assert run("check", tmp_path / "none", code=2)


def test_cases_that_get_what_they_expect(folder: Path, tmp_path: Path) -> None:
    cases = tmp_path / "cases.toml"
    cases.write_text(CASES, encoding="utf-8")
    assert "2 of 2 cases as expected by policy port@" in run("test", folder, cases)
    assert [c["ok"] for c in run("test", folder, cases, "--json")["cases"]] == [True, True]


def test_a_case_that_does_not_fails_the_command_and_says_why(folder: Path, tmp_path: Path) -> None:
    cases = tmp_path / "cases.toml"
    for change, wrong in (
        (('expect = "refuse"', 'expect = "allow"'), "expected allow, got refuse"),
        (('rules = ["small-groups"]', 'rules = ["other"]'), "expected the rules other against it, got small-groups"),
    ):
        cases.write_text(CASES.replace(*change), encoding="utf-8")
        words = run("test", folder, cases, code=1)
        assert f"FAIL a large one may not: {wrong}" in words
        assert "max_ues: 5000" in words
        assert run("test", folder, cases, "--json", code=1)["failed"] == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "case"),
        ("[[case]]\nname = 'x'\n", "expect"),
        ("[[case]]\nname = 'x'\nexpect = 'perhaps'\n", "perhaps"),
        ("[[case]]\nname = 'x'\nexpect = 'allow'\nrequest = { max_use = 1 }\n", "max_use is no fact"),
        ("[[case]]\nname = 'x'\nexpect = 'allow'\nrequest = { network = 'B' }\n", "'B' is not a network"),
        ("[[case]]\nname = 'x'\nexpect = 'allow'\nrequest = { now = 2026-12-01T09:00:00 }\n", "with its zone"),
        ("[[case]]\nname = 'x'\nexpect = 'allow'\nrequest = { action = 'Fly' }\n", "Fly"),
        ("[[case]]\nname = 'x'\nexpect = 'allow'\nrequest = { resources = { ram = 1 } }\n", "ram"),
        ("[[case", "TOML"),
    ],
)
def test_cases_that_cannot_be_read_are_refused(folder: Path, tmp_path: Path, text: str, what: str) -> None:
    cases = tmp_path / "cases.toml"
    cases.write_text(text, encoding="utf-8")
    refusal = run("test", folder, cases, "--json", code=1)["refusals"][0]
    assert refusal["code"] == "POLICY_CASE_INVALID"
    assert what.lower() in refusal["sentence"].lower()


def test_a_case_says_only_what_differs() -> None:
    first, second = read_cases(CASES.encode())
    assert (first.request.max_ues, second.request.max_ues) == (200, 100_000)
    at = dt.datetime(2026, 12, 1, 9, tzinfo=dt.UTC).timestamp() * 1000
    assert (second.request.now_ms, second.request.start_ms, second.request.end_ms) == (at, at, at + 86_400_000)


def test_nested_facts_are_written_in_snake_case() -> None:
    text = (
        b'sbom = { components = [{ name = "x", version = "1", licence = "MIT" }] }\n'
        b"resources = { memory_mb = 64, cpu_share = 0.5 }\nue_group = 'g'\n"
    )
    asked = read_request(text, json=False)
    assert asked.sbom is not None
    assert (asked.sbom.components[0].licence, asked.resources.memory_mb, asked.ue_group) == ("MIT", 64, "g")


def test_a_request_as_it_is_kept_is_explained(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    for body in (msgspec.json.encode(request()), msgspec.json.encode({"seq": 1, "request": request(max_ues=9000)})):
        file.write_bytes(body)
        words = run("explain", "--request", file, "--policy", folder)
        assert words.startswith("HostService: ")
    assert "small-groups: 9000 UEs are more than 5000 [POLICY_UES] (agreement 4, § 2, rules.toml:7)" in words
    decision = run("explain", "--request", file, "--policy", folder, "--json")
    assert (decision["verdict"], decision["reasons"][0]["change"]) == ("refuse", "max_ues: 5000")


def test_explain_needs_one_thing_to_explain(folder: Path, tmp_path: Path) -> None:
    assert run("explain", "--policy", folder, code=2)
    file = tmp_path / "r.toml"
    file.write_text("", encoding="utf-8")
    assert run("explain", "--request", file, code=2)
    assert run("explain", "m-1", code=2)


def test_the_schema_is_printed_as_it_ships() -> None:
    assert "action HostService, SendService, GoOnward, SignPermission, ContinueStay" in run("schema")


@pytest.mark.parametrize("command", ["check", "test", "schema", "show", "apply", "explain", "replay"])
def test_each_command_has_help_with_an_example(command: str) -> None:
    words = CliRunner().invoke(whole, ["policy", command, "--help"]).output
    assert "Example: outrider policy" in words


@pytest.mark.parametrize("command", ["list", "grant", "refuse"])
def test_each_command_about_approvals_has_help_with_an_example(command: str) -> None:
    words = CliRunner().invoke(whole, ["approval", command, "--help"]).output
    assert "Example: outrider approval" in words


@pytest.mark.parametrize("command", [["show"], ["apply"], ["explain", "m-1"], ["replay", "POLICY"]])
def test_a_network_that_does_not_run_is_told(folder: Path, tmp_path: Path, command: list[str]) -> None:
    from outrider.cli import network

    made = tmp_path / "a"
    assert CliRunner().invoke(network.app, ["init", str(made), "--id", "999-70"]).exit_code == 0
    words = run(*(str(folder) if c == "POLICY" else c for c in command), "--dir", made, code=3)
    assert "NODE_DOWN" in words
