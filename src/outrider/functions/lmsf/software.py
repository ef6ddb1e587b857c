"""Packages as the LMSF needs them: verified for this machine against the trusted vendors, and installed."""

from collections.abc import Callable, Iterable
from pathlib import Path

from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf.ports import Verified
from outrider.package.install import install
from outrider.package.trust import Revoked
from outrider.package.vendors import TrustedVendor
from outrider.package.verify import Verified as Checked
from outrider.package.verify import verify


class PackageSoftware:
    """Real packages. `vendors` and `revoked` are asked each time, so that trust that is withdrawn is at once."""

    def __init__(
        self, vendors: Callable[[], Iterable[TrustedVendor]], revoked: Callable[[], Revoked] = Revoked
    ) -> None:
        self._vendors = vendors
        self._revoked = revoked

    def verify(self, archive: Path) -> Verified | Refusal:
        """Check structure, signature, digests and SBOM; the first reason if it is not accepted."""
        checked = self._verify(archive)
        if isinstance(checked, Refusal):
            return checked
        return Verified(
            manifest=checked.manifest,
            digest=checked.package_digest,
            sbom_digest=checked.sbom_digest,
            size_bytes=archive.stat().st_size,
            vendor_key_id=checked.vendor_key,
            certificates=checked.certificates,
            components=checked.components,
        )

    def install(self, archive: Path, folder: Path) -> Path | Refusal:
        """Verify again and unpack below `folder` so that a worker can run it; twice is once. The package's folder."""
        checked = self._verify(archive)
        return checked if isinstance(checked, Refusal) else install(checked, folder)

    def _verify(self, archive: Path) -> Checked | Refusal:
        try:
            return verify(archive, self._vendors(), revoked=self._revoked())
        except Refused as refused:  # a vendor's file or a revocation list that cannot be read
            return refused.refusal
