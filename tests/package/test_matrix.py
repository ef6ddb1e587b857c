"""Every field of a package altered, one at a time, and every bound passed: refused, each for its own cause.

Nothing is listed by hand that could be forgotten: the places come from the documents, the bounds from `core.limits`.
Two adversaries: one who alters what a vendor has signed, and a trusted vendor who signs what is not true.
"""

import base64
import dataclasses
import io
import json
import math
import os
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outrider.core import limits
from outrider.core.canonical import canonical, sha256_hex
from outrider.core.manifest import KeyRule, Manifest, NfServiceSpec, Resources, StateSchema
from outrider.core.permission import PERMISSION_TYPE, Permission
from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf.catalogue import Catalogue
from outrider.functions.lmsf.clocks import SystemClock
from outrider.functions.lmsf.journal import Journal
from outrider.functions.lmsf.software import PackageSoftware
from outrider.package import layout, sbom, signing, statements
from outrider.package.archive import Archive, write_zip
from outrider.package.inspect import Description, inspect
from outrider.package.install import install
from outrider.package.verify import Verified, verify
from support.hostile import content_of, get, other, places, put, show, without, wrong_type


def cause(result: object) -> str:
    return result.code if isinstance(result, Refusal) else "good"


# -------------------------------------------------------------------------------- what the vendor has signed


def test_every_place_of_every_json_part_is_under_the_vendors_signature(sample, pack):
    """Manifest, SBOM, digests: any other value anywhere, and any place left out."""
    members = sample.members()
    expected = {layout.MANIFEST: "DIGEST_MISMATCH", layout.SBOM: "DIGEST_MISMATCH", layout.DIGESTS: "SIGNATURE_INVALID"}
    tried = Counter[str]()
    for name, code in expected.items():
        document = json.loads(members[name])
        for at in places(document):
            for altered in (put(document, at, other(get(document, at))), without(document, at)):
                if len(at) > 3 and tried[name] > 400:  # files of the SBOM are many and alike
                    continue
                result = verify(pack(members | {name: canonical(altered)}), [sample.vendor])
                assert (cause(result), show(at)) == (code, show(at))
                tried[name] += 1
    assert min(tried.values()) > 20


def test_every_place_of_the_vendors_signature_is_checked(sample, pack):
    members = sample.members()
    envelope = json.loads(members[layout.SIGNATURE])
    allowed = {"SIGNATURE_INVALID", "VENDOR_UNKNOWN"}
    for at in places(envelope):
        here = get(envelope, at)
        for altered in (put(envelope, at, other(here)), put(envelope, at, wrong_type(here)), without(envelope, at)):
            result = verify(pack(members | {layout.SIGNATURE: canonical(altered)}), [sample.vendor])
            assert cause(result) in allowed, show(at)


def test_every_place_of_what_the_vendor_signs_must_fit_the_package(sample, pack):
    """The vendor signs a statement about something else, field by field."""
    members = sample.members()
    statement = json.loads(base64.b64decode(json.loads(members[layout.SIGNATURE])["payload"]))
    for at in places(statement):
        here = get(statement, at)
        for altered in (put(statement, at, other(here)), put(statement, at, wrong_type(here)), without(statement, at)):
            envelope = signing.sign(canonical(altered), signing.IN_TOTO_TYPE, sample.key)
            result = verify(pack(members | {layout.SIGNATURE: envelope}), [sample.vendor])
            expected = "VENDOR_MISMATCH" if at[-1] == "vendor" and altered["predicate"].get("vendor") else ""
            expected = expected if expected and isinstance(altered["predicate"]["vendor"], str) else "SIGNATURE_INVALID"
            assert cause(result) == expected, show(at)


# ------------------------------------------------------------------------- a vendor who does not tell the truth

FULL = Manifest(
    service="roll-call",
    version="1.2.0",
    vendor="Acme Rail",
    description="Who is here",
    nf_services=[
        NfServiceSpec(
            name="nsmf-rollcall",
            nf_type="SMF",
            app="rollcall.app:app",
            keys=[
                KeyRule(path="/nsmf-rollcall/v1/ues/{supi}", at="path:supi", creates=True),
                KeyRule(path="/nsmf-rollcall/v1/groups", at="body:/group", of="shared", prefix="g"),
            ],
        )
    ],
    requirements=["starlette", "msgspec"],
    architectures=["x86_64"],
    python="3.11",
    requires=["namf-evts"],
    s_nssai=[{"sst": 1, "sd": "00000a"}],
    dnn=["internet"],
    state_schema=StateSchema(version=2, reads=[1, 2], categories={"nsmf-rollcall": "service"}),
    resources=Resources(),
    licence="Apache-2.0",
    export_class="EAR99",
    source_offers={"msgspec": "https://example.org/msgspec"},
)


def test_a_manifest_with_any_place_of_a_wrong_type_is_invalid(sample, resign):
    document = json.loads(FULL.encode())
    assert set(document) == {field.encode_name for field in msgspec.structs.fields(Manifest)}
    for at in places(document):
        members = sample.members() | {layout.MANIFEST: canonical(put(document, at, wrong_type(get(document, at))))}
        result = verify(resign_raw(resign, members, sample.key), [sample.vendor])
        assert (cause(result), show(at)) == ("MANIFEST_INVALID", show(at))


@pytest.mark.parametrize("name", ["service", "version", "vendor", "nfServices"])
def test_a_manifest_without_what_it_must_say_is_invalid(sample, resign, name):
    members = sample.members() | {layout.MANIFEST: canonical(without(json.loads(FULL.encode()), (name,)))}
    assert cause(verify(resign(members, sample.key), [sample.vendor])) == "MANIFEST_INVALID"


@pytest.mark.parametrize(
    "number",
    ["NaN", "Infinity", "-Infinity", "1e999", "1" * 400, "1" * 5000, "-1", "1e-400", "0.1e1", "18446744073709551616"],
)
@pytest.mark.parametrize("field", [("resources", "cpuShare"), ("resources", "memoryMb"), ("stateSchema", "version")])
def test_a_manifest_with_a_number_that_is_none_is_invalid(sample, resign, field, number):
    document = put(json.loads(FULL.encode()), field, "HERE")
    members = sample.members() | {layout.MANIFEST: canonical(document).replace(b'"HERE"', number.encode())}
    result = verify(resign_raw(resign, members, sample.key), [sample.vendor])
    assert cause(result) == "MANIFEST_INVALID"


def resign_raw(resign, members, key) -> Path:
    """As `resign`, for a manifest that the test's own JSON reader might not read."""
    raw = members[layout.MANIFEST]
    path = resign(members | {layout.MANIFEST: FULL.encode()}, key)
    with zipfile.ZipFile(path) as made:
        parts = {name: made.read(name) for name in made.namelist()}
    digests = json.loads(parts[layout.DIGESTS]) | {layout.MANIFEST: sha256_hex(raw)}
    parts |= {layout.MANIFEST: raw, layout.DIGESTS: canonical(digests)}
    statement = json.loads(base64.b64decode(json.loads(parts[layout.SIGNATURE])["payload"]))
    statement["subject"][0]["digest"]["sha256"] = layout.package_digest(parts[layout.DIGESTS])
    statement["predicate"]["manifest"]["sha256"] = sha256_hex(raw)
    parts[layout.SIGNATURE] = signing.sign(canonical(statement), signing.IN_TOTO_TYPE, key)
    with path.open("wb") as file:
        write_zip(file, sorted(parts.items()), compress=False)
    return path


@pytest.mark.parametrize("opening", ["[", '{"a":'], ids=["list", "object"])
@pytest.mark.parametrize("depth", [100, 1_000, 100_000])
def test_json_that_is_nested_too_deeply_is_refused(sample, resign, opening, depth):
    closing = "]" if opening == "[" else "}"
    inner = (opening * depth + ("" if opening == "[" else "1") + closing * depth).encode()
    document = canonical(put(json.loads(FULL.encode()), ("description",), "HERE"))
    manifest = document.replace(b'"HERE"', inner)
    bill = sample.members()[layout.SBOM].replace(b'"CycloneDX"', inner, 1)
    altered = sample.members() | {layout.MANIFEST: manifest}
    assert cause(verify(resign_raw(resign, altered, sample.key), [sample.vendor])) == "MANIFEST_INVALID"
    altered = sample.members() | {layout.SBOM: bill}
    assert cause(verify(resign(altered, sample.key), [sample.vendor])) == "SBOM_INVALID"


FREE = {"$schema", "serialNumber", "version", "lifecycles", "tools", "timestamp", "acknowledgement"}
"""What an SBOM says that the package's bytes do not decide: about the document, not about the software."""


def test_every_place_of_the_sbom_must_fit_the_bytes(sample):
    """No matter who signs it. Compared without an archive around it, so that thousands of places take seconds."""
    with Archive(sample.path) as opened:
        content = content_of(opened)
    document = json.loads(sample.members()[layout.SBOM])
    assert sbom.check(canonical(document), content) is None
    tried = 0
    for at in places(document):
        free = not FREE.isdisjoint(at) and at[:1] != ("components",)
        if free or "acknowledgement" in at or (len(at) > 4 and tried > 600):
            continue
        here = get(document, at)
        spoilt = [put(document, at, other(here)), put(document, at, wrong_type(here))]
        if here != []:  # no list and an empty one say the same
            spoilt.append(without(document, at))
        for altered in spoilt:
            assert cause(sbom.check(canonical(altered), content)) in ("SBOM_MISMATCH", "SBOM_INVALID"), show(at)
            tried += 1
    assert tried > 200


# ------------------------------------------------------------------------------------------------- bounds


def _archive(tmp_path: Path, *members: tuple[str, bytes]) -> Path:
    path = tmp_path / "x.lms"
    buffer = io.BytesIO()
    write_zip(buffer, sorted(members), compress=False)
    path.write_bytes(buffer.getvalue())
    return path


def _large_archive(tmp_path: Path) -> Path:
    path = tmp_path / "x.lms"
    with path.open("wb") as file:
        file.truncate(limits.PACKAGE_BYTES + 1)
    return path


def _announcing(tmp_path: Path, packed: int, size: int) -> Path:
    """One deflated entry that announces sizes; what it holds is not looked at before these are known to be bounded."""
    path, name = tmp_path / "x.lms", b"digests.json"
    raw = os.urandom(packed)
    fields = (0, 8, 0, 33, 0, len(raw), size, len(name))
    local = b"PK\x03\x04" + struct.pack("<5H3L2H", 20, *fields, 0) + name + raw
    central = b"PK\x01\x02" + struct.pack("<6H3L5H2L", 788, 20, *fields, 0, 0, 0, 0, 0o100644 << 16, 0) + name
    end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 1, 1, len(central), len(local), 0)
    path.write_bytes(local + central + end)
    return path


def _many_files_in_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample, resign) -> Path:
    monkeypatch.setattr(limits, "PACKAGE_SITE_FILES", 20)
    return Path(resign(sample.members(), sample.key))


def _large_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample, resign) -> Path:
    monkeypatch.setattr(limits, "PACKAGE_META_BYTES", 500)
    return Path(resign(sample.members(), sample.key))


def _large_envelope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample, pack) -> Path:
    return Path(pack(sample.members() | {layout.SIGNATURE: b"x" * (limits.ENVELOPE_BYTES + 1)}))


def _many_signatures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample, pack) -> Path:
    envelope: bytes | Refusal = sample.members()[layout.SIGNATURE]
    for _ in range(limits.ENVELOPE_SIGNATURES):
        assert isinstance(envelope, bytes)
        envelope = signing.add_signature(envelope, signing.IN_TOTO_TYPE, Ed25519PrivateKey.generate())
    return Path(pack(sample.members() | {layout.SIGNATURE: envelope}))


BOUNDS: dict[str, tuple[Callable[..., Path], str]] = {
    "PACKAGE_BYTES": (lambda t, m, s, r, p: _large_archive(t), "PACKAGE_TOO_LARGE"),
    "PACKAGE_UNPACKED_BYTES": (
        lambda t, m, s, r, p: _announcing(t, 100, limits.PACKAGE_UNPACKED_BYTES + 1),
        "PACKAGE_TOO_LARGE",
    ),
    "PACKAGE_ENTRIES": (
        lambda t, m, s, r, p: _archive(t, *((f"code/{i:05}", b"") for i in range(limits.PACKAGE_ENTRIES + 1))),
        "PACKAGE_TOO_LARGE",
    ),
    "PACKAGE_RATIO": (lambda t, m, s, r, p: _announcing(t, 100, 100 * limits.PACKAGE_RATIO + 1), "PACKAGE_TOO_LARGE"),
    "PACKAGE_PATH_BYTES": (
        lambda t, m, s, r, p: _archive(t, ("code/" + "x" * limits.PACKAGE_PATH_BYTES, b"")),
        "PATH_NOT_ALLOWED",
    ),
    "PACKAGE_SITE_FILES": (lambda t, m, s, r, p: _many_files_in_a_wheel(t, m, s, r), "PACKAGE_TOO_LARGE"),
    "PACKAGE_META_BYTES": (lambda t, m, s, r, p: _large_part(t, m, s, r), "PACKAGE_TOO_LARGE"),
    "ENVELOPE_BYTES": (lambda t, m, s, r, p: _large_envelope(t, m, s, p), "PACKAGE_TOO_LARGE"),
    "ENVELOPE_SIGNATURES": (lambda t, m, s, r, p: _many_signatures(t, m, s, p), "SIGNATURE_INVALID"),
}


def test_every_bound_of_a_package_is_tried():
    assert BOUNDS.keys() == {n for n in vars(limits) if n.startswith(("PACKAGE_", "ENVELOPE_"))}


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_package_beyond_a_bound_is_refused(tmp_path, monkeypatch, sample, resign, pack, bound):
    make, expected = BOUNDS[bound]
    path = make(tmp_path, monkeypatch, sample, resign, pack)
    assert cause(verify(path, [sample.vendor])) == expected


# --------------------------------------------------------------------------------------- names and kinds


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("code/a.py", "code/A.py"),
        ("code/x/readme", "code/X/README"),
        ("licences/MIT", "licences/mit"),
        ("code/\u00e9", "code/e\u0301"),
        ("code/\u212b", "code/\u00c5"),
        ("code/\uff41", "code/a"),
    ],
    ids=ascii,
)
def test_names_that_some_file_system_takes_for_one_are_not_allowed(tmp_path, one, two):
    with zipfile.ZipFile(tmp_path / "x.lms", "w") as target:
        for name in sorted((one, two)):
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o100644 << 16
            target.writestr(info, b"")
    assert cause(verify(tmp_path / "x.lms", [])) == "PATH_NOT_ALLOWED"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("link", "PATH_NOT_ALLOWED"),
        ("character device", "PACKAGE_MALFORMED"),
        ("block device", "PACKAGE_MALFORMED"),
        ("pipe", "PACKAGE_MALFORMED"),
        ("socket", "PACKAGE_MALFORMED"),
        ("folder", "PACKAGE_MALFORMED"),
        ("set-user-id", "PACKAGE_MALFORMED"),
        ("set-group-id", "PACKAGE_MALFORMED"),
        ("sticky", "PACKAGE_MALFORMED"),
    ],
)
def test_only_plain_files_are_in_a_package(tmp_path, kind, expected):
    modes = {
        "link": 0o120777, "character device": 0o020600, "block device": 0o060600, "pipe": 0o010600,
        "socket": 0o140600, "folder": 0o040755, "set-user-id": 0o104644, "set-group-id": 0o102644, "sticky": 0o101644,
    }  # fmt: skip
    info = zipfile.ZipInfo("code/x")
    info.create_system = 3
    info.external_attr = modes[kind] << 16
    with zipfile.ZipFile(tmp_path / "x.lms", "w") as target:
        target.writestr(info, b"/dev/zero")
    assert cause(verify(tmp_path / "x.lms", [])) == expected


def test_what_is_refused_is_not_unpacked(sample, pack, tmp_path):
    """Also a package that is exchanged for another one between verifying and unpacking leaves nothing."""
    verified = verify(sample.path, [sample.vendor])
    assert isinstance(verified, Verified)
    members = sample.members()
    for name in (layout.MANIFEST, "code/rollcall/app.py", next(n for n in members if n.startswith("wheels/idna"))):
        spoilt = pack(members | {name: members[name] + b"x"})
        into = tmp_path / "installed"
        result = install(dataclasses.replace(verified, archive=spoilt), into)
        assert cause(result) == "DIGEST_MISMATCH"
        assert not into.exists() or list(into.iterdir()) == []


async def test_what_the_catalogue_refuses_leaves_no_file(sample, pack, tmp_path):
    members = sample.members()
    spoilt = {
        "DIGEST_MISMATCH": members | {"code/rollcall/app.py": b"x"},
        "SIGNATURE_INVALID": members | {layout.DIGESTS: b"{}"},
        "PACKAGE_MALFORMED": members | {"stray": b""},
        "PATH_NOT_ALLOWED": members | {"code/rollcall/APP.py": b""},
    }
    folder, journal = tmp_path / "packages", Journal(tmp_path / "lmsf.db", "999-70", SystemClock())
    software = PackageSoftware(lambda: [sample.vendor])
    catalogue = Catalogue(folder, journal, software, partners=None, clock=SystemClock())
    try:
        for code, altered in spoilt.items():
            data = pack(altered).read_bytes()
            await catalogue.upload(sha256_hex(data), 0, len(data), data)
            with pytest.raises(Refused) as refused:
                await catalogue.onboard(sha256_hex(data))
            assert refused.value.refusal.code == code
            assert list(folder.iterdir()) == []
            assert catalogue.all() == []
    finally:
        await catalogue.stop()
        journal.close()


# ------------------------------------------------------------------------------------------- permissions


def test_a_permission_with_any_field_missing_or_of_a_wrong_type_cannot_be_read():
    key = Ed25519PrivateKey.generate()
    terms = Permission(
        signer="999-70", service="roll-call", package_digest="a" * 64, sbom_digest="b" * 64, vex_digest="c" * 64,
        source="999-70", target="999-72", home="999-70", purpose="rescue", ue_group="team", area=("tai:1",),
        not_before_ms=1, not_after_ms=2, nonce="0" * 32,
    )  # fmt: skip
    document = json.loads(terms.encode())
    assert set(document) == {field.encode_name for field in msgspec.structs.fields(Permission)}
    for at in places(document):
        here = get(document, at)
        spoilt = [put(document, at, wrong_type(here))]
        if isinstance(at[-1], str):
            spoilt.append(without(document, at))
        for altered in spoilt:
            envelope = signing.sign(canonical(altered), PERMISSION_TYPE, key)
            read = statements.read_permission(envelope, {"999-70": [key.public_key()]})
            assert (cause(read), show(at)) == ("PERMISSION_MALFORMED", show(at))


# ------------------------------------------------------------------------------------------------- fuzz

QUICK = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@QUICK
@given(data=st.data())
def test_no_splice_of_a_package_crashes_the_reader(sample, tmp_path_factory, data):
    """Ranges moved, doubled, cut out: unchanged, or refused with a cause. Never larger than twice the original."""
    good = sample.path.read_bytes()
    edge = st.one_of(st.integers(0, 3000), st.integers(len(good) - 3000, len(good)), st.integers(0, len(good)))
    spoilt = good
    for _ in range(data.draw(st.integers(1, 3))):
        (a, b), at = sorted((data.draw(edge), data.draw(edge))), data.draw(edge)
        piece = good[a:b]
        how = data.draw(st.sampled_from(["insert", "overwrite", "cut", "swap"]))
        if how == "insert":
            spoilt = spoilt[:at] + piece[: len(good)] + spoilt[at:]
        elif how == "overwrite":
            spoilt = spoilt[:at] + piece + spoilt[at + len(piece) :]
        elif how == "cut":
            spoilt = spoilt[:a] + spoilt[b:]
        else:
            spoilt = spoilt[b:] + spoilt[:b]
        spoilt = spoilt[: 2 * len(good)]
    path = tmp_path_factory.getbasetemp() / "spliced.lms"
    path.write_bytes(spoilt)
    result = verify(path, [sample.vendor])
    if isinstance(result, Refusal):
        assert result.code.isupper()
        assert result.sentence
        assert isinstance(inspect(path), (Refusal, Description))
    else:
        assert spoilt == good or result.package_digest == sample.built.package_digest


@pytest.mark.slow
@QUICK
@given(data=st.data())
def test_no_exchange_of_members_is_believed(sample, resign, pack, data):
    """Contents under each other's names, with or without the vendor's word for it."""
    members = sample.members()
    names = sorted(members)
    for _ in range(data.draw(st.integers(1, 3))):
        a, b = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
        members[a], members[b] = members[b], members[a]
    same = members == sample.members()
    signed = data.draw(st.booleans()) and members[layout.MANIFEST].startswith(b"{")
    try:
        path = resign(members, sample.key) if signed else pack(members)
    except ValueError:  # the test's own forgery cannot name such a package
        return
    result = verify(path, [sample.vendor])
    if same:
        assert isinstance(result, Verified)
    elif not signed:
        assert isinstance(result, Refusal)


@pytest.mark.slow
@QUICK
@given(data=st.data())
def test_no_signed_json_crashes_the_package(sample, resign, data):
    """A few places of manifest or SBOM replaced by anything; the vendor signs it."""
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats().filter(math.isfinite) | st.text(max_size=12),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
        max_leaves=10,
    )
    name = data.draw(st.sampled_from([layout.MANIFEST, layout.SBOM]))
    document = json.loads(sample.members()[name])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(sorted(places(document), key=show)))
        document = put(document, at, data.draw(anything)) if data.draw(st.booleans()) else without(document, at)
    try:
        path = resign(sample.members() | {name: canonical(document)}, sample.key)
    except (ValueError, TypeError, AttributeError):  # the test's own forgery cannot name such a package
        return
    assert isinstance(verify(path, [sample.vendor]), (Refusal, Verified))
