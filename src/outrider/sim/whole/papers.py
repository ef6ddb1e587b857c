"""What operators of a world have in their hands: the package, and the permissions and revocations that they sign."""

import hashlib
from random import Random

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from outrider.core.permission import Permission, Revocation
from outrider.package import statements
from outrider.sim.whole.clock import UTC_MS
from outrider.sim.whole.loop import BEGIN_S
from outrider.sim.whole.scenario import HOME
from outrider.sim.whole.service import MANIFEST

ARCHIVE = msgspec.json.encode(MANIFEST, order="sorted")
"""The package: its manifest (see `node_ports.VirtualSoftware`)."""

DIGEST = hashlib.sha256(ARCHIVE).hexdigest()
SBOM_DIGEST = hashlib.sha256(b"SBOM of " + ARCHIVE).hexdigest()

_HOUR_MS = 3_600_000


def operator_key(seed: str, network: str) -> Ed25519PrivateKey:
    """The key of a network's operator."""
    return Ed25519PrivateKey.from_private_bytes(Random(f"{seed}/{network}/operator").randbytes(32))


def permission(seed: str, signer: str, source: str, target: str, until_s: float) -> Permission:
    """What a network permits: that the service of home goes that way, until so many seconds after the beginning."""
    return Permission(
        signer=signer,
        service=MANIFEST.service,
        package_digest=DIGEST,
        sbom_digest=SBOM_DIGEST,
        source=source,
        target=target,
        home=HOME,
        purpose="communication-service",
        not_before_ms=UTC_MS - _HOUR_MS,
        not_after_ms=UTC_MS + int((BEGIN_S + until_s) * 1000),
        nonce=Random(f"{seed}/{signer}/{source}/{target}").randbytes(16).hex(),
    )


def signed(made: Permission, key: Ed25519PrivateKey) -> bytes:
    """The permission in an envelope."""
    return statements.sign_permission(made, key)


def revocation(made: Permission, key: Ed25519PrivateKey, now_ms: int) -> bytes:
    """Its taking back, in an envelope."""
    back = Revocation(signer=made.signer, permission_id=made.id, revoked_at_ms=now_ms, reason="a world takes it back")
    return statements.sign_revocation(back, key)
