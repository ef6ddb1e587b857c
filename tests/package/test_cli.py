"""The commands, as an operator and a vendor use them."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from outrider.cli import package, permission
from outrider.package import signing

HOME, GUEST = "999-70", "999-71-000007ed9d5"


def call(app, *words: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, [str(w) for w in words], env=env)


def value(result: Result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def causes(result: Result) -> list[str]:
    assert result.exit_code == 1, result.output
    return [r["code"] for r in json.loads(result.stdout)["refusals"]]


@pytest.fixture
def network(tmp_path: Path):
    """A network's folder as far as signing needs it: its configuration and its operator's key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    def make(network: str) -> Path:
        folder = tmp_path / network
        (folder / "keys").mkdir(parents=True)
        kind = "snpn" if network.count("-") == 2 else "plmn"
        (folder / "network.toml").write_text(f'[network]\nid = "{network}"\nkind = "{kind}"\n')
        key = Ed25519PrivateKey.generate()
        signing.write_private(folder / "keys/operator.key", key)
        (folder / "operator.pem").write_bytes(signing.public_pem(key.public_key()))
        return folder

    return make


@pytest.fixture
def vendor(sample, tmp_path: Path) -> Path:
    path = tmp_path / "acme.pub"
    path.write_bytes(sample.vendor.encode())
    return path


class TestPackage:
    def test_from_keys_to_a_verified_package(self, service, tmp_path):
        made = value(call(package.app, "keygen", "--vendor", "Acme Rail", "-o", tmp_path / "acme.key", "--json"))
        out = tmp_path / "out"
        built = value(call(package.app, "build", service(), "-o", out, "--key", made["privateKey"], "--json"))
        assert Path(built["file"]) == out / "roll-call-1.2.0.lms"
        assert built["vendorKey"] == made["keyId"]
        found = value(call(package.app, "inspect", built["file"], "--json"))
        assert found["packageDigest"] == built["packageDigest"]
        assert found["manifest"]["nfServices"][0]["name"] == "nsmf-rollcall"
        verified = value(call(package.app, "verify", built["file"], "--vendor", made["publicKey"], "--json"))
        assert verified["packageDigest"] == built["packageDigest"]
        folder = value(call(package.app, "verify", built["file"], "--vendor", tmp_path, "--json"))
        assert folder == verified

    def test_people_get_sentences(self, sample, vendor):
        text = call(package.app, "inspect", sample.path).stdout
        assert "roll-call 1.2.0 by Acme Rail" in text
        assert "starlette" in text
        assert "Verified: roll-call 1.2.0" in call(package.app, "verify", sample.path, "--vendor", vendor).stdout

    def test_a_refusal_has_its_cause_and_exit_code_1(self, sample, tmp_path):
        value(call(package.app, "keygen", "--vendor", "Acme Rail", "-o", tmp_path / "other.key", "--json"))
        words = ("verify", sample.path, "--vendor", tmp_path / "other.pub")
        assert causes(call(package.app, *words, "--json")) == ["VENDOR_UNKNOWN"]
        result = call(package.app, *words)
        assert result.exit_code == 1
        assert "cause: VENDOR_UNKNOWN" in result.output

    def test_a_build_that_is_refused_says_what_is_missing(self, service, tmp_path):
        made = value(call(package.app, "keygen", "--vendor", "Acme Rail", "-o", tmp_path / "acme.key", "--json"))
        folder = service(rollcall__more="import granian\n")
        result = call(package.app, "build", folder, "-o", tmp_path, "--key", made["privateKey"], "--json")
        assert causes(result) == ["MODULE_MISSING"]

    def test_keys_are_never_overwritten(self, tmp_path):
        words = ("keygen", "--vendor", "Acme Rail", "-o", tmp_path / "acme.key", "--json")
        value(call(package.app, *words))
        assert causes(call(package.app, *words)) == ["KEY_EXISTS"]

    @pytest.mark.parametrize("epoch", ["tomorrow", "-1", "9" * 30, "1.5"])
    def test_a_source_date_epoch_that_is_no_time_is_refused(self, service, tmp_path, epoch):
        made = value(call(package.app, "keygen", "--vendor", "Acme Rail", "-o", tmp_path / "acme.key", "--json"))
        words = ("build", service(), "-o", tmp_path, "--key", made["privateKey"], "--json")
        assert causes(call(package.app, *words, env={"SOURCE_DATE_EPOCH": epoch})) == ["TIME_INVALID"]

    def test_misuse_has_exit_code_2(self, tmp_path, sample):
        assert call(package.app, "inspect", tmp_path / "gone.lms").exit_code == 2
        assert call(package.app, "verify", sample.path).exit_code == 2
        assert call(package.app, "build", sample.path, "--key", sample.path).exit_code == 2


class TestPermission:
    @pytest.fixture
    def terms(self) -> list[str]:
        return ["--source", HOME, "--target", GUEST, "--home", HOME, "--days", "7"]

    def test_two_networks_sign_the_same_package_and_one_takes_it_back(self, sample, vendor, network, terms, tmp_path):
        ids = set()
        for name in (HOME, GUEST):
            folder = network(name)
            out = tmp_path / f"{name}.permission.json"
            made = value(
                call(
                    permission.app,
                    "sign",
                    sample.path,
                    "--dir",
                    folder,
                    *terms,
                    "--vendor",
                    vendor,
                    "-o",
                    out,
                    "--json",
                )
            )
            assert made["permission"]["signer"] == name
            assert made["permission"]["packageDigest"] == sample.built.package_digest
            assert made["permission"]["sbomDigest"] == sample.built.sbom_digest
            shown = value(call(permission.app, "show", out, "--key", folder / "operator.pem", "--json"))
            assert (shown["id"], shown["signature"]) == (made["id"], "valid")
            ids.add(made["id"])
        assert len(ids) == 2
        revoked = value(call(permission.app, "revoke", out, "--dir", tmp_path / GUEST, "--reason", "over", "--json"))
        assert revoked["revocation"]["permissionId"] in ids
        assert Path(revoked["file"]) == tmp_path / f"{GUEST}.revocation.json"
        assert causes(call(permission.app, "revoke", out, "--dir", tmp_path / HOME, "--json")) == [
            "PERMISSION_OF_ANOTHER"
        ]

    def test_another_key_is_told(self, sample, vendor, network, terms, tmp_path):
        out = tmp_path / "p.json"
        words = ["sign", sample.path, "--dir", network(HOME), *terms, "--vendor", vendor, "-o", out]
        assert call(permission.app, *words).exit_code == 0
        shown = value(call(permission.app, "show", out, "--key", network(GUEST) / "operator.pem", "--json"))
        assert shown["signature"] == "signer-unknown"
        assert "not checked" in call(permission.app, "show", out).stdout

    def test_vendors_of_the_network_are_trusted(self, sample, network, terms, tmp_path):
        folder = network(HOME)
        words = ["sign", sample.path, "--dir", folder, *terms, "-o", tmp_path / "p.json", "--json"]
        assert causes(call(permission.app, *words)) == ["VENDOR_UNKNOWN"]
        (folder / "vendors").mkdir()
        (folder / "vendors/acme.pub").write_bytes(sample.vendor.encode())
        value(call(permission.app, *words))

    def test_limits_are_signed(self, sample, vendor, network, terms, tmp_path):
        words = ["sign", sample.path, "--dir", network(HOME), *terms, "--vendor", vendor, "-o", tmp_path / "p.json"]
        more = [
            "--ue-group",
            "team",
            "--area",
            "x",
            "--area",
            "y",
            "--category",
            "service",
            "--instances",
            "2",
            "--json",
        ]
        made = value(call(permission.app, *words, *more))["permission"]
        assert (made["ueGroup"], made["area"], made["maxInstances"]) == ("team", ["x", "y"], 2)
        assert made["dataPolicy"] == {"categories": ["service"]}
        assert made["notAfterMs"] - made["notBeforeMs"] == 7 * 86_400_000

    def test_nobody_signs_for_others(self, sample, vendor, network, terms, tmp_path):
        words = ["sign", sample.path, "--dir", network("999-72"), *terms, "--vendor", vendor, "-o", tmp_path / "p.json"]
        assert causes(call(permission.app, *words, "--json")) == ["NOT_A_PARTY"]
        assert not (tmp_path / "p.json").exists()

    def test_terms_that_make_no_sense_are_refused(self, sample, vendor, network, terms, tmp_path):
        folder = network(HOME)
        words = ["sign", sample.path, "--dir", folder, "--vendor", vendor, "-o", tmp_path / "p.json", "--json"]
        same = ["--source", HOME, "--target", HOME, "--home", HOME, "--days", "7"]
        assert causes(call(permission.app, *words, *same)) == ["TERMS_INVALID"]
        assert causes(call(permission.app, *words, *terms, "--purpose", "a\nb")) == ["TERMS_INVALID"]
        assert call(permission.app, *words, *terms, "--source", "nowhere").exit_code == 2
        assert call(permission.app, *words, *terms, "--days", "0").exit_code == 2

    @pytest.mark.skipif(os.name != "posix", reason="file modes")
    def test_a_key_that_others_can_read_signs_nothing(self, sample, vendor, network, terms, tmp_path):
        folder = network(HOME)
        (folder / "keys/operator.key").chmod(0o644)
        words = ["sign", sample.path, "--dir", folder, *terms, "--vendor", vendor, "-o", tmp_path / "p.json", "--json"]
        assert causes(call(permission.app, *words)) == ["KEY_EXPOSED"]

    def test_what_is_no_permission_is_refused(self, tmp_path):
        path = tmp_path / "x.json"
        path.write_text("{}")
        assert causes(call(permission.app, "show", path, "--json")) == ["ENVELOPE_MALFORMED"]


@pytest.mark.parametrize("app", [package.app, permission.app])
def test_every_command_has_an_example_and_json(app):
    for command in app.registered_commands:
        name = command.callback.__name__
        shown = call(app, name, "--help", env={"COLUMNS": "200"}).stdout
        assert "Example:" in shown, name
        assert "--json" in shown, name
