"""How a consumer reaches a service in one network: discovery at that network's NRF, a token from it, a request.

Nothing else is known to it: not where the service came from, nor that it moves.
"""

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlencode, urljoin

import msgspec

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refused
from outrider.demo.histories import Attempt, Outcome
from outrider.sbi import headers
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Response
from outrider.sbi.problem import refusal_from
from outrider.sbi.tokens import TokenSource

RESPONSE_LIMIT_MS = 5_000
"""How long a producer may take (`3gpp-Sbi-Max-Rsp-Time`)."""

RETRY_LIMIT_S = 12.0
"""A request is tried again for so long; less than half of the window in which the producer knows its key."""

BACKOFF_MIN_S = 0.05
BACKOFF_MAX_S = 1.0
"""Between tries, unless the producer says `Retry-After`."""

HEARTBEAT_S = 10.0
"""How often an NRF is told that the consumer is there, where it does not say so itself."""

NOBODY_S = 0.2
"""So soon an NRF is asked again that has named no producer: all UEs that wait for one ask once."""

REDIRECTS = 3
"""Redirects followed in one try."""

_USABLE = ("REGISTERED", "CANARY_RELEASE")


class NetworkAt(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A network as a UE in it sees it.

    With `home`, a service that is not here is looked for at that network, as a consumer does whose UE is served home
    routed: discovery and token go NRF to NRF, and requests by `link`, where that network's producer is reached from
    here. It is for comparing with a network that the service does not come to.
    """

    id: str
    nrf_root: str
    tac: str = "000001"
    home: str | None = None
    link: str | None = None

    @property
    def tai(self) -> dict[str, Any]:
        """The tracking area where UEs are, as `Tai` of TS 29.571."""
        plmn = NetworkId.parse(self.id).plmn_id()
        nid = {"nid": plmn.pop("nid")} if "nid" in plmn else {}
        return {"plmnId": plmn, "tac": self.tac, **nid}


class Nf(NamedTuple):
    """An NF service to be used: the type of the NF that hosts it, its name, and the data network it is used for."""

    nf_type: str
    name: str
    dnn: str


class Producer(NamedTuple):
    """Where an NF service is (nowhere: empty), until the discovery has to be repeated; `network` if it is another."""

    api_root: str
    expires_s: float
    network: NetworkId | None = None


class NoProducer(Exception):
    """The NRF names no usable instance; the request was not sent."""


def producers(result: Any, name: str) -> list[str]:
    """API roots of a `SearchResult`'s usable instances of a service, preferred ones first."""
    found: list[tuple[int, str]] = []
    for profile in result.get("nfInstances", []):
        if profile.get("nfStatus") not in _USABLE:
            continue
        listed = profile.get("nfServiceList")
        services = list(listed.values()) if listed else profile.get("nfServices", [])
        for service in services:
            # Some NRFs do not filter by service (Open5GS 2.8), so the consumer looks for itself.
            if service.get("serviceName") == name and service.get("nfServiceStatus") in _USABLE:
                priority = service.get("priority", profile.get("priority", 0))
                found.append((priority, _api_root(profile, service)))
    return [root for _, root in sorted(found)]


def _api_root(profile: Any, service: Any) -> str:
    endpoint = (service.get("ipEndPoints") or [{}])[0]
    addresses = [endpoint.get("ipv4Address"), service.get("fqdn"), *profile.get("ipv4Addresses", [])]
    host = next((a for a in (*addresses, profile.get("fqdn")) if a), "")
    port = f":{endpoint['port']}" if "port" in endpoint else ""
    return f"{service.get('scheme', 'http')}://{host}{port}{service.get('apiPrefix', '')}"


class Access:
    """A consumer's way into one network."""

    def __init__(self, client: SbiClient, network: NetworkAt, tokens: TokenSource, nf_instance_id: str) -> None:
        self.network = network
        self._client = client
        self._tokens = tokens
        self._nf_instance_id = nf_instance_id
        self._found: dict[Nf, Producer] = {}
        self._finding: dict[Nf, asyncio.Lock] = {}

    async def register(self) -> float:
        """Register the consumer with the NRF, which gives tokens to NFs that it knows; how often it wants to be heard.

        The NRF is told again and again: a registration that is not renewed ends.
        """
        network = NetworkId.parse(self.network.id)
        profile = {
            "nfInstanceId": self._nf_instance_id,
            "nfType": "AF",
            "nfStatus": "REGISTERED",
            "ipv4Addresses": ["127.0.0.1"],
            ("snpnList" if network.nid else "plmnList"): [network.plmn_id()],
        }
        response = await self._client.request("PUT", self._profile_url, json=profile)
        if response.status not in (200, 201):
            raise Refused(refusal_from(response, f"The NRF of {network} does not register an AF."))
        interval_s: float = response.json().get("heartBeatTimer", HEARTBEAT_S)
        return interval_s

    async def deregister(self) -> None:
        """Tell the NRF that the consumer is gone."""
        with contextlib.suppress(Unreachable):
            await self._client.request("DELETE", self._profile_url)

    @property
    def _profile_url(self) -> str:
        return f"{self.network.nrf_root}/nnrf-nfm/v1/nf-instances/{self._nf_instance_id}"

    async def discover(self, nf: Nf, network: NetworkId | None = None) -> Response:
        """Ask the NRF for instances of a service, here or in another network, without the cache."""
        query = {
            "target-nf-type": nf.nf_type,
            "requester-nf-type": "AF",
            "service-names": nf.name,
            "requester-nf-instance-id": self._nf_instance_id,
            "tai": msgspec.json.encode(self.network.tai).decode(),
            "dnn": nf.dnn,
        }
        if network is not None:
            target = msgspec.json.encode(network.plmn_id()).decode()
            query |= {"target-snpn": target} if network.nid else {"target-plmn-list": f"[{target}]"}
        bearer = await self._tokens.bearer(scope="nnrf-disc", target_nf_type="NRF")
        url = f"{self.network.nrf_root}/nnrf-disc/v1/nf-instances?{urlencode(query)}"
        return await self._client.request("GET", url, headers=[("authorization", bearer)])

    async def find(self, nf: Nf) -> str:
        """The API root of a service, as the NRF said within the last `validityPeriod`."""
        return (await self._producer(nf)).api_root

    async def _producer(self, nf: Nf) -> Producer:
        async with self._finding.setdefault(nf, asyncio.Lock()):  # UEs that ask together cause one request
            producer = self._found.get(nf)
            if producer is None or producer.expires_s <= time.monotonic():
                producer = self._found[nf] = await self._look(nf)
        if not producer.api_root:
            raise NoProducer(f"{self.network.id} has no {nf.name}")
        return producer

    async def _look(self, nf: Nf) -> Producer:
        """Here first, then at home if that is the way."""
        home = NetworkId.parse(self.network.home) if self.network.home else None
        for network in (None, home) if home else (None,):
            response = await self.discover(nf, network)
            roots = producers(response.json(), nf.name) if response.status == 200 else []
            if roots:
                root = roots[0] if network is None or self.network.link is None else self.network.link
                return Producer(root, time.monotonic() + response.json().get("validityPeriod", 0), network)
        return Producer("", time.monotonic() + NOBODY_S)

    def forget(self, nf: Nf) -> None:
        """Discover anew next time: the producer did not answer."""
        self._found.pop(nf, None)

    async def send(
        self, nf: Nf, method: str, path: str, *, json: object = msgspec.UNSET, idem: str | None = None
    ) -> Response:
        """One try. `NoProducer` and `Refused`: it was not sent. `Unreachable` tells whether it was."""
        producer = await self._producer(nf)
        url, network = producer.api_root + path, producer.network.plmn_id() if producer.network else None
        bearer = await self._tokens.bearer(scope=nf.name, target_nf_type=nf.nf_type, target_plmn=network)
        sent = [("authorization", bearer)]
        sent.append(headers.with_max_rsp_time(RESPONSE_LIMIT_MS))
        if idem is not None:
            sent.append(headers.with_idempotency_key(idem))
        for _ in range(REDIRECTS + 1):
            limit_s = RESPONSE_LIMIT_MS / 1000 + 1
            response = await self._client.request(method, url, headers=sent, json=json, timeout_s=limit_s)
            location = response.header("location")
            if response.status not in (307, 308) or location is None:
                return response
            url = urljoin(url, location)
        return response

    def denied(self) -> None:
        """A token was not accepted: fetch new ones."""
        self._tokens.forget()


@dataclass(slots=True)
class Sent:
    """What became of a request over all its tries."""

    outcome: Outcome
    attempts: list[Attempt]
    response: Response | None = None
    cause: str = ""

    @property
    def status(self) -> int | None:
        """The last status that was answered."""
        return self.response.status if self.response else None


@dataclass(slots=True)
class Try:
    """A request that is tried until its outcome is certain, or time is up.

    503 and a connection that could not be made had no effect; after 500, 502, 504 or a broken connection nothing is
    known, and the same idempotency key makes another try safe. 429 and other refusals are answers.
    """

    nf: Nf
    method: str
    path: str
    json: object = msgspec.UNSET
    idem: str | None = None
    retry_limit_s: float = RETRY_LIMIT_S
    attempts: list[Attempt] = field(default_factory=list)
    unknown: bool = False
    cause: str = ""

    async def once(self, access: Access) -> Response | None:
        """One try; None if nothing was answered."""
        sent = time.monotonic()
        response: Response | None = None
        not_sent = False
        try:
            response = await access.send(self.nf, self.method, self.path, json=self.json, idem=self.idem)
        except (NoProducer, Refused) as e:
            not_sent, self.cause = True, str(e)
        except Unreachable as e:
            not_sent, self.cause = e.not_sent, str(e)
            access.forget(self.nf)
        status = response.status if response else None
        self.attempts.append(Attempt(sent, time.monotonic(), access.network.id, status, not_sent))
        if response is None:
            self.unknown |= not not_sent
        elif response.status >= 400:
            self.cause = cause_of(response)
            self.unknown |= response.status in (500, 502, 504)
            if response.status == 401:
                access.denied()
            elif response.status in (404, 503):
                access.forget(self.nf)
        return response

    def judged(self, response: Response | None) -> Sent | None:
        """The end of the request, if this answer is one."""
        if response is None or response.status >= 500 or response.status in (307, 308, 401):
            return None
        if response.status < 300:
            return Sent("ok", self.attempts, response)
        # After a try whose fate is unknown, only the owner of the UE can refuse for certain, as it does with 429.
        certain = not self.unknown or response.status == 429
        return Sent("refused" if certain else "unknown", self.attempts, response, self.cause)

    def pause_s(self, response: Response | None) -> float:
        """How long to wait before the next try."""
        asked = response.header("retry-after") if response else None
        if asked is not None and asked.isdigit():
            return float(asked)
        limit_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** len(self.attempts))
        return random.uniform(0.5, 1.0) * limit_s

    def given_up(self, response: Response | None) -> Sent:
        """The end of a request that never got an answer to rely on."""
        return Sent("unknown" if self.unknown else "failed", self.attempts, response, self.cause)


def cause_of(response: Response) -> str:
    """The `cause` of a ProblemDetails answer; empty if there is none."""
    try:
        body = response.json()
    except msgspec.DecodeError:
        return ""
    return str(body.get("cause", "")) if isinstance(body, dict) else ""
