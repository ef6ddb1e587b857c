"""Requests and policies that several tests use."""

from typing import Any

import msgspec

from outrider.decide.policy.policy import Policy, parse
from outrider.decide.policy.request import Action, Part, Request, Sbom

A, B, C = "999-70", "999-71-000007ed9d5", "999-72"
NOON_MS = 1_796_040_000_000
"""Monday 2026-11-30, 12:00 UTC."""

PERMIT = '[[permit]]\nid = "all"\n'

SBOM = Sbom(
    (
        Part("group-coordination", "1.0.0", "Apache-2.0"),
        Part("starlette", "1.10.0", "BSD-3-Clause"),
        Part("either", "1.0", "GPL-3.0-only OR MIT", inactive=True),
    )
)

REQUEST = Request(
    action=Action.HOST,
    network=B,
    partner=A,
    source=A,
    target=B,
    home=A,
    role="target",
    service="group-coordination",
    version="1.0.0",
    vendor="Example Vendor",
    licence="Apache-2.0",
    export_class="EAR99",
    package_digest="00" * 32,
    nf_types=("AMF", "PCF", "SMF"),
    data_categories=("location", "session"),
    purpose="communication-service",
    ue_group="train-7",
    area=("port",),
    max_ues=1000,
    mode="async",
    arrival_evidence="target-asserted",
    start_ms=NOON_MS,
    end_ms=NOON_MS + 6 * 3_600_000,
    deadline_ms=NOON_MS + 3_600_000,
    sbom=SBOM,
    now_ms=NOON_MS,
)


def request(**changes: Any) -> Request:
    return msgspec.structs.replace(REQUEST, **changes)


def policy(rules: str = "", cedar: str = "") -> Policy:
    files = {name: text.encode() for name, text in (("rules.toml", rules), ("own.cedar", cedar)) if text}
    made = parse(files)
    assert isinstance(made, Policy), [str(p) for p in made]
    return made
