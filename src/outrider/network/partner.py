"""Partners of a network: inviting (ports and a card for them), adding (their card), and what is known of each.

A link needs both: our invitation, which reserves two listener ports for that partner alone, and the partner's card.
So one file goes each way and neither network is open to anybody it did not ask for.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal, Refused
from outrider.network import card as cards
from outrider.network import config as configs
from outrider.network.card import BorderAddress, Card, fingerprint
from outrider.network.config import NetworkConfig, is_host
from outrider.network.files import PRIVATE, write_atomic
from outrider.network.keys import Keys, load_private, public_pem
from outrider.package.signing import load_public

LAST_PORT = 65535


def operator_keys(directory: Path) -> dict[str, list[Ed25519PublicKey]]:
    """The operator keys that a network's folder trusts, by network: its own and those of its partners' cards."""
    config, keys = configs.load(directory / configs.FILE_NAME), Keys(directory / "keys")
    pems = {str(config.network_id): public_pem(load_private(keys.operator_key))}
    for partner in Partners(directory / "partners", config, keys).all():
        if partner.card is not None:
            pems[partner.network] = partner.card.operator_key.encode()
    return {network: [load_public(pem, f"the operator key of {network}")] for network, pem in pems.items()}


class Listen(msgspec.Struct, frozen=True, rename="camel"):
    """The two local ports that wait for one partner."""

    control: int
    bulk: int


class Partner(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What is stored of one partner: `listen` since we invited it, `card` and `address` since its card was added."""

    network: str
    listen: Listen | None = None
    card: Card | None = None
    address: BorderAddress | None = None
    """Where we reach it: from its card, unless the operator knows a better way (a relay, an address translation)."""

    @property
    def network_id(self) -> NetworkId:
        """The partner's network."""
        return NetworkId.parse(self.network)

    @property
    def state(self) -> str:
        """In a word: `invited`, `added` or `ready`."""
        if self.card is None:
            return "invited"
        return "ready" if self.listen is not None else "added"

    @property
    def waiting_for(self) -> str:
        """What is missing until the link can come up; empty if nothing is."""
        if self.card is None:
            return f"waiting for the card of {self.network}: `outrider partner add FILE`"
        return "" if self.listen is not None else f"waiting for our card: `outrider partner invite {self.network}`"


class Partners:
    """The folder `partners` of a network: one file for each."""

    def __init__(self, directory: Path, config: NetworkConfig, keys: Keys) -> None:
        self._dir = directory
        self._config = config
        self._keys = keys

    def _file(self, network: NetworkId) -> Path:
        return self._dir / f"{network}.json"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Two commands at a time must not give one port away twice."""
        with open(self._dir / ".lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def all(self) -> list[Partner]:
        """Every partner, in the order of their networks."""
        return [self._read(file) for file in sorted(self._dir.glob("*.json"))]

    def get(self, network: NetworkId) -> Partner | None:
        """One partner."""
        file = self._file(network)
        return self._read(file) if file.exists() else None

    def stamp(self) -> tuple[tuple[str, int], ...]:
        """A value that changes whenever a partner is added, changed or removed."""
        return tuple(sorted((f.name, f.stat().st_mtime_ns) for f in self._dir.glob("*.json")))

    @staticmethod
    def _read(file: Path) -> Partner:
        try:
            return msgspec.json.decode(file.read_bytes(), type=Partner)
        except msgspec.DecodeError as error:
            raise Refused(
                Refusal("PARTNER_FILE", f"{file} cannot be read: {error}.", {"file": str(file)}, "Add it again.")
            ) from None

    def _write(self, partner: Partner) -> None:
        write_atomic(self._file(partner.network_id), msgspec.json.encode(partner) + b"\n", PRIVATE)

    def invite(self, network: NetworkId, control: int | None = None, bulk: int | None = None) -> Card | Refusal:
        """Reserve two ports for this partner (the same again if it was invited before) and make its card."""
        own = self._config.network_id
        if network == own:
            return Refusal("PARTNER_SELF", f"{own} is this network itself.", remedy="Name the partner's network.")
        with self._locked():
            partner = self.get(network) or Partner(network=str(network))
            listen = self._ports(partner, control, bulk)
            if isinstance(listen, Refusal):
                return listen
            if listen != partner.listen:
                self._write(msgspec.structs.replace(partner, listen=listen))
        return self._card(network, listen)

    def _ports(self, partner: Partner, control: int | None, bulk: int | None) -> Listen | Refusal:
        taken = {
            p
            for o in self.all()
            if o.listen and o.network != partner.network
            for p in msgspec.structs.astuple(o.listen)
        }
        taken.add(self._config.sbi.port)
        if control is None and bulk is None and partner.listen is not None:
            return partner.listen
        free = (p for p in range(self._config.border.port, LAST_PORT) if p not in taken)
        wanted = [p for p in (control, bulk) if p is not None]
        clash = [p for p in wanted if p in taken or not 1 <= p <= LAST_PORT]
        if clash or (control is not None and control == bulk):
            return Refusal(
                "PORT_TAKEN",
                f"Port {clash[0] if clash else control} cannot be this listener's: it is not free, or no port.",
                remedy="Name other ports, or none: the next two free ones from border.port on are taken.",
                status=409,
            )
        picked = (p for p in free if p not in wanted)
        return Listen(next(picked) if control is None else control, next(picked) if bulk is None else bulk)

    def _card(self, network: NetworkId, listen: Listen) -> Card:
        operator, nrf = load_private(self._keys.operator_key), load_private(self._keys.nrf_key)
        instances = self._keys.instances()
        card = Card(
            network=str(self._config.network_id),
            kind=self._config.network.kind,
            name=self._config.network.name,
            issued_for=str(network),
            ca=self._keys.ca_cert.read_text(),
            operator_key=public_pem(operator).decode(),
            nrf_key=public_pem(nrf).decode(),
            nrf_id=instances.nrf,
            lmsf_id=instances.lmsf,
            border=BorderAddress(self._config.border.host, listen.control, listen.bulk),
        )
        return cards.sign(card, operator)  # type: ignore[arg-type]

    def read_card(self, data: bytes) -> Card | Refusal:
        """Read a partner's card for this network; nothing is stored."""
        return cards.read(data, self._config.network_id)

    def add(
        self,
        card: Card,
        *,
        address: str | None = None,
        control_port: int | None = None,
        bulk_port: int | None = None,
    ) -> Partner | Refusal:
        """Store a card whose fingerprint was compared; `address` and ports override where the partner is reached."""
        reach = BorderAddress(
            address or card.border.host, control_port or card.border.control_port, bulk_port or card.border.bulk_port
        )
        if not is_host(reach.host):
            return Refusal("PARTNER_ADDRESS", f"{reach.host!r} is neither an IP address nor a DNS name.", status=400)
        with self._locked():
            known = self.get(card.network_id)
            if known is not None and known.card is not None and known.card != card:
                return Refusal(
                    "PARTNER_KNOWN",
                    f"{card.network} is a partner already, with another card.",
                    {"known": fingerprint(known.card), "new": fingerprint(card)},
                    f"If it has new keys: `outrider partner remove {card.network}`, then exchange cards again.",
                    status=409,
                )
            clash = self._shared_key(card)
            if clash is not None:
                return clash
            partner = msgspec.structs.replace(known or Partner(network=card.network), card=card, address=reach)
            self._write(partner)
        return partner

    def _shared_key(self, card: Card) -> Refusal | None:
        """Keys tell networks apart, so no two networks may have one in common."""
        own = [self._keys.ca_cert.read_text()]
        own += [public_pem(load_private(k)).decode() for k in (self._keys.operator_key, self._keys.nrf_key)]
        others = {str(self._config.network_id): own}
        for other in self.all():
            if other.card is not None and other.network != card.network:
                others[other.network] = [other.card.ca, other.card.operator_key, other.card.nrf_key]
        for network, pems in others.items():
            if {p.strip() for p in pems} & {card.ca.strip(), card.operator_key.strip(), card.nrf_key.strip()}:
                return Refusal(
                    "PARTNER_KEY_SHARED",
                    f"The card of {card.network} has a key of {network}; keys tell networks apart.",
                    remedy=f"Ask {card.network} to make keys of its own.",
                )
        return None

    def remove(self, network: NetworkId) -> Refusal | None:
        """Forget a partner: its listeners close and its tokens are worth nothing."""
        with self._locked():
            if self.get(network) is None:
                return Refusal("PARTNER_UNKNOWN", f"{network} is no partner of this network.", status=404)
            self._file(network).unlink()
        return None
