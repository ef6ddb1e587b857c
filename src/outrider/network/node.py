"""A node: one process that runs the functions of one network, built here from its config and keys.

One internal listener serves them all by path; requests with a `3gpp-Sbi-Target-apiRoot` of a partner leave through
the border. Keepers are child processes.
"""

import asyncio
import datetime as dt
import functools
import os
from collections.abc import Collection
from contextlib import AsyncExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from outrider.core import limits
from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal, Refused
from outrider.functions.basic import Amf, Smf
from outrider.functions.basic.profiles import amf_profile, nf_profile, smf_profile
from outrider.functions.lmsf.engine import Lmsf, LmsfConfig
from outrider.functions.lmsf.faces import Faces
from outrider.functions.lmsf.signer import KeySigner
from outrider.functions.lmsf.software import PackageSoftware
from outrider.functions.n32 import Border, BorderTls
from outrider.functions.nrf.client import NrfClient
from outrider.functions.nrf.nrf import Nrf
from outrider.network import config as configs
from outrider.network import state
from outrider.network.adapters import KeeperRegistry, NodePartners
from outrider.network.hosts import HostSettings, NodeHosts
from outrider.network.inner import Inner
from outrider.network.keys import Keys, load_private, private_pem, public_pem, renew_border
from outrider.network.partner import Partners
from outrider.network.policy import PolicyFolder
from outrider.network.supply import operator_supply, trusted_vendors
from outrider.sbi import headers as names
from outrider.sbi.assertion import CcaSigner
from outrider.sbi.client import SbiClient
from outrider.sbi.http import Handler, Request, Response
from outrider.sbi.problem import json_response, problem
from outrider.sbi.router import guarded
from outrider.sbi.server import SbiServer
from outrider.sbi.tokens import TokenSource, TokenVerifier

FUNCTIONS = ("nrf", "lmsf", "n32", "basic")
PARTNER_POLL_S = 1.0
"""How often the partners' files are looked at: a partner that was added is linked without a restart."""

STATUS_PATH = "/outrider-node/v1/status"
OPENAPI_PATH = "/outrider-node/v1/openapi.yaml"
_PRIVILEGED = ("outrider-host", "nlmsf-*")
_log = structlog.get_logger(__name__)


class Node:
    """All of one network in this process, started and stopped together."""

    def __init__(self, directory: Path, *, config_file: Path | None = None, only: Collection[str] = FUNCTIONS) -> None:
        unknown = set(only) - set(FUNCTIONS)
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))} is no function: {', '.join(FUNCTIONS)}")
        self.directory = directory.resolve()
        self.config = configs.load(config_file or directory / configs.FILE_NAME)
        self.network = self.config.network_id
        self.keys = Keys(self.directory / "keys")
        self.functions = tuple(f for f in FUNCTIONS if f in only)
        if not self.config.basic.enabled:
            self.functions = tuple(f for f in self.functions if f != "basic")
        if "nrf" not in self.functions and set(self.functions) & {"lmsf", "basic"} and not self.config.sbi.nrf_root:
            raise Refused(
                Refusal(
                    "NRF_MISSING",
                    f"{' and '.join(self.functions)} need an NRF, and this node is not to run one.",
                    remedy=f"Write {configs.HINTS['sbi.nrf_root']} into {self.directory / configs.FILE_NAME}.",
                    status=400,
                )
            )
        self.root = ""
        """apiRoot of the internal listener, once started."""
        self._routes: dict[str, Handler] = {}
        self._partner_routes: dict[str, Any] = {}
        self._files = Partners(self.directory / "partners", self.config, self.keys)
        self._seen: tuple[tuple[str, int], ...] = ()
        self._stack = AsyncExitStack()
        self._border: Border | None = None
        self._partners: NodePartners | None = None
        self._hosts: NodeHosts | None = None
        self._amf: Amf | None = None
        self._smf: Smf | None = None
        self._lmsf: Lmsf | None = None
        self._started_at = ""
        self._unlinked: dict[NetworkId, OSError] = {}

    # ------------------------------------------------------------------------------------------------ life

    async def start(self) -> None:
        """Bring everything up; raises `Refused` or `OSError` and leaves nothing running if that does not work."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def stop(self) -> None:
        """Take everything down, the border first; keepers end cleanly."""
        state.withdraw(self.directory)
        await self._stack.aclose()

    async def _start(self) -> None:
        held = state.lock(self.directory)
        self._stack.callback(held.close)
        instances = self.keys.instances()
        renewed = renew_border(self.keys, self.network, self.config.border.host)
        if renewed:
            _log.info("border.certificate-renewed", network=str(self.network))
        host = self.config.sbi.host
        server = SbiServer(
            self._handle,
            host=host,
            port=self.config.sbi.port,
            bulk=True,
            body_limit_bytes=limits.FRAME_BYTES,
        )
        try:
            await server.start()
        except OSError as error:
            raise Refused(
                Refusal(
                    "PORT_TAKEN",
                    f"The internal listener cannot have {host}:{self.config.sbi.port}: {error.strerror}.",
                    {"host": host, "port": str(self.config.sbi.port)},
                    f"Write another {configs.HINTS['sbi.port']} into the network's config.",
                    status=409,
                )
            ) from None
        self._stack.push_async_callback(server.stop)
        self.root = f"http://{f'[{host}]' if ':' in host else host}:{server.port}"
        nrf_root = self.root if "nrf" in self.functions else self.config.sbi.nrf_root
        client = await self._stack.enter_async_context(SbiClient())
        internal = private_pem(load_private(self.keys.internal_key))
        nrf_keys = {instances.nrf: public_pem(load_private(self.keys.nrf_key)).decode()}
        verifier = TokenVerifier(nrf_keys, network=self.network)
        tokens = TokenSource(client, nrf_root, instances.lmsf, "LMSF", CcaSigner(internal, instances.lmsf))
        nrf_client = NrfClient(client, nrf_root)
        self._stack.push_async_callback(nrf_client.close)
        if "n32" in self.functions:
            self._open_border(tokens)
        if "nrf" in self.functions:
            await self._start_nrf(client, instances.nrf)
        if "basic" in self.functions:
            await self._start_basic(client, nrf_client, verifier, host, server.port)
        if "lmsf" in self.functions:
            settings = HostSettings(
                network_id=str(self.network),
                border_root=self.root,
                nrf_root=nrf_root,
                nrf_keys=nrf_keys,
                internal_key=internal.decode(),
                host=host,
            )
            await self._start_lmsf(settings, client, nrf_client, tokens, verifier, server.port)
        if self._partners is not None and self._border is not None:
            await self._link()
            polling = asyncio.create_task(self._follow_partners(), name="partners")
            self._stack.callback(polling.cancel)
        self._started_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        state.announce(self.directory, state.Running(str(self.network), os.getpid(), self.root, self._started_at))
        _log.info("node.ready", network=str(self.network), root=self.root, functions=self.functions)

    async def reload(self) -> None:
        """Read the policy's files now (SIGHUP); what is wrong with them is logged, and the policy before counts on."""
        if self._lmsf is None:
            return
        try:
            await self._lmsf.apply_policy()
        except Refused as refused:
            _log.warning("policy.not-applied", why=[str(r) for r in refused.refusals])

    # ------------------------------------------------------------------------------------------------ functions

    def _open_border(self, tokens: TokenSource) -> None:
        border = Border(
            self.network,
            BorderTls(self.keys.border_cert, self.keys.border_key),
            keepers=lambda service: None if self._hosts is None else self._hosts.root(service),
            local=self._local,
            ca_dir=self.directory / "run" / "ca",
            listen=self.config.border.listen,
            requests_per_s=self.config.limits.requests_per_s,
            in_flight=self.config.limits.in_flight,
        )
        self._border = border
        self._stack.push_async_callback(border.stop)
        self._partners = NodePartners(self._files, border, tokens)

    async def _start_nrf(self, client: SbiClient, instance_id: str) -> None:
        nrf = Nrf(
            network=self.network,
            nf_instance_id=instance_id,
            signing_key_pem=private_pem(load_private(self.keys.nrf_key)),
            api_root=self.root,
            client=client,
            privileged=_PRIVILEGED,
            cca_keys_pem=[public_pem(load_private(self.keys.internal_key))],
            remote=None if self._partners is None else self._partners.nrf,
        )
        await nrf.start()
        self._stack.push_async_callback(nrf.stop)
        for api in ("nnrf-nfm", "nnrf-disc", "oauth2"):
            self._routes[api] = nrf.router
        for api in ("nnrf-disc", "oauth2"):
            self._partner_routes[api] = nrf.partner_router

    async def _start_basic(
        self, client: SbiClient, nrf: NrfClient, verifier: TokenVerifier, host: str, port: int
    ) -> None:
        instances = self.keys.instances()
        self._amf = Amf(self.network, instances.amf, verifier=verifier, client=client, root=self.root)
        self._smf = Smf(self.network, instances.smf, verifier=verifier, client=client, root=self.root)
        for function in (self._amf, self._smf):
            self._stack.push_async_callback(function.close)
        self._routes |= {"namf-basic": self._amf.router, "namf-evts": self._amf.router}
        self._routes |= {"nsmf-basic": self._smf.router, "nsmf-event-exposure": self._smf.router}
        await nrf.register(amf_profile(instances.amf, self.network, host, port))
        await nrf.register(smf_profile(instances.smf, self.network, host, port))

    async def _start_lmsf(
        self,
        settings: HostSettings,
        client: SbiClient,
        nrf: NrfClient,
        tokens: TokenSource,
        verifier: TokenVerifier,
        port: int,
    ) -> None:
        instances = self.keys.instances()
        await nrf.register(_lmsf_profile(instances.lmsf, self.network, settings.host, port))
        if self._partners is None:
            raise Refused(
                Refusal("BORDER_MISSING", "The LMSF speaks to partners through the border of its node.", status=400)
            )
        registry = KeeperRegistry(nrf, self.network)
        self._hosts = NodeHosts(self.directory / "services", self.directory / "log", settings, registry)
        self._stack.push_async_callback(self._hosts.close)
        operator = load_private(self.keys.operator_key)
        if not isinstance(operator, Ed25519PrivateKey):
            raise Refused(Refusal("KEY_KIND", f"{self.keys.operator_key} is no Ed25519 key."))
        revocations, supply = operator_supply(
            self.directory, self.config.supply, str(self.network), operator.public_key()
        )
        config = LmsfConfig(
            network=self.network,
            instance_id=instances.lmsf,
            nf_types=frozenset(self.config.network.nf_types),
            nrf_root=settings.nrf_root,
            data_dir=self.directory / "lmsf",
        )
        lmsf = Lmsf(
            config,
            partners=self._partners,
            inner=Inner(client, tokens),
            hosts=self._hosts,
            signer=KeySigner(operator),
            software=PackageSoftware(functools.partial(trusted_vendors, self.directory), revocations.load),
            policy=PolicyFolder(self.directory / self.config.policy.path) if self.config.policy.path else None,
            supply=supply,
        )
        self._lmsf = lmsf
        faces = Faces(lmsf, verifier)
        self._stack.push_async_callback(lmsf.stop)
        self._routes["nlmsf"] = faces.router
        self._partner_routes["nlmsf"] = lambda partner: faces.partner_router(str(partner))
        await lmsf.start()

    # ------------------------------------------------------------------------------------------------ partners

    def _local(self, partner: NetworkId) -> Handler:
        """This node's functions as one partner reaches them."""
        made = {api: router(partner) for api, router in self._partner_routes.items()}

        async def handle(request: Request) -> Response:
            handler = made.get(_api(request.path)) or made.get(
                "nlmsf" if _api(request.path).startswith("nlmsf-") else ""
            )
            if handler is None:
                return problem(503, "NF_CONGESTION", "This function does not run at the moment.")
            return await guarded(handler, request)

        return handle

    async def _link(self) -> None:
        assert self._partners is not None
        assert self._border is not None
        self._seen = self._files.stamp()  # before reading, so that what comes meanwhile is seen next time
        self._unlinked = await self._border.update(self._partners.refresh())
        for network, error in self._unlinked.items():
            _log.error("border.not-open", partner=str(network), why=str(error))

    async def _follow_partners(self) -> None:
        """Link partners as their files come, change and go; try again where a port was taken."""
        while True:
            await asyncio.sleep(PARTNER_POLL_S)
            if self._files.stamp() != self._seen or self._unlinked:
                try:
                    await self._link()
                except Refused as refused:  # a file that is damaged changes nothing until it is whole
                    _log.error("partner.unreadable", why=str(refused))

    # ------------------------------------------------------------------------------------------------ requests

    async def _handle(self, request: Request) -> Response:
        """Everything that comes in on the internal listener."""
        root = request.headers.get(names.TARGET_API_ROOT)
        if root is not None and not self._is_own(root):
            if self._border is None:
                return problem(503, "NF_CONGESTION", "This node runs no border.")
            return await self._border.forward(request)
        if len(request.body) > limits.REQUEST_BYTES:
            return problem(413, "PAYLOAD_TOO_LARGE", f"The body may have {limits.REQUEST_BYTES} bytes.")
        api = _api(request.path)
        handler = self._routes.get(api) or self._routes.get("nlmsf" if api.startswith("nlmsf-") else "")
        if handler is not None:
            return await guarded(handler, request)
        if request.path == STATUS_PATH:
            return json_response(200, self.status())
        if request.path == OPENAPI_PATH:
            text = (files("outrider.network") / "openapi" / "outrider-node.yaml").read_bytes()
            return Response(200, [("content-type", "application/yaml")], text)
        return problem(404, "RESOURCE_URI_STRUCTURE_NOT_FOUND", f"Nothing is served at {request.path} here.")

    def _is_own(self, root: str) -> bool:
        parts = urlsplit(root)
        host = (parts.hostname or "").lower()
        return host == self.network.domain or host.endswith(f".{self.network.domain}") or root.rstrip("/") == self.root

    def status(self) -> dict[str, Any]:
        """How the node is, for `outrider network status`."""
        links = {} if self._border is None else {link["network"]: link for link in self._border.status()}
        basic = None
        if self._amf is not None and self._smf is not None:
            basic = {"registrations": self._amf.registered, "pduSessions": self._smf.sessions}
        return {
            "network": str(self.network),
            "kind": self.config.network.kind,
            "name": self.config.network.name,
            "nfTypes": self.config.network.nf_types,
            "pid": os.getpid(),
            "root": self.root,
            "startedAt": self._started_at,
            "functions": self.functions,
            "partners": [
                {
                    "network": p.network,
                    "name": p.card.name if p.card else "",
                    "state": p.state,
                    "waitingFor": p.waiting_for
                    or (f"a free port: {self._unlinked[p.network_id]}" if p.network_id in self._unlinked else ""),
                    "link": links.get(p.network),
                }
                for p in self._files.all()
            ],
            "hosts": [] if self._hosts is None else self._hosts.status(),
            "basic": basic,
        }


def _lmsf_profile(instance_id: str, network: NetworkId, host: str, port: int) -> dict[str, Any]:
    """The LMSF's `NFProfile`; its NF type is no 3GPP one, so only those who know it look for it."""
    apis = (
        "nlmsf-catalogue",
        "nlmsf-negotiation",
        "nlmsf-permission",
        "nlmsf-migration",
        "nlmsf-policy",
        "nlmsf-audit",
    )
    return nf_profile("LMSF", instance_id, network, host, port, apis)


def _api(path: str) -> str:
    """The API that a path belongs to: its first segment."""
    return path[1:].partition("/")[0]
