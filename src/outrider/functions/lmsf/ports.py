"""What the LMSF needs from the network around it, and what it gives back: the seams of this function.

The composition root (`outrider.network`) implements these for a real node; tests implement them in memory. Each one
answers a "no" as a value or raises exactly what its docstring names. None keeps anything for the LMSF: what must
survive a crash is in the LMSF's own journal, so every call here may be repeated and must then have the same effect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from outrider.core.manifest import Manifest
from outrider.core.refusal import Refusal
from outrider.core.supply import Component, Finding, SoftwareFacts
from outrider.sbi.http import Response
from outrider.store.image import StoreFacts
from outrider.store.port import StoreMark

UNSET: Any = msgspec.UNSET
"""No JSON body."""


@dataclass(frozen=True, slots=True)
class Partner:
    """A network that this one has exchanged partner cards with."""

    network: str
    """Its identity as text (`NetworkId`): `999-71` or `999-71-000007ed9d5`."""
    name: str = ""
    operator_keys: tuple[bytes, ...] = ()
    """PEM public keys that sign its permissions, contracts and receipts; more than one while a key is replaced."""


class Partners(Protocol):
    """The partners of this network and the way to their functions, through both borders."""

    def get(self, network: str) -> Partner | None:
        """The partner with this identity, or None: no card was exchanged, or it was withdrawn."""

    def list(self) -> Sequence[Partner]:
        """Every partner."""

    async def request(
        self,
        network: str,
        method: str,
        path: str,
        *,
        scope: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        json: object = UNSET,
        bulk: bool = False,
        timeout_s: float = 5.0,
    ) -> Response:
        """Send to the partner's LMSF (`path` starts at `/nlmsf-…`), through the own border and the partner's.

        Adds the bearer token that the partner's NRF issues for `scope` (target NF type `LMSF`) and
        `3gpp-Sbi-Originating-Network-Id`. `bulk` takes the borders' bulk listeners. Header names come back lower-case.

        Raises:
            outrider.sbi.client.Unreachable: no answer; `not_sent` tells whether the request certainly had no effect.
        """


class Inner(Protocol):
    """Requests to functions of the own network: NRF and keepers."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        scope: str,
        target_nf_type: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        json: object = UNSET,
        timeout_s: float = 5.0,
    ) -> Response:
        """Send with a token of the own NRF for `scope`.

        Scopes: `nnrf-nfm`, `nnrf-disc` (target type NRF) and `outrider-host` (target type LMSF: keepers are its hands).

        Raises:
            outrider.sbi.client.Unreachable: no answer.
        """


@dataclass(frozen=True, slots=True)
class HostSpec:
    """One host to run: all that the LMSF decides about it. Paths, ports and keys are the node's."""

    service: str
    package_dir: Path
    """The installed package (archive, `site/`)."""
    home: str
    """The network whose operator offers the service; the own network at home."""
    nf_instance_ids: Mapping[str, str] = field(default_factory=dict)
    """NF instance id by NF service name, as registered at the own NRF."""
    keeper_instance_id: str = ""
    digest_key: str | None = None
    """Hex key of the content digests, told by home; None at home, whose store draws its own."""


@dataclass(frozen=True, slots=True)
class Host:
    """A running host."""

    service: str
    host: str
    port: int
    """Of the keeper's listener; stable while the host is kept, also when the node restarts the keeper."""
    pid: int = 0
    store_id: str = ""

    @property
    def api_root(self) -> str:
        """Root of the keeper's control API and of the service's own APIs."""
        return f"http://{self.host}:{self.port}"


class HostFailed(Exception):
    """A host could not be started; the text says why (last lines of its log) and which file has more."""


class StoreLost(HostFailed):
    """The host's store is gone, or is an older copy of it: nothing is served from it, and it is not tried again."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal


class Stores(Protocol):
    """What is remembered of the stores of this network's hosts, away from them (`stores.StoreMarks`)."""

    def known(self, service: str) -> tuple[StoreMark, ...]:
        """The stores that the service has had here, each as far as it was seen; the newest last."""

    async def note(self, service: str, mark: StoreMark) -> None:
        """Remember, durably, how far the store of a service is."""

    async def lost(self, service: str, refusal: Refusal) -> None:
        """A host that ran is not started again: its store is lost."""


class Hosts(Protocol):
    """The hosts of this network's node: started, supervised (restarted after a crash, old process reaped), removed."""

    async def start(self, spec: HostSpec, stores: Stores) -> Host:
        """Run the host unless it runs already with this spec, and wait until it is ready and its store is noted.

        Raises:
            StoreLost: its store is not the one that `stores` knows.
            HostFailed: the keeper or its worker did not come up within the node's own bound.
        """

    def get(self, service: str) -> Host | None:
        """The host, if it is to run: also while its keeper is being restarted."""

    async def stop(self, service: str) -> None:
        """End the host's processes and reap them; its files stay. Nothing to do if there is none."""

    async def remove(self, service: str) -> None:
        """End the host and delete its store, logs of content and configuration. Nothing to do if there is none."""

    async def close(self) -> None:
        """End every host, and hear its last word of its store; their files stay."""

    async def set_aside(self, service: str) -> Path | None:
        """Move what is left of a lost store out of the way, so that another one can begin; where it lies then."""

    async def save(self, service: str, into: Path) -> StoreFacts:
        """Copy the store of a host, which runs on, into a file.

        Raises:
            outrider.core.refusal.Refused: something in the store is not owned here, or it is damaged.
            outrider.store.port.StoreFault: the disk failed or is full.
        """

    async def restore(self, service: str, store: Path) -> None:
        """Move a store to where a host that is started next finds it; one that a crashed restoration left is replaced.

        Raises:
            outrider.core.refusal.Refused: the host runs.
        """


class Signer(Protocol):
    """The operator's key of this network: signs contracts and erasure receipts (`signer.KeySigner`)."""

    def sign(self, payload: bytes, payload_type: str) -> bytes:
        """A DSSE envelope (JSON) over the payload."""

    def countersign(self, envelope: bytes, payload_type: str) -> bytes | Refusal:
        """The envelope with this network's signature over the same bytes."""

    @property
    def public_pem(self) -> bytes:
        """The key's public half, as partners know it."""


class PolicyFiles(Protocol):
    """The files of this operator's policy; both calls are quick and block."""

    @property
    def path(self) -> str:
        """Where they are, for people."""

    def stamp(self) -> object:
        """Another value whenever a file changes, comes or goes; equal to itself while none does."""

    def read(self) -> dict[str, bytes]:
        """Every file by name.

        Raises:
            OSError: they cannot be read; the error names the file.
        """


@dataclass(frozen=True, slots=True)
class Verified:
    """A package archive that is what its digests say and what its vendor signed."""

    manifest: Manifest
    digest: str
    """The package digest: what permissions and contracts name."""
    sbom_digest: str
    size_bytes: int
    vendor_key_id: str = ""
    certificates: tuple[str, ...] = ()
    """SHA-256 of each certificate that vouches for the vendor's key."""
    components: tuple[Component, ...] = ()
    """What is in it, from its bytes."""


class Software(Protocol):
    """Packages: checked and unpacked. Both calls block; they run in a thread. (`software.PackageSoftware`.)"""

    def verify(self, archive: Path) -> Verified | Refusal:
        """Check structure, signature, digests and SBOM; the first reason if it is not accepted."""

    def install(self, archive: Path, folder: Path) -> Path | Refusal:
        """Verify again and unpack below `folder` so that a worker can run it; twice is once. The package's folder."""


class Supply(Protocol):
    """What this operator demands of software. (`supply.OperatorSupply`.)"""

    def judge(self, facts: SoftwareFacts, *, handed_to: str | None = None) -> list[Refusal]:
        """Every reason against taking a package in, or handing it to a network. Blocks: it runs in a thread."""

    def revoked(self, facts: SoftwareFacts) -> list[Refusal]:
        """Every revocation of a package that may be running; quick."""

    def findings(self, facts: SoftwareFacts) -> list[Finding]:
        """Known vulnerabilities in a package. Blocks. Raises `Refused` if what is known cannot be read."""


class Clock(Protocol):
    """Time, so that tests own it."""

    def now_ms(self) -> int:
        """UTC, milliseconds since 1970."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""
