"""Packages as the LMSF needs them: verified for this machine against the trusted vendors, and installed."""

from collections.abc import Callable, Iterable
from pathlib import Path

from outrider.core.refusal import Refusal
from outrider.decide.policy.request import Component
from outrider.functions.lmsf.ports import Verified
from outrider.package.bill import bill
from outrider.package.install import install
from outrider.package.vendors import TrustedVendor
from outrider.package.verify import verify


class PackageSoftware:
    """Real packages. `vendors` is asked each time, so that trust that was withdrawn counts at once."""

    def __init__(self, vendors: Callable[[], Iterable[TrustedVendor]]) -> None:
        self._vendors = vendors

    def verify(self, archive: Path) -> Verified | Refusal:
        """Check structure, signature, digests and SBOM; the first reason if it is not accepted."""
        checked = verify(archive, self._vendors())
        if isinstance(checked, Refusal):
            return checked
        return Verified(
            manifest=checked.manifest,
            digest=checked.package_digest,
            sbom_digest=checked.sbom_digest,
            size_bytes=archive.stat().st_size,
            vendor_key_id=checked.vendor_key,
        )

    def bill(self, archive: Path, sbom_digest: str) -> tuple[Component, ...] | Refusal:
        """The components that the SBOM of a verified package names, if it is still the one with that digest."""
        return bill(archive, sbom_digest)

    def install(self, archive: Path, folder: Path) -> Path | Refusal:
        """Verify again and unpack below `folder` so that a worker can run it; twice is once. The package's folder."""
        checked = verify(archive, self._vendors())
        return checked if isinstance(checked, Refusal) else install(checked, folder)
