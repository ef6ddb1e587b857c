"""SPDX 2.3 in the place of CycloneDX: valid by the SPDX project's library, and compared with the bytes as strictly."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest

from outrider.core.canonical import canonical
from outrider.core.refusal import Refusal
from outrider.package import layout, spdx
from outrider.package.archive import Archive
from outrider.package.build import Built, build
from outrider.package.inspect import Description, inspect
from outrider.package.verify import Verified, verify
from support.hostile import content_of, get, other, places, put, show, without, wrong_type


def cause(result: object) -> str:
    return result.code if isinstance(result, Refusal) else "good"


@pytest.fixture(scope="module")
def spdx_sample(tmp_path_factory, sample, vendor_key):
    folder = tmp_path_factory.mktemp("spdx")
    service = sample.path.parents[1] / "service"
    built = build(service, folder, vendor_key, sbom_format="spdx")
    assert isinstance(built, Built), built
    return type(sample)(built, Path(built.file), vendor_key, sample.vendor)


def test_a_package_with_spdx_is_verified_and_shown(spdx_sample):
    verified = verify(spdx_sample.path, [spdx_sample.vendor])
    assert isinstance(verified, Verified), verified
    assert verified.sbom_digest == spdx_sample.built.sbom_digest == verified.digests[layout.SPDX]
    assert isinstance(inspect(spdx_sample.path), Description)


def test_the_same_service_has_the_same_components_in_both_formats(sample, spdx_sample):
    one, two = verify(sample.path, [sample.vendor]), verify(spdx_sample.path, [sample.vendor])
    assert isinstance(one, Verified)
    assert isinstance(two, Verified)
    assert one.components == two.components


def test_the_spdx_projects_own_validator_finds_nothing_wrong(spdx_sample):
    from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    document = JsonLikeDictParser().parse(json.loads(spdx_sample.members()[layout.SPDX]))
    assert [m.validation_message for m in validate_full_spdx_document(document)] == []
    assert {p.name for p in document.packages} >= {"roll-call", "roll-call-code", "starlette", "msgspec"}


def test_licences_that_are_names_and_suppliers_that_nobody_knows_are_valid_spdx_too(spdx_sample):
    from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    with Archive(spdx_sample.path) as opened:
        content = content_of(opened)
    names = itertools.cycle(["BSD License", "The Licence, version 2", None, "MIT OR Apache-2.0", "NOASSERTION"])
    wheels = [p._replace(wheel=dataclasses.replace(p.wheel, licence=next(names), author=None)) for p in content.wheels]
    content = content._replace(wheels=wheels)
    data = spdx.build(content, 1_800_000_000)
    assert spdx.check(data, content) is None
    document = JsonLikeDictParser().parse(json.loads(data))
    assert [m.validation_message for m in validate_full_spdx_document(document)] == []


def test_two_sboms_or_none_are_malformed(sample, spdx_sample, resign):
    both = sample.members() | {layout.SPDX: spdx_sample.members()[layout.SPDX]}
    assert cause(verify(resign(both, sample.key), [sample.vendor])) == "PACKAGE_MALFORMED"
    none = {n: d for n, d in sample.members().items() if n != layout.SBOM}
    assert cause(verify(resign(none, sample.key), [sample.vendor])) == "PACKAGE_MALFORMED"


FREE = {"created", "documentNamespace"}
"""About the document, not about the software."""

TEXTS = {"copyrightText", "licenseConcluded", "downloadLocation"}
"""What nobody can read out of the bytes: NOASSERTION here, a statement of the vendor where it has one."""


def test_every_place_of_an_spdx_document_must_fit_the_bytes(spdx_sample):
    with Archive(spdx_sample.path) as opened:
        content = content_of(opened)
    document = json.loads(spdx_sample.members()[layout.SPDX])
    assert spdx.check(canonical(document), content) is None
    tried = 0
    for at in places(document):
        if at[-1] in FREE | TEXTS | {"filesAnalyzed"} or (at[-1:] == (1,) and at[-2] == "creators"):
            continue
        here = get(document, at)
        spoilt = [put(document, at, wrong_type(here))]
        if not (isinstance(here, str) and at[-1] == "referenceCategory"):
            spoilt.append(put(document, at, other(here)))
        if here not in ([], "NOASSERTION"):  # left out, they say the same
            spoilt.append(without(document, at))
        for altered in spoilt:
            assert cause(spdx.check(canonical(altered), content)) in ("SBOM_MISMATCH", "SBOM_INVALID"), show(at)
            tried += 1
    assert tried > 200
    for name in TEXTS:
        altered = put(document, ("packages", 0, name), {"a": 1})
        assert cause(spdx.check(canonical(altered), content)) == "SBOM_INVALID"


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"spdxVersion":"SPDX-3.0"}'])
def test_an_spdx_sbom_that_is_none(spdx_sample, resign, raw):
    altered = spdx_sample.members() | {layout.SPDX: raw}
    assert cause(verify(resign(altered, spdx_sample.key), [spdx_sample.vendor])) == "SBOM_INVALID"
