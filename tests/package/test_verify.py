"""Verifying: an altered package is refused for its own cause, whatever was altered."""

import json
import platform
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from packaging.tags import compatible_tags, cpython_tags

from outrider.core.canonical import canonical
from outrider.core.refusal import Refusal
from outrider.package import layout, signing
from outrider.package.inspect import Description, inspect
from outrider.package.vendors import TrustedVendor
from outrider.package.verify import Verified, verify
from outrider.package.wheels import Machine

MEMBERS = (
    "code/LICENSE",
    "code/rollcall/app.py",
    "licences/roll-call/LICENSE",
    layout.MANIFEST,
    layout.SBOM,
    "wheels/starlette",
    "wheels/msgspec",
    "wheels/outrider_sdk",
)


def full(members: dict[str, bytes], prefix: str) -> str:
    return next(n for n in members if n.startswith(prefix))


def cause(result: Verified | Refusal) -> str:
    return result.code if isinstance(result, Refusal) else "verified"


def test_a_package_of_a_trusted_vendor_is_verified(sample):
    verified = verify(sample.path, [sample.vendor])
    assert isinstance(verified, Verified), verified
    assert verified.package_digest == sample.built.package_digest
    assert verified.sbom_digest == sample.built.sbom_digest
    assert verified.vendor_key == signing.key_id(sample.vendor.key)
    assert verified.manifest.service == "roll-call"
    assert {w.name for w in verified.chosen} == {w.name for w in verified.libraries}


@pytest.mark.parametrize("member", MEMBERS)
def test_an_altered_member_is_noticed(sample, pack, member):
    members = sample.members()
    name = full(members, member)
    members[name] = members[name][:-1] + bytes([members[name][-1] ^ 1])
    result = verify(pack(members), [sample.vendor])
    assert isinstance(result, Refusal)
    assert (result.code, result.facts["path"]) == ("DIGEST_MISMATCH", name)


@pytest.mark.parametrize("member", [m for m in MEMBERS if m not in (layout.MANIFEST, layout.SBOM)])
def test_a_removed_member_is_noticed(sample, pack, member):
    members = sample.members()
    name = full(members, member)
    del members[name]
    result = verify(pack(members), [sample.vendor])
    assert isinstance(result, Refusal)
    assert (result.code, result.facts["path"]) == ("DIGEST_MISMATCH", name)


@pytest.mark.parametrize("member", [layout.MANIFEST, layout.SBOM, layout.DIGESTS, layout.SIGNATURE])
def test_a_package_without_one_of_its_parts_is_malformed(sample, pack, member):
    members = sample.members()
    del members[member]
    result = verify(pack(members), [sample.vendor])
    assert isinstance(result, Refusal)
    assert result.code == "PACKAGE_MALFORMED"
    assert member in result.sentence


@pytest.mark.parametrize(
    "name", ["code/more.py", "wheels/more-1.0-py3-none-any.whl", "licences/x", "code/rollcall/app.pyc"]
)
def test_an_added_member_is_noticed(sample, pack, name):
    result = verify(pack(sample.members() | {name: b"x"}), [sample.vendor])
    assert isinstance(result, Refusal)
    assert (result.code, result.facts["path"]) == ("DIGEST_MISMATCH", name)


@pytest.mark.parametrize("name", ["more", "site/x.py", "wheels/x.txt", "wheels/a/b-1-py3-none-any.whl", "Other.json"])
def test_a_member_that_has_no_place_in_a_package_is_malformed(sample, pack, name):
    assert cause(verify(pack(sample.members() | {name: b"x"}), [sample.vendor])) == "PACKAGE_MALFORMED"


def test_altered_digests_no_longer_fit_the_signature(sample, pack):
    members = sample.members()
    digests = json.loads(members[layout.DIGESTS])
    digests["code/rollcall/app.py"] = "0" * 64
    members[layout.DIGESTS] = json.dumps(digests, sort_keys=True, separators=(",", ":")).encode()
    assert cause(verify(pack(members), [sample.vendor])) == "SIGNATURE_INVALID"


def test_every_altered_part_of_the_signature_is_noticed(sample, pack):
    members = sample.members()
    envelope = json.loads(members[layout.SIGNATURE])
    signature = envelope["signatures"][0]
    altered = {
        "payload": ({**envelope, "payload": "e30="}, "SIGNATURE_INVALID"),
        "type": ({**envelope, "payloadType": "text/plain"}, "SIGNATURE_INVALID"),
        "sig": ({**envelope, "signatures": [{**signature, "sig": "AAAA"}]}, "SIGNATURE_INVALID"),
        "not base64": ({**envelope, "signatures": [{**signature, "sig": "*"}]}, "SIGNATURE_INVALID"),
        "keyid": ({**envelope, "signatures": [{**signature, "keyid": "0" * 64}]}, "VENDOR_UNKNOWN"),
        "twice": ({**envelope, "signatures": [signature, signature]}, "SIGNATURE_INVALID"),
        "none": ({**envelope, "signatures": []}, "SIGNATURE_INVALID"),
        "more": ({**envelope, "more": 1}, "SIGNATURE_INVALID"),
    }
    for what, (value, expected) in altered.items():
        members[layout.SIGNATURE] = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        assert cause(verify(pack(members), [sample.vendor])) == expected, what


def test_a_vendor_that_is_not_trusted_is_unknown(sample):
    stranger = TrustedVendor("Acme Rail", Ed25519PrivateKey.generate().public_key())
    assert cause(verify(sample.path, [stranger])) == "VENDOR_UNKNOWN"
    assert cause(verify(sample.path, [])) == "VENDOR_UNKNOWN"


def test_a_trusted_vendor_may_not_sign_in_the_name_of_another(sample):
    result = verify(sample.path, [TrustedVendor("Other Works", sample.vendor.key)])
    assert isinstance(result, Refusal)
    assert (result.code, result.facts["signedBy"]) == ("VENDOR_MISMATCH", "Other Works")


def test_one_key_may_be_known_under_two_names(sample):
    assert cause(verify(sample.path, [TrustedVendor("Former Name", sample.vendor.key), sample.vendor])) == "verified"


def test_a_signature_over_another_package_does_not_count(sample, resign, pack):
    other = zipfile.ZipFile(resign(sample.members() | {"code/x.py": b""}, sample.key)).read(layout.SIGNATURE)
    assert cause(verify(pack(sample.members() | {layout.SIGNATURE: other}), [sample.vendor])) == "SIGNATURE_INVALID"


def test_a_signature_over_another_name_does_not_count(sample, resign):
    path = resign(sample.members(), sample.key, "roll-call-9.9.lms")
    assert cause(verify(path, [sample.vendor])) == "SIGNATURE_INVALID"


class TestALyingVendor:
    """Correctly signed, and yet wrong."""

    @staticmethod
    def manifest_with(members: dict[str, bytes], **changes: object) -> dict[str, bytes]:
        value = json.loads(members[layout.MANIFEST]) | changes
        raw = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        return members | {layout.MANIFEST: raw}

    def sbom_with(self, members: dict[str, bytes], change) -> dict[str, bytes]:
        value = json.loads(members[layout.SBOM])
        change(value)
        return members | {layout.SBOM: canonical(value)}

    def test_the_untouched_package_signed_anew_is_verified(self, sample, resign):
        assert cause(verify(resign(sample.members(), sample.key), [sample.vendor])) == "verified"

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"service": "Roll Call"}, "MANIFEST_INVALID"),
            ({"service": "../../etc"}, "MANIFEST_INVALID"),
            ({"nfServices": []}, "MANIFEST_INVALID"),
            ({"surprise": 1}, "MANIFEST_INVALID"),
            ({"architectures": []}, "MANIFEST_INVALID"),
            ({"python": ""}, "MANIFEST_INVALID"),
            ({"python": "x"}, "MANIFEST_INVALID"),
            ({"python": "99.99"}, "WHEEL_MISSING"),
            ({"requirements": ["???"]}, "MANIFEST_INVALID"),
            ({"requirements": ["msgspec"]}, "PACKAGE_MALFORMED"),
            ({"requirements": ["starlette", "msgspec", "rich"]}, "WHEEL_MISSING"),
            ({"requirements": ["starlette<0.1", "msgspec"]}, "WHEEL_VERSION"),
            ({"architectures": ["riscv64"]}, "WHEEL_MISSING"),
            ({"vendor": "Other Works"}, "VENDOR_MISMATCH"),
            ({"version": "9.9"}, "SBOM_MISMATCH"),
            ({"licence": "MIT"}, "SBOM_MISMATCH"),
            ({"licence": ";"}, "SBOM_MISMATCH"),
        ],
        ids=str,
    )
    def test_a_manifest_that_does_not_fit(self, sample, resign, changes, expected):
        path = resign(self.manifest_with(sample.members(), **changes), sample.key)
        assert cause(verify(path, [sample.vendor])) == expected

    def test_a_manifest_that_is_not_canonical(self, sample, resign):
        members = sample.members()
        members[layout.MANIFEST] = members[layout.MANIFEST][:-1] + b',"service":"roll-call"}'
        assert cause(verify(resign(members, sample.key), [sample.vendor])) == "MANIFEST_INVALID"

    @pytest.mark.parametrize(
        ("path", "value", "expected"),
        [
            (("specVersion",), "1.2", "SBOM_INVALID"),
            (("surprise",), 1, "SBOM_INVALID"),
            (("components", 1, "type"), "spaceship", "SBOM_INVALID"),
            (("components", 1, "hashes", 0, "content"), "zz", "SBOM_INVALID"),
            (("components", 1, "hashes", 0, "content"), "0" * 64, "SBOM_MISMATCH"),
            (("components", 1, "version"), "0.0.1", "SBOM_MISMATCH"),
            (("components", 1, "name"), "harmless", "SBOM_MISMATCH"),
            (("components", 1, "purl"), "pkg:pypi/harmless@1", "SBOM_MISMATCH"),
            (("components", 1, "licenses"), [{"license": {"id": "0BSD"}}], "SBOM_MISMATCH"),
            (("components", 1, "bom-ref"), "wheels/other", "SBOM_MISMATCH"),
            (("components", 0, "components", 0, "hashes", 0, "content"), "0" * 64, "SBOM_MISMATCH"),
            (("components", 0, "components"), [], "SBOM_MISMATCH"),
            (("components",), [], "SBOM_MISMATCH"),
            (("dependencies",), [], "SBOM_MISMATCH"),
            (("dependencies", 0, "dependsOn"), [], "SBOM_MISMATCH"),
            (("metadata", "component", "version"), "7", "SBOM_MISMATCH"),
        ],
        ids=str,
    )
    def test_an_sbom_that_does_not_fit(self, sample, resign, path, value, expected):
        def change(document) -> None:
            for key in path[:-1]:
                document = document[key]
            document[path[-1]] = value

        altered = resign(self.sbom_with(sample.members(), change), sample.key)
        assert cause(verify(altered, [sample.vendor])) == expected

    def test_an_sbom_with_a_component_that_is_not_there(self, sample, resign):
        def change(document) -> None:
            document["components"].append({"type": "library", "name": "ghost", "version": "1", "bom-ref": "ghost"})

        altered = resign(self.sbom_with(sample.members(), change), sample.key)
        assert cause(verify(altered, [sample.vendor])) == "SBOM_MISMATCH"

    def test_an_sbom_that_says_one_thing_twice(self, sample, resign):
        raw = sample.members()[layout.SBOM]
        altered = resign(sample.members() | {layout.SBOM: raw[:-1] + b',"version":1}'}, sample.key)
        assert cause(verify(altered, [sample.vendor])) == "SBOM_INVALID"

    @pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a":' * 5_000])
    def test_an_sbom_that_is_no_sbom(self, sample, resign, raw):
        altered = resign(sample.members() | {layout.SBOM: raw}, sample.key)
        assert cause(verify(altered, [sample.vendor])) == "SBOM_INVALID"

    def test_code_that_the_sbom_does_not_list(self, sample, resign):
        altered = resign(sample.members() | {"code/more.py": b""}, sample.key)
        assert cause(verify(altered, [sample.vendor])) == "SBOM_MISMATCH"

    def test_a_wheel_in_another_name(self, sample, resign):
        members = sample.members()
        name = full(members, "wheels/idna")
        members[name.replace("idna-", "idnb-")] = members.pop(name)
        assert cause(verify(resign(members, sample.key), [sample.vendor])) == "WHEEL_INVALID"

    def test_code_in_the_place_of_a_wheels_file(self, sample, resign):
        def change(document) -> None:
            files = document["components"][0]["components"]
            files.append({**files[0], "bom-ref": "code/idna/core.py", "name": "code/idna/core.py"})

        members = sample.members()
        members["code/idna/core.py"] = members["code/LICENSE"]
        altered = resign(self.sbom_with(members, change), sample.key)
        assert cause(verify(altered, [sample.vendor])) == "PATH_CONFLICT"


class TestMachine:
    """A package that does not run here is refused before it is installed."""

    @staticmethod
    def machine(architecture: str, python: str = "", glibc: str = "2_17") -> Machine:
        here = Machine.here()
        python = python or here.python
        major, minor = map(int, python.split("."))
        platforms = [f"manylinux_{glibc}_{architecture}", f"linux_{architecture}"]
        tags = (
            *cpython_tags((major, minor), platforms=platforms),
            *compatible_tags((major, minor), platforms=platforms),
        )
        return Machine(architecture, python, tags)

    def test_another_architecture(self, sample):
        result = verify(sample.path, [sample.vendor], self.machine("s390x"))
        assert isinstance(result, Refusal)
        assert (result.code, result.facts["machine"]) == ("ARCHITECTURE_ABSENT", "s390x")

    def test_another_python(self, sample):
        result = verify(sample.path, [sample.vendor], self.machine(platform.machine(), "3.99"))
        assert cause(result) == "PYTHON_ABSENT"

    def test_a_libc_that_is_too_old_for_the_wheels(self, sample):
        result = verify(sample.path, [sample.vendor], self.machine(platform.machine(), glibc="2_5"))
        assert cause(result) == "WHEEL_MISSING"

    def test_an_operator_may_verify_what_others_run(self, sample):
        result = verify(sample.path, [sample.vendor], to_run=False)
        assert isinstance(result, Verified)
        assert result.machine is None


def test_inspect_describes_without_trust(sample):
    found = inspect(sample.path)
    assert isinstance(found, Description)
    assert found.package_digest == sample.built.package_digest
    assert found.signed_by == [signing.key_id(sample.vendor.key)]
    assert set(found.code) == {"LICENSE", "rollcall/__init__.py", "rollcall/app.py", "rollcall/names.py"}
    assert {w.name: w.licence for w in found.libraries}["starlette"] == "BSD-3-Clause"


def test_inspect_refuses_what_does_not_fit(sample, pack):
    result = inspect(pack(sample.members() | {"code/rollcall/app.py": b"x"}))
    assert isinstance(result, Refusal)
    assert result.code == "DIGEST_MISMATCH"


def test_a_file_that_is_not_there_is_a_fault_of_the_machine(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "gone.lms", [])


def test_sbom_has_the_minimum_fields(sample):
    document = json.loads(sample.members()[layout.SBOM])
    assert document["bomFormat"], document["specVersion"] == ("CycloneDX", "1.6")
    assert document["metadata"]["supplier"] == {"name": "Acme Rail"}
    assert document["metadata"]["authors"] == [{"name": "Acme Rail"}]
    assert document["metadata"]["component"]["purl"] == "pkg:generic/roll-call@1.2.0"
    assert "timestamp" not in document["metadata"]
    assert document["serialNumber"].startswith("urn:uuid:")
    libraries = {c["name"]: c for c in document["components"] if c["type"] == "library"}
    starlette = libraries["starlette"]
    assert starlette["purl"] == f"pkg:pypi/starlette@{starlette['version']}"
    assert starlette["licenses"] == [{"license": {"acknowledgement": "declared", "id": "BSD-3-Clause"}}]
    assert starlette["supplier"]["name"]
    assert libraries["outrider-sdk"]["purl"].startswith("pkg:generic/")
    files = {f["name"] for f in document["components"][0]["components"]}
    assert "code/rollcall/app.py" in files
    needs = {d["ref"]: d["dependsOn"] for d in document["dependencies"]}
    assert needs["package"] == ["code"]
    assert {p.removeprefix("wheels/").partition("-")[0] for p in needs["code"]} == {
        "starlette",
        "msgspec",
        "outrider_sdk",
    }
    assert "anyio" in {p.removeprefix("wheels/").partition("-")[0] for p in needs[starlette["bom-ref"]]}


def test_sbom_of_the_cyclonedx_library_reads_it_back(sample):
    from cyclonedx.model.bom import Bom

    bom = Bom.from_json(json.loads(sample.members()[layout.SBOM]))
    assert {c.name for c in bom.components} >= {"roll-call-code", "starlette", "msgspec"}


def test_the_signature_is_an_in_toto_statement_that_other_tools_verify(sample):
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey

    envelope = Envelope.from_dict(json.loads(sample.members()[layout.SIGNATURE]))
    key = SSlibKey.from_crypto(sample.vendor.key, keyid=signing.key_id(sample.vendor.key))
    envelope.verify([key], 1)
    statement = json.loads(envelope.payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [{"name": "roll-call-1.2.0.lms", "digest": {"sha256": sample.built.package_digest}}]
    assert statement["predicate"]["sbom"]["sha256"] == sample.built.sbom_digest


def test_reading_does_not_depend_on_how_zip_compressed(sample, pack):
    """Another zlib packs differently; the package digest, and so every permission, stays the same."""
    stored = pack(sample.members())
    assert stored.read_bytes() != sample.path.read_bytes()
    verified = verify(stored, [sample.vendor])
    assert isinstance(verified, Verified)
    assert verified.package_digest == sample.built.package_digest
