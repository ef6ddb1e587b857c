"""The operator's folder of advisories, VEX and exploited vulnerabilities: read whole, or refused; never half."""

import contextlib
import json
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.core import limits
from outrider.core.refusal import Refused
from outrider.core.supply import Component
from outrider.package.advisories import Sources, read_osv, read_vex

OSV = {
    "schema_version": "1.6.0",
    "id": "GHSA-9wx4-h78v-vm56",
    "modified": "2024-05-20T20:00:00Z",
    "aliases": ["CVE-2024-35195"],
    "summary": "Session object does not verify requests after making first request with verify=False",
    "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:L/AC:H/PR:H/UI:R/S:U/C:H/I:H/A:N"}],
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "requests", "purl": "pkg:pypi/requests"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.32.0"}]}],
            "versions": ["2.30.0", "2.31.0"],
        }
    ],
    "database_specific": {"severity": "MODERATE"},
}
WORST = "VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"
PURL = "pkg:pypi/requests@2.31.0"
REQUESTS = Component(ref="wheels/requests.whl", name="requests", version="2.31.0", purl=PURL)


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "osv" / "GHSA-9wx4-h78v-vm56.json", OSV)
    return tmp_path


class Unreadable(Exception):
    """The one way in which a source may fail."""


def ids(folder: Path) -> list[str]:
    try:
        return [f.advisory for f in Sources(folder).find([REQUESTS], "pkg:generic/x@1")]
    except Refused as refused:
        raise (Unreadable() if refused.refusal.code == "ADVISORIES_UNREADABLE" else refused) from refused


def test_a_folder_that_was_never_made_knows_nothing(tmp_path):
    assert ids(tmp_path / "none") == []


def test_an_advisory_is_found_with_its_score(folder):
    (finding,) = Sources(folder).find([REQUESTS], "")
    assert (finding.advisory, finding.aliases) == (OSV["id"], ("CVE-2024-35195",))
    assert (finding.score, finding.severity) == (5.6, "medium")
    assert finding.fixed_in == ("2.32.0",)


def test_advisories_are_read_from_the_export_of_an_ecosystem(tmp_path):
    (tmp_path / "osv").mkdir()
    with zipfile.ZipFile(tmp_path / "osv" / "PyPI-all.zip", "w", zipfile.ZIP_DEFLATED) as export:
        for i in range(200):
            other = OSV | {"id": f"GHSA-{i}", "affected": [{"package": {"ecosystem": "PyPI", "name": f"other{i}"}}]}
            export.writestr(f"GHSA-{i}.json", json.dumps(other))
        export.writestr("GHSA-9wx4-h78v-vm56.json", json.dumps(OSV))
    assert ids(tmp_path) == [OSV["id"]]


def test_what_changes_in_the_folder_counts_at_once(folder):
    sources = Sources(folder)
    before = sources.stamp
    write(folder / "osv" / "B.json", OSV | {"id": "B"})
    assert sources.stamp != before
    assert [f.advisory for f in sources.find([REQUESTS], "")] == ["B", OSV["id"]]
    (folder / "osv" / "B.json").unlink()
    assert [f.advisory for f in sources.find([REQUESTS], "")] == [OSV["id"]]


def test_a_withdrawn_advisory_does_not_count(folder):
    write(folder / "osv" / "GHSA-9wx4-h78v-vm56.json", OSV | {"withdrawn": "2025-01-01T00:00:00Z"})
    assert ids(folder) == []


@pytest.mark.parametrize(
    ("changes", "severity"),
    [
        ({"severity": []}, "medium"),
        ({"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]}, "critical"),
        ({"severity": [{"type": "CVSS_V4", "score": f"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/{WORST}"}]}, "critical"),
        ({"severity": [{"type": "CVSS_V2", "score": "AV:N/AC:L/Au:N/C:P/I:P/A:P"}]}, "high"),
        ({"severity": [{"type": "CVSS_V3", "score": "nonsense"}]}, "medium"),
        ({"severity": [{"type": "CVSS_V3", "score": "nonsense"}], "database_specific": {}}, None),
        ({"severity": [], "database_specific": {}}, None),
        ({"severity": [], "database_specific": {"severity": 7}}, None),
    ],
    ids=str,
)  # fmt: skip
def test_a_severity_is_computed_or_stated_or_unknown(changes, severity):
    advisory = read_osv(json.dumps(OSV | changes).encode())
    assert advisory is not None
    assert advisory.severity == severity


def test_the_word_that_something_is_unmaintained(folder):
    affected = [OSV["affected"][0] | {"database_specific": {"informational": "unmaintained"}}]
    write(folder / "osv" / "U.json", OSV | {"id": "U", "affected": affected})
    assert {f.advisory: f.unmaintained for f in Sources(folder).find([REQUESTS], "")}["U"]


def test_known_exploited_vulnerabilities(folder):
    write(folder / "kev.json", {"title": "KEV", "vulnerabilities": [{"cveID": "CVE-2024-35195", "vendorProject": "x"}]})
    assert Sources(folder).find([REQUESTS], "")[0].known_exploited


OPENVEX = {
    "@context": "https://openvex.dev/ns/v0.2.0",
    "@id": "https://example.org/vex/1",
    "author": "Example",
    "timestamp": "2026-01-01T00:00:00Z",
    "version": 1,
    "statements": [
        {
            "vulnerability": {"name": "CVE-2024-35195"},
            "products": [{"@id": "pkg:generic/x@1", "subcomponents": [{"@id": PURL}]}],
            "status": "not_affected",
            "justification": "vulnerable_code_not_in_execute_path",
        }
    ],
}
CYCLONEDX = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "version": 1,
    "vulnerabilities": [
        {
            "id": "CVE-2024-35195",
            "analysis": {"state": "not_affected", "justification": "code_not_reachable"},
            "affects": [{"ref": f"urn:cdx:5b6d1e1c-8f2b-5c55-9f0e-0f6a5d1b7c11/1#{PURL}"}],
        }
    ],
}


@pytest.mark.parametrize(
    ("document", "justification"),
    [(OPENVEX, "vulnerable_code_not_in_execute_path"), (CYCLONEDX, "code_not_reachable")],
    ids=["OpenVEX", "CycloneDX"],
)
def test_a_vex_statement_is_read_in_both_formats(folder, document, justification):
    write(folder / "vex" / "own.json", document)
    (finding,) = Sources(folder).find([REQUESTS], "pkg:generic/x@1")
    assert (finding.vex, finding.justification, finding.vex_origin) == ("not_affected", justification, "own.json")


@pytest.mark.parametrize(
    ("state", "status"),
    [("exploitable", "affected"), ("in_triage", "under_investigation"), ("false_positive", "not_affected"),
     ("not_affected", "not_affected"), ("resolved", "fixed"), ("resolved_with_pedigree", "fixed")],
)  # fmt: skip
def test_every_state_of_cyclonedx_is_understood(state, status):
    one = CYCLONEDX["vulnerabilities"][0]
    document = CYCLONEDX | {"vulnerabilities": [one | {"analysis": {"state": state}}]}
    assert [s.status for s in read_vex(json.dumps(document).encode(), "x")] == [status]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("osv/x.json", b"{"),
        ("osv/x.json", b'{"affected": []'),
        ("osv/x.json", b"\xff"),
        ("osv/x.json", b"[" * 100_000),
        ("osv/x.zip", b"no zip"),
        ("osv/x.zip", b""),
        ("vex/x.json", b"{}"),
        ("vex/x.json", b'{"bomFormat":"CycloneDX","vulnerabilities":[{"id":"a","analysis":{"state":"fine"}}]}'),
        ("vex/x.json", b'{"@context":"openvex","statements":[{"vulnerability":"a","status":"fine","products":[{}]}]}'),
        ("kev.json", b"[]"),
        ("kev.json", b"{}"),
    ],
    ids=str,
)
def test_a_source_that_cannot_be_read_is_refused_by_name(folder, name, content):
    """It must not make software look harmless."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(Refused) as refused:
        Sources(folder).find([REQUESTS], "")
    assert refused.value.refusal.code == "ADVISORIES_UNREADABLE"
    assert refused.value.refusal.facts["file"] == str(path)


def test_an_advisory_that_is_about_it_and_malformed_is_refused(folder):
    write(folder / "osv" / "y.json", OSV | {"id": 7})
    with pytest.raises(Unreadable):
        ids(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_refused(folder):
    (folder / "osv").chmod(0)
    try:
        with pytest.raises(Unreadable):
            ids(folder)
    finally:
        (folder / "osv").chmod(0o700)


def test_the_size_of_a_source_is_bounded(folder, monkeypatch):
    monkeypatch.setattr(limits, "ADVISORY_BYTES", 100)
    with pytest.raises(Unreadable):
        ids(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(at=st.sampled_from(["id", "aliases", "severity", "affected", "database_specific", "withdrawn"]), value=JSON)
def test_no_advisory_crashes_the_reader(tmp_path_factory, at, value):
    folder = tmp_path_factory.getbasetemp() / "any"
    write(folder / "osv" / "x.json", OSV | {at: value})
    with contextlib.suppress(Unreadable):
        ids(folder)


@given(at=st.sampled_from(["@context", "statements", "bomFormat", "vulnerabilities"]), value=JSON)
def test_no_vex_document_crashes_the_reader(tmp_path_factory, at, value):
    folder = tmp_path_factory.getbasetemp() / "any-vex"
    for name, document in (("a", OPENVEX), ("b", CYCLONEDX)):
        write(folder / "vex" / f"{name}.json", document | {at: value})
    with contextlib.suppress(Unreadable):
        ids(folder)
