"""What this operator demands of software (`Supply`), from its rules, its advisories and the revocation lists it took.

Taking software in and handing it on are judged by everything. What runs already is judged by revocations alone: they
are somebody's word that this software must not run, where a new advisory is a reason to look (`outrider catalogue
show`), not to stop a service that people use.
"""

import datetime as dt
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from outrider.core.refusal import Refusal, Refused
from outrider.core.supply import Finding, SoftwareFacts, SupplyRules
from outrider.decide import supply
from outrider.package.advisories import Sources
from outrider.package.revocations import Revocations
from outrider.package.trust import Revoked
from outrider.package.vendors import TrustedVendor

log = structlog.get_logger(__name__)


class OperatorSupply:
    """Implements `ports.Supply`. `folder` holds the advisories (`package.advisories`)."""

    def __init__(
        self,
        rules: SupplyRules,
        folder: Path,
        revocations: Revocations,
        vendors: Callable[[], Sequence[TrustedVendor]],
    ) -> None:
        self.rules = rules
        self._sources = Sources(folder)
        self._revocations = revocations
        self._vendors = vendors
        self._lock = threading.Lock()
        self._found: dict[str, tuple[object, list[Finding]]] = {}
        self._complained = ""

    def findings(self, facts: SoftwareFacts) -> list[Finding]:
        """Known vulnerabilities in a package; raises `Refused` if a source cannot be read. Blocks: call in a thread."""
        with self._lock:
            stamp = self._sources.stamp, facts
            known = self._found.get(facts.package_digest)
            if known is None or known[0] != stamp:
                found = self._sources.find(facts.components, f"pkg:generic/{facts.service}@{facts.version}")
                known = self._found[facts.package_digest] = stamp, found
            return known[1]

    def judge(self, facts: SoftwareFacts, *, handed_to: str | None = None) -> list[Refusal]:
        """Every reason against taking a package in, or handing it to a network. Blocks: call in a thread."""
        try:
            taken_back = self._revocations.load().software(facts.package_digest, facts.signer, facts.vendor)
            found = self.findings(facts)
        except Refused as refused:
            return [*refused.refusals]
        return [*taken_back, *supply.judge(self.rules, facts, found, handed_to=handed_to)]

    def revoked(self, facts: SoftwareFacts) -> list[Refusal]:
        """Every revocation of a package that may be running; quick. By what is known where a list has been lost."""
        return self.known().software(facts.package_digest, facts.signer, facts.vendor)

    def known(self) -> Revoked:
        """What is revoked; without a list that was lost, which stops new software and not what runs."""
        try:
            return self._revocations.load()
        except Refused as refused:
            if self._complained != str(refused):
                self._complained = str(refused)
                log.warning("revocations.unreadable", why=str(refused))
            return self._revocations.readable()

    def add_revocations(self, envelope: bytes) -> dict[str, object]:
        """Take a revocation list; raises `Refused` unless its signer may speak for its issuer, and it is the newest."""
        found = self._revocations.add(envelope, self._vendors(), dt.datetime.now(dt.UTC))
        return {"issuer": found.issuer, "sequence": found.sequence, "entries": len(found.entries)}
