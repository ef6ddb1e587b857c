"""The contract: the terms of one migration, the same bytes signed by every party.

It holds no secret: every party keeps it, and it is shown in logs and receipts.
"""

from typing import Annotated, Literal

import msgspec

from outrider.core.canonical import canonical, sha256_hex
from outrider.core.manifest import Line, Name, Resources
from outrider.core.permission import Digest, Time, check_networks, parties

CONTRACT_TYPE = "application/vnd.outrider.contract.v1+json"


class Window(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """From when until when the target may host the service."""

    start_ms: Time
    end_ms: Time

    def __post_init__(self) -> None:
        if self.start_ms >= self.end_ms:
            raise ValueError("the window ends before it begins")


class Contract(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """What the parties agree on. The engine refuses any step that it does not cover.

    `mode` and `arrival_evidence` are those of the ownership protocol. `move_all` moves UEs that have not arrived too.
    `deadline_ms` is when everything in scope is at the target, or the migration is aborted.
    """

    contract_id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z._-]{1,64}\Z")]
    service: Name
    version: Line
    package_digest: Digest
    sbom_digest: Digest
    source: str
    target: str
    home: str
    mode: Literal["async", "sync"] = "async"
    arrival_evidence: Literal["home-verified", "target-asserted"] = "home-verified"
    move_all: bool = False
    window: Window
    deadline_ms: Time
    ue_group: Line | None = None
    max_ues: Annotated[int, msgspec.Meta(ge=1)]
    area: tuple[Line, ...] | None = None
    purpose: Line
    resources: Resources = Resources()

    def __post_init__(self) -> None:
        check_networks(self.source, self.target, self.home)
        if self.source == self.target:
            raise ValueError("source and target are the same network")
        if self.home == self.target:
            raise ValueError("the target is home: that is a return")
        if not self.window.start_ms < self.deadline_ms <= self.window.end_ms:
            raise ValueError("the deadline is not inside the window")

    @property
    def parties(self) -> tuple[str, ...]:
        """The networks that must have signed it."""
        return parties(self.source, self.target, self.home)

    @property
    def onward(self) -> bool:
        """Whether the service goes from a network that hosts it to another one; home is a third, and leads."""
        return self.home != self.source

    def encode(self) -> bytes:
        """The bytes that are signed."""
        return canonical(self)

    @property
    def digest(self) -> str:
        """SHA-256 of the signed bytes."""
        return sha256_hex(self.encode())
