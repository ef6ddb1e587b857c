"""What an operator's policy may look at in a package's SBOM: each component with its version and licence."""

from pathlib import Path
from typing import Any

import msgspec

from outrider.core import limits
from outrider.core.canonical import sha256_hex
from outrider.core.refusal import Refusal, Refused
from outrider.decide.policy.request import Component
from outrider.package import layout
from outrider.package.archive import Archive


class _Component(msgspec.Struct, frozen=True):
    type: str
    name: str
    version: str = ""
    licenses: list[dict[str, Any]] = []


class _Document(msgspec.Struct, frozen=True):
    components: list[_Component] = []


def bill(archive: Path, sbom_digest: str) -> tuple[Component, ...] | Refusal:
    """The components of a package that was verified when it came, if its SBOM is still the one with that digest."""
    try:
        with Archive(archive) as opened:
            data = opened.read(layout.SBOM, limits.PACKAGE_META_BYTES)
        if sha256_hex(data) != sbom_digest:
            return Refusal("SBOM_MISMATCH", "The SBOM in the catalogue is not the one that was verified.")
        document = msgspec.json.decode(data, type=_Document)
    except Refused as refused:
        return refused.refusal
    except (OSError, msgspec.DecodeError) as error:
        return Refusal("SBOM_INVALID", f"The SBOM in the catalogue cannot be read: {error}.", status=500)
    return tuple(
        Component(component.name, component.version, _licence(component.licenses))
        for component in document.components
        if component.type != "file"
    )


def _licence(licences: list[dict[str, Any]]) -> str:
    """As an SPDX expression; several stand side by side, so all of them hold."""
    said = []
    for licence in licences:
        one = licence.get("license")
        text = licence.get("expression") or (one.get("id") or one.get("name") if isinstance(one, dict) else None)
        if isinstance(text, str):
            said.append(text)
    return said[0] if len(said) == 1 else " AND ".join(f"({text})" for text in said)
