"""The way to a partner's keeper: through this network's border, with a token of the partner's NRF."""

from outrider.core.ids import NetworkId
from outrider.functions.n32.inbound import NOT_SENT
from outrider.sbi import headers
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Response
from outrider.sbi.tokens import TokenSource

SCOPE = "nlmsf-relocation"


class Link:
    """Posts frames to the keeper of the same service at a partner."""

    def __init__(self, service: str, network: str, border_root: str, control: SbiClient, tokens: TokenSource) -> None:
        self._service = service
        self._network = network
        self._root = border_root
        self._client = control
        self._bulk = SbiClient(bulk=True, timeout_s=30.0)
        self._tokens = tokens
        self.bytes_sent = 0
        self.bulk_bytes_sent = 0

    async def post(self, peer: str, body: bytes, *, bulk: bool) -> Response:
        """One POST to the peer's lane; raises `Unreachable` if there was no answer of the peer's keeper."""
        network = NetworkId.parse(peer)
        bearer = await self._tokens.bearer(scope=SCOPE, target_nf_type="LMSF", target_plmn=network.plmn_id())
        path = f"/nlmsf-relocation/v1/services/{self._service}/{'bulk' if bulk else 'lane'}"
        response = await (self._bulk if bulk else self._client).request(
            "POST",
            self._root + path,
            headers=[
                (headers.TARGET_API_ROOT, f"https://{network.domain}"),
                (headers.ORIGINATING_NETWORK_ID, self._network),
                ("authorization", bearer),
                ("content-type", "application/msgpack"),
            ],
            body=body,
        )
        if response.status in (502, 503, 504):
            not_sent = response.header(NOT_SENT) == "true"  # the borders know whether there was a connection at all
            raise Unreachable(f"{peer}: {response.status} {response.body[:200]!r}", not_sent=not_sent)
        if response.status == 401:
            self._tokens.forget()
        self.bytes_sent += len(body)
        if bulk:
            self.bulk_bytes_sent += len(body)
        return response

    async def close(self) -> None:
        """Close the connections."""
        await self._bulk.close()
