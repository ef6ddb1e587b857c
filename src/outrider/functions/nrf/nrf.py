"""The NRF as a whole: its router, what partners reach of it, and its sense of time."""

import asyncio
from collections.abc import Collection, Sequence

from outrider.core.ids import NetworkId
from outrider.functions.nrf.clock import Clock
from outrider.functions.nrf.discovery import Discovery, refused
from outrider.functions.nrf.management import Management
from outrider.functions.nrf.notify import Notifier
from outrider.functions.nrf.query import BadQuery, parse
from outrider.functions.nrf.remote import DISCOVERY_PATH, TOKEN_PATH, Remote
from outrider.functions.nrf.store import Change, Registry
from outrider.functions.nrf.subscriptions import Subscriptions
from outrider.functions.nrf.token import TokenEndpoint
from outrider.sbi.assertion import CcaVerifier
from outrider.sbi.client import SbiClient
from outrider.sbi.http import Handler, Request, Response
from outrider.sbi.problem import problem
from outrider.sbi.router import Router
from outrider.sbi.tokens import TOKEN_TTL_S, TokenIssuer

HEARTBEAT_S = 10
"""Heartbeat timer that instances are told."""

PARTNER_SCOPES = ("nlmsf-audit", "nlmsf-catalogue", "nlmsf-negotiation", "nlmsf-permission", "nlmsf-relocation")
"""Own APIs that partners use. `nlmsf-migration` is not among them: it is the operator's."""

TICK_S = 0.5
"""How often it is looked whether somebody is unheard for too long."""

PAUSE_S = 2.0
"""A tick that comes so late means that this process stood still: then the silence is ours, and nobody is suspended."""


class Nrf:
    """NF management, discovery and access tokens of one network.

    `api_root` is where consumers reach it. `privileged` scopes need an assertion signed with one of `cca_keys_pem`
    (see `TokenEndpoint`). `remote` sends requests to the NRFs of other networks.
    """

    def __init__(
        self,
        *,
        network: NetworkId,
        nf_instance_id: str,
        signing_key_pem: str | bytes,
        api_root: str,
        client: SbiClient,
        privileged: Collection[str] = ("outrider-host", "nlmsf-*"),
        partner_scopes: Collection[str] = PARTNER_SCOPES,
        cca_keys_pem: Sequence[str | bytes] = (),
        remote: Remote | None = None,
        heartbeat_s: int = HEARTBEAT_S,
        token_ttl_s: int = TOKEN_TTL_S,
        clock: Clock | None = None,
    ) -> None:
        self.network = network
        self.nf_instance_id = nf_instance_id
        self._clock = clock or Clock()
        self._notifier = Notifier(client)
        self._subscriptions = Subscriptions(network, api_root, self._notifier, self._clock)
        self._registry = Registry(heartbeat_s, self._clock.steady_s, self._changed)
        self._discovery = Discovery(self._registry, network, remote)
        self._tokens = TokenEndpoint(
            self._registry,
            TokenIssuer(signing_key_pem, nf_instance_id, network, now_s=self._clock.wall_s),
            network,
            privileged=privileged,
            partner_scopes=partner_scopes,
            cca=CcaVerifier(cca_keys_pem, now_s=self._clock.wall_s),
            remote=remote,
            ttl_s=token_ttl_s,
        )
        self.router = Router()
        Management(self._registry, network, api_root).routes(self.router)
        self._subscriptions.routes(self.router)
        self.router.add("GET", DISCOVERY_PATH, self._discovery)
        self.router.add("POST", TOKEN_PATH, self._tokens)
        self._ticking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look for missed heartbeats."""
        self._ticking = asyncio.create_task(self._tick_on(), name="nrf-tick")

    async def stop(self) -> None:
        """Stop looking and notifying."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        await self._notifier.close()

    def tick(self) -> None:
        """Do what is due by the clock."""
        self._registry.expire()
        self._subscriptions.expire()

    def partner_router(self, partner: NetworkId) -> Handler:
        """What a partner's NRF reaches of this one: discovery and tokens, for its own NFs."""
        router = Router()

        async def discover(request: Request) -> Response:
            return self._discover_for(partner, request)

        async def token(request: Request) -> Response:
            return await self._tokens.for_partner(partner, request)

        router.add("GET", DISCOVERY_PATH, discover)
        router.add("POST", TOKEN_PATH, token)
        return router

    def _discover_for(self, partner: NetworkId, request: Request) -> Response:
        try:
            query = parse(request.args())
        except BadQuery as bad:
            return refused(bad)
        if set(query.requester.networks) != {partner}:
            return problem(403, "REQUESTER_NETWORK_NOT_ALLOWED", f"{partner} discovers for its own NFs only.")
        if query.targets and self.network not in query.targets:
            return problem(403, "TARGET_NETWORK_NOT_SERVED", f"{self.network} answers for itself only.")
        return self._discovery.answer(request, query)

    def _changed(self, change: Change) -> None:
        self._subscriptions.tell(change)

    async def _tick_on(self) -> None:
        last_s = self._clock.steady_s()
        while True:
            await asyncio.sleep(TICK_S)
            now_s = self._clock.steady_s()
            if now_s - last_s > PAUSE_S:
                self._registry.postpone(now_s - last_s)
            last_s = now_s
            self.tick()
