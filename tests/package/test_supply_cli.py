"""The commands of supply chain and keys, as a vendor and an operator use them, with a real package."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from outrider.cli import catalogue, package, permission
from outrider.core.canonical import sha256_hex
from outrider.network.config import NetworkConfig, NetworkSection, SbiSection
from outrider.network.create import create
from outrider.package import signing, vendors

HOME, GUEST = "999-70", "999-71-000007ed9d5"


def call(app, *words: object) -> Result:
    return CliRunner().invoke(app, [str(w) for w in words])


def value(result: Result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def causes(result: Result) -> list[str]:
    assert result.exit_code == 1, result.output
    return [r["code"] for r in json.loads(result.stdout)["refusals"]]


@pytest.fixture
def network(tmp_path: Path, sample) -> Path:
    folder = tmp_path / "a"
    create(folder, NetworkConfig(NetworkSection(HOME, "plmn"), SbiSection(port=0)))
    (folder / "vendors" / "acme.pub").write_bytes(sample.vendor.encode())
    return folder


@pytest.fixture
def msgspec_version(sample) -> str:
    found = value(call(package.app, "inspect", sample.path, "--json"))
    return next(w["version"] for w in found["libraries"] if w["name"] == "msgspec")


def know(network: Path, version: str) -> None:
    (network / "supply" / "osv").mkdir(parents=True)
    advisory = {
        "id": "GHSA-1",
        "aliases": ["CVE-2026-1"],
        "summary": "Reads too far",
        "affected": [{"package": {"ecosystem": "PyPI", "name": "msgspec"}, "versions": [version]}],
        "database_specific": {"severity": "CRITICAL"},
    }
    (network / "supply" / "osv" / "GHSA-1.json").write_text(json.dumps(advisory))


def sign(network: Path, archive: Path, out: Path) -> Result:
    way = ("--source", HOME, "--target", GUEST, "--home", HOME, "--days", "1")
    return call(permission.app, "sign", archive, "--dir", network, *way, "-o", out, "--json")


def test_the_sbom_is_shown_and_handed_out_as_it_is(sample):
    document = call(package.app, "sbom", sample.path, "--json")
    assert sha256_hex(document.stdout.removesuffix("\n").encode()) == sample.built.sbom_digest
    shown = call(package.app, "sbom", sample.path)
    assert "pkg:pypi/msgspec@" in shown.stdout
    assert "compiled" in shown.stdout


def test_vulnerabilities_are_found_judged_and_justified(sample, network, msgspec_version, tmp_path):
    look = ("vulnerabilities", sample.path, "--dir", network, "--json")
    assert value(call(package.app, *look)) == {"findings": [], "refusals": []}
    know(network, msgspec_version)
    found = call(package.app, *look)
    assert causes(found) == ["COMPONENT_VULNERABLE"]
    assert [f["advisory"] for f in json.loads(found.stdout)["findings"]] == ["GHSA-1"]
    assert causes(sign(network, sample.path, tmp_path / "p.json")) == ["COMPONENT_VULNERABLE"]
    assert not (tmp_path / "p.json").exists()
    (network / "supply" / "vex").mkdir()
    statement = {
        "vulnerability": {"name": "CVE-2026-1"},
        "products": [{"@id": "pkg:pypi/msgspec"}],
        "status": "not_affected",
        "justification": "vulnerable_code_not_present",
    }
    vex = {"@context": "https://openvex.dev/ns/v0.2.0", "statements": [statement]}
    (network / "supply" / "vex" / "own.json").write_text(json.dumps(vex))
    assert [f["vex"] for f in value(call(package.app, *look))["findings"]] == ["not_affected"]
    assert "which counts here" in call(package.app, *look[:-1]).stdout
    value(sign(network, sample.path, tmp_path / "p.json"))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ('barred_licences = ["BSD-3-Clause"]', "LICENCE_BARRED"),
        ('barred_components = ["pkg:pypi/starlette"]', "COMPONENT_BARRED"),
        ('export_classes = ["EAR99"]', "EXPORT_CLASS_BARRED"),
    ],
)
def test_nothing_is_permitted_against_the_own_rules(sample, network, tmp_path, rules, expected):
    with (network / "network.toml").open("a") as file:
        file.write(f"{rules}\n")
    assert expected in causes(sign(network, sample.path, tmp_path / "p.json"))


@pytest.mark.parametrize(
    "rules",
    [
        'barred_licences = ["GPL-3"]',
        'barred_components = ["requests"]',
        'barred_components = ["pkg:pypi/requests@<x"]',
        'max_severity = "severe"',
        "colour = 1",
    ],
)
def test_a_rule_that_would_bar_nothing_is_no_configuration(sample, network, tmp_path, rules):
    with (network / "network.toml").open("a") as file:
        file.write(f"{rules}\n")
    assert causes(sign(network, sample.path, tmp_path / "p.json")) == ["CONFIG_INVALID"]


def test_a_vendor_replaces_its_key_and_revokes_the_old_one(sample, network, tmp_path):
    archive = tmp_path / "roll-call-1.2.0.lms"
    shutil.copy(sample.path, archive)
    old = tmp_path / "old.key"
    signing.write_private(old, sample.key)
    made = value(
        call(package.app, "keygen", "--vendor", "Acme Rail", "-o", tmp_path / "new.key", "--not-after", "2099-12-31",
             "--json")
    )  # fmt: skip
    public = Path(made["publicKey"])
    assert "Not-After: 2099-12-31" in public.read_text()
    assert str(vendors.read(public).not_after) == "2099-12-31"
    shutil.copy(public, network / "vendors")
    verify = ("verify", archive, "--vendor", network / "vendors", "--json")
    old_id = signing.key_id(sample.key.public_key())
    assert value(call(package.app, *verify))["vendorKey"] == old_id

    lists = tmp_path / "acme.revoked"
    revoke = ("revoke", lists, "--key", made["privateKey"], "--issuer", "Acme Rail", "--kind", "key", "--id", old_id)
    assert value(call(package.app, *revoke, "--reason", "stolen", "--json"))["list"]["sequence"] == 1
    shutil.copy(lists, tmp_path / "first")
    (taken,) = value(call(catalogue.app, "revocations", "--dir", network, "--add", lists, "--json"))
    assert (taken["issuer"], taken["entries"][0]["reason"]) == ("Acme Rail", "stolen")
    assert causes(sign(network, archive, tmp_path / "p.json")) == ["SIGNER_REVOKED"]

    signed = value(call(package.app, "sign", archive, "--key", made["privateKey"], "--json"))
    assert signed["packageDigest"] == sample.built.package_digest
    value(sign(network, archive, tmp_path / "p.json"))

    package_id = sample.built.package_digest
    value(call(package.app, *revoke[:-4], "--kind", "package", "--id", package_id, "--json"))
    value(call(catalogue.app, "revocations", "--dir", network, "--add", lists, "--json"))
    assert causes(sign(network, archive, tmp_path / "q.json")) == ["PACKAGE_REVOKED"]
    add_first = ("revocations", "--dir", network, "--add", tmp_path / "first", "--json")
    assert causes(call(catalogue.app, *add_first)) == ["REVOCATIONS_OLD"]
    assert "list 2" in call(catalogue.app, "revocations", "--dir", network).stdout


def test_what_cannot_be_revoked(tmp_path, sample):
    key = tmp_path / "v.key"
    signing.write_private(key, sample.key)
    words = ("--key", key, "--issuer", "Acme Rail", "--kind", "key")
    assert causes(call(package.app, "revoke", tmp_path / "l", *words, "--id", "abc", "--json")) == [
        "REVOCATIONS_MALFORMED"
    ]
    assert not (tmp_path / "l").exists()
    value(call(package.app, "revoke", tmp_path / "l", *words, "--id", "a" * 64, "--json"))
    other = ("--key", key, "--issuer", "Other", "--kind", "key", "--id", "a" * 64, "--json")
    assert causes(call(package.app, "revoke", tmp_path / "l", *other)) == ["ISSUER_MISMATCH"]
