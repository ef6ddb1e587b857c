"""What the functions of a node need of it: partners and the way to them, keepers at the NRF."""

from collections.abc import Sequence

import msgspec
import structlog

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf import ports
from outrider.functions.n32 import Border, Peer
from outrider.functions.n32.outbound import Address
from outrider.functions.nrf.client import NrfClient
from outrider.network.inner import bodied
from outrider.network.partner import Partner, Partners
from outrider.sbi.client import Unreachable
from outrider.sbi.http import Request, Response
from outrider.sbi.tokens import TokenSource

_log = structlog.get_logger(__name__)


def peer(partner: Partner) -> Peer | None:
    """What the border needs to link a partner; None until both sides have done their part."""
    if partner.card is None or partner.listen is None or partner.address is None:
        return None
    address = Address(partner.address.host, partner.address.control_port, partner.address.bulk_port)
    return Peer(partner.network_id, partner.card.ca, address, partner.listen.control, partner.listen.bulk)


class NodePartners:
    """Implements the LMSF's `Partners`; the known ones are read again whenever a partner file changes."""

    def __init__(self, partners: Partners, border: Border, tokens: TokenSource) -> None:
        self._partners = partners
        self._border = border
        self._tokens = tokens
        self._known: dict[str, Partner] = {}
        self.refresh()

    def refresh(self) -> list[Peer]:
        """Read the partners' files; returns those that can be linked."""
        self._known = {p.network: p for p in self._partners.all() if p.card is not None}
        return [linked for p in self._known.values() if (linked := peer(p)) is not None]

    def get(self, network: str) -> ports.Partner | None:
        """The partner with this identity."""
        known = self._known.get(network)
        if known is None or known.card is None:
            return None
        return ports.Partner(known.network, known.card.name, (known.card.operator_key.encode(),))

    def list(self) -> Sequence[ports.Partner]:
        """Every partner."""
        return [p for network in self._known if (p := self.get(network)) is not None]

    async def request(
        self,
        network: str,
        method: str,
        path: str,
        *,
        scope: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        json: object = msgspec.UNSET,
        bulk: bool = False,
        timeout_s: float = 5.0,
    ) -> Response:
        """Send to the partner's LMSF with a token of its NRF; a token that is refused is fetched anew once."""
        sent, body = bodied(headers, body, json)
        target = NetworkId.parse(network)
        for attempt in range(2):
            bearer = await self._tokens.bearer(scope=scope, target_nf_type="LMSF", target_plmn=target.plmn_id())
            response = await self._border.request(
                target,
                method,
                path,
                headers=[*sent, ("authorization", bearer)],
                body=body,
                bulk=bulk,
                timeout_s=timeout_s,
            )
            if response.status != 401 or attempt:
                break
            self._tokens.forget()
        return response

    async def nrf(self, network: NetworkId, request: Request) -> Response:
        """Send to the partner's NRF (the own NRF's `Remote`)."""
        if str(network) not in self._known:
            raise Refused(
                Refusal(
                    "NETWORK_UNKNOWN",
                    f"{network} is no partner of this network.",
                    {"network": str(network)},
                    status=404,
                )
            )
        return await self._border.request(
            network,
            request.method,
            request.path + (f"?{request.query}" if request.query else ""),
            headers=list(request.headers.items()),
            body=request.body,
        )


class KeeperRegistry:
    """Keeps each keeper registered at the NRF, so that it gets tokens; undiscoverable, because nobody looks for it."""

    def __init__(self, nrf: NrfClient, network: NetworkId) -> None:
        self._nrf = nrf
        self._network = network

    async def up(self, instance_id: str, host: ports.Host) -> None:
        """A keeper is there; one that the NRF does not take serves on, but gets no tokens, so that is logged."""
        profile = {
            "nfInstanceId": instance_id,
            "nfInstanceName": f"keeper of {host.service}",
            "nfType": "LMSF",
            "nfStatus": "UNDISCOVERABLE",
            "plmnList": [{"mcc": self._network.mcc, "mnc": self._network.mnc}],
            **({"snpnList": [self._network.plmn_id()]} if self._network.nid else {}),
            "ipv4Addresses": [host.host],
        }
        try:
            await self._nrf.register(profile)
        except (Refused, Unreachable) as error:
            _log.error("keeper.not-registered", service=host.service, why=str(error))

    async def down(self, instance_id: str) -> None:
        """A keeper is gone for good."""
        try:
            await self._nrf.deregister(instance_id)
        except (Refused, Unreachable) as error:
            _log.warning("keeper.not-deregistered", instance=instance_id, why=str(error))
