"""What a keeper is told at its start: one JSON file, written by the node."""

from pathlib import Path

import msgspec

from outrider.store.port import StoreMark

STORE_FILE = "contexts.db"
"""The context store, in the data directory."""


class KeeperConfig(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One service at one network.

    `nrf_keys` are the public keys (PEM) of this network's NRF by issuer. `digest_key` (hex) is given at a target, so
    that both ends hash alike; home's store draws its own. `home_id` is the network whose operator offers the service.
    `known_stores` are the stores that this service has had here and how far the node has seen each, the newest last.
    """

    service: str
    network_id: str
    home_id: str
    host: str = "127.0.0.1"
    port: int = 0
    data_dir: str
    package_dir: str
    border_root: str
    nrf_root: str
    nrf_keys: dict[str, str]
    internal_key: str
    """PEM of the key that signs this host's client credentials assertions for the NRF."""
    nf_instance_ids: dict[str, str]
    keeper_instance_id: str
    digest_key: str | None = None
    known_stores: tuple[StoreMark, ...] = ()
    log_file: str | None = None
    require_isolation: bool = True

    @property
    def is_home(self) -> bool:
        """Whether this network offers the service."""
        return self.network_id == self.home_id

    @property
    def data(self) -> Path:
        """Directory of the context store."""
        return Path(self.data_dir)


def load(path: Path) -> KeeperConfig:
    """Read and check the file; `msgspec.ValidationError` names the field that is wrong."""
    return msgspec.json.decode(path.read_bytes(), type=KeeperConfig)
