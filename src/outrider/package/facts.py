"""The facts of a package that supply chain decisions use, taken from its verified bytes, not from what it says of them.

The SBOM was compared with the same bytes before, so these are its components too.
"""

from collections.abc import Iterable

from outrider.core.manifest import Manifest
from outrider.core.supply import Component
from outrider.package.sbom import CODE, ROOT, PackedWheel, purl_of, root_purl


def components(manifest: Manifest, packed: Iterable[PackedWheel]) -> tuple[Component, ...]:
    """The service, its vendor's code, and every library."""
    licence = None if manifest.licence == "NOASSERTION" else manifest.licence
    own = (
        Component(ref=ref, name=name, version=manifest.version, purl=purl, licence=licence, supplier=manifest.vendor)
        for ref, name, purl in (
            (ROOT, manifest.service, root_purl(manifest)),
            (CODE, f"{manifest.service}-code", ""),
        )
    )
    libraries = (
        Component(
            ref=part.path,
            name=part.wheel.name,
            version=str(part.wheel.version),
            purl=purl_of(part.wheel),
            licence=part.wheel.licence,
            sha256=part.sha256,
            supplier=part.wheel.author,
            compiled=bool(part.wheel.architectures),
            source_offer=manifest.source_offers.get(part.wheel.name, ""),
            inactive=part.wheel.inactive,
        )
        for part in packed
    )
    return (*own, *libraries)
