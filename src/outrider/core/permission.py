"""Permissions: one network's word that this software may run for this purpose, and its taking back.

A permission is over the digests of a package and its SBOM, so any change of either needs new permissions. It names who
moves what where; a migration needs one of each network concerned (`parties`), over the same digests. It is signed by
the operator's key in a DSSE envelope; its canonical bytes are what is signed, and their SHA-256 is its id.
"""

from typing import Annotated

import msgspec

from outrider.core.canonical import canonical, sha256_hex
from outrider.core.ids import NetworkId
from outrider.core.manifest import Line, Name

PERMISSION_TYPE = "application/vnd.outrider.permission.v1+json"
REVOCATION_TYPE = "application/vnd.outrider.revocation.v1+json"

Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Nonce = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Time = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
"""UTC, milliseconds since 1970, until the year 9999."""


def check_networks(*networks: str) -> None:
    """`ValueError` unless each is a network in its one canonical spelling."""
    for network in networks:
        if str(NetworkId.parse(network)) != network:
            raise ValueError(f"network {network!r} must be written {NetworkId.parse(network)}")


def parties(source: str, target: str, home: str) -> tuple[str, ...]:
    """The networks whose word a migration needs: source and target, and home where it is a third."""
    return tuple(dict.fromkeys((source, target, home)))


class DataPolicy(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """Which data may move: the data categories that the package's state schema names; None allows all of them."""

    categories: tuple[str, ...] | None = None


class Permission(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """One network's permission. None for UE group, area or VEX means: not limited, or there is none.

    `nonce` (16 random bytes, hexadecimal) makes two permissions over the same terms two things, so that taking back
    one leaves the other.
    """

    signer: str
    """The network that permits."""
    service: Name
    package_digest: Digest
    sbom_digest: Digest
    vex_digest: Digest | None = None
    source: str
    target: str
    home: str
    purpose: Line
    ue_group: Line | None = None
    area: tuple[Line, ...] | None = None
    not_before_ms: Time
    not_after_ms: Time
    data_policy: DataPolicy = DataPolicy()
    max_instances: Annotated[int, msgspec.Meta(ge=1)] = 1
    """How many hosts may run the package at the target at a time."""
    nonce: Nonce

    def __post_init__(self) -> None:
        check_networks(self.signer, self.source, self.target, self.home)
        if self.source == self.target:
            raise ValueError("source and target are the same network")
        if self.not_before_ms >= self.not_after_ms:
            raise ValueError("it ends before it begins")

    def encode(self) -> bytes:
        """The bytes that are signed."""
        return canonical(self)

    @property
    def id(self) -> str:
        """SHA-256 of the signed bytes."""
        return sha256_hex(self.encode())


class Revocation(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """A network takes back a permission that it gave. Only the network that signed the permission can."""

    signer: str
    permission_id: Digest
    revoked_at_ms: Time
    reason: Annotated[str, msgspec.Meta(max_length=400)] = ""

    def __post_init__(self) -> None:
        check_networks(self.signer)

    def encode(self) -> bytes:
        """The bytes that are signed."""
        return canonical(self)
