"""How long a decision about a package of a thousand components takes; run with `-s` to see the figures."""

import hashlib
import json
import time
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from packaging.tags import parse_tag
from packaging.version import Version

from outrider.core.manifest import Manifest
from outrider.core.supply import SoftwareFacts, SupplyRules
from outrider.functions.lmsf.supply import OperatorSupply
from outrider.package import facts, sbom, spdx
from outrider.package.revocations import Revocations
from outrider.package.wheels import Wheel

COMPONENTS, ADVISORIES = 1_000, 20_000
LICENCES = ["MIT", "Apache-2.0 OR MIT", "BSD License", None]


@pytest.mark.slow
def test_a_decision_about_a_thousand_components(tmp_path: Path) -> None:
    """20,000 advisories, of which one is about every tenth component; the figures are printed and nothing is asserted
    of them but what was decided."""
    manifest = Manifest(service="large", version="1", vendor="V", nf_services=[], licence="Apache-2.0")
    wheels = []
    for i in range(COMPONENTS):
        name = f"lib{i}-1.{i}-py3-none-any.whl"
        tags = frozenset(parse_tag("py3-none-any"))
        wheel = Wheel(name, f"lib{i}", Version(f"1.{i}"), tags, (), LICENCES[i % 4], (), "A. Author", False, {}, 0)  # type: ignore[arg-type]
        wheels.append(sbom.PackedWheel(f"wheels/{name}", hashlib.sha256(name.encode()).hexdigest(), wheel, ()))
    content = sbom.Content(manifest, {"code/app.py": "a" * 64}, wheels, tuple(w.path for w in wheels))
    (tmp_path / "osv").mkdir()
    with zipfile.ZipFile(tmp_path / "osv" / "all.zip", "w", zipfile.ZIP_DEFLATED) as export:
        for i in range(ADVISORIES):
            about = f"lib{i * 10}" if i * 10 < COMPONENTS else f"other{i}"
            advisory = {
                "id": f"GHSA-{i}",
                "details": "x" * 1000,
                "affected": [
                    {
                        "package": {"ecosystem": "PyPI", "name": about},
                        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
                    }
                ],
                "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],
            }
            export.writestr(f"GHSA-{i}.json", json.dumps(advisory))
    known = SoftwareFacts(
        service="large", version="1", package_digest="a" * 64, sbom_digest="b" * 64, vendor="V",
        components=facts.components(manifest, wheels),
    )  # fmt: skip
    lists = Revocations(tmp_path / "revoked", "999-70", Ed25519PrivateKey.generate().public_key())
    supply = OperatorSupply(SupplyRules(barred_licences=("GPL-3.0-only",)), tmp_path, lists, list)
    figures = {}

    def timed(what: str, do) -> object:
        began = time.perf_counter()
        result = do()
        figures[f"{what}Ms"] = round((time.perf_counter() - began) * 1000)
        return result

    for name, form in (("cycloneDx", sbom), ("spdx", spdx)):
        document = form.build(content, None)
        assert timed(f"{name}Check", lambda form=form, document=document: form.check(document, content)) is None
    for what in ("firstDecision", "nextDecision"):
        reasons = timed(what, lambda: supply.judge(known, handed_to="999-71"))
        assert isinstance(reasons, list)
        assert [r.code for r in reasons] == ["COMPONENT_VULNERABLE"] * (COMPONENTS // 10)
    (tmp_path / "osv" / "new.json").write_text(json.dumps(advisory | {"id": "NEW"}))
    timed("decisionAfterANewAdvisory", lambda: supply.judge(known, handed_to="999-71"))
    print(json.dumps({"components": COMPONENTS, "advisories": ADVISORIES, **figures}))
