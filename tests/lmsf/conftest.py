"""Two or three LMSFs in one process: real machines, journals, tokens, signatures and NRFs; hosts and borders in memory.

`FakeHosts` has the semantics of the keepers' control API, and moves keys between the two networks one at a time, so
that a test can stop at any phase. Time runs a hundred times as fast for the LMSFs.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from outrider.core.ids import NetworkId
from outrider.core.manifest import KeyRule, Manifest, NfServiceSpec, StateSchema
from outrider.core.permission import DataPolicy, Permission, Revocation
from outrider.core.refusal import Refusal
from outrider.core.supply import Component
from outrider.functions.lmsf import runner
from outrider.functions.lmsf.engine import Lmsf, LmsfConfig
from outrider.functions.lmsf.faces import Faces
from outrider.functions.lmsf.ports import Host, HostFailed, HostSpec, Partner, StoreLost, Stores, Verified
from outrider.functions.lmsf.signer import KeySigner
from outrider.functions.nrf.nrf import Nrf
from outrider.network.keys import private_pem, public_pem
from outrider.package import statements
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import json_response, problem, refusal_response
from outrider.sbi.tokens import TokenIssuer, TokenVerifier
from outrider.store.port import StoreMark

A, B, C = "999-70", "999-71-000007ed9d5", "999-72"
SPEED = 100
SERVICE = "group-coordination"
KEYS = 40
NOTIFYING = SbiClient()
"""For the NRFs, which notify nobody here."""


class FastClock:
    """A hundred seconds a second, from one start for all networks."""

    _start, _base = time.monotonic(), time.time_ns() // 1_000_000

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return self._base + int((time.monotonic() - self._start) * 1000 * SPEED) + self.ahead_ms

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / SPEED)


def manifest(**changes: Any) -> Manifest:
    services = [
        NfServiceSpec(
            name=name,
            nf_type=nf_type,
            app="app:app",
            keys=[KeyRule(path=f"/{name}/v1/ues/{{supi}}", at="path:supi")],
        )
        for name, nf_type in (("nsmf-groupsession", "SMF"), ("npcf-groupqos", "PCF"), ("namf-grouppresence", "AMF"))
    ]
    made = Manifest(
        service=SERVICE,
        version="1.0.0",
        vendor="Example Vendor",
        nf_services=services,
        state_schema=StateSchema(categories={"nsmf-groupsession": "session"}),
    )
    return msgspec.structs.replace(made, **changes)


class FakePolicy:
    """An operator's policy files, in memory."""

    path = "memory"

    def __init__(self, **files: str) -> None:
        self.gone: OSError | None = None
        self.files = files
        """Text by name, with `_` for the dot."""

    def stamp(self) -> object:
        return dict(self.files)

    def read(self) -> dict[str, bytes]:
        if self.gone is not None:
            raise self.gone
        return {name.replace("_", "."): text.encode() for name, text in self.files.items()}


class FakeSoftware:
    """A package is its manifest as JSON; `refuse` is what verifying says."""

    def __init__(self) -> None:
        self.components = (Component(ref="code", name=SERVICE, version="1.0.0", licence="Apache-2.0"),)
        self.refuse: Refusal | None = None
        self.other: dict[str, Any] = {}

    def verify(self, archive: Path) -> Verified | Refusal:
        data = archive.read_bytes()
        if self.refuse is not None:
            return self.refuse
        made = Verified(
            manifest=msgspec.json.decode(data.rstrip(b" "), type=Manifest),
            digest=hashlib.sha256(data).hexdigest(),
            sbom_digest=hashlib.sha256(b"sbom" + data).hexdigest(),
            size_bytes=len(data),
            components=self.components,
        )
        return Verified(**({f: getattr(made, f) for f in made.__slots__} | self.other))

    def install(self, archive: Path, folder: Path) -> Path | Refusal:
        target = folder / hashlib.sha256(archive.read_bytes()).hexdigest()
        target.mkdir(parents=True, exist_ok=True)
        return target


@dataclass
class FakeMigration:
    id: str
    role: str
    peer: str
    sweep: str = "arrived"
    relocating: bool = False
    aborted: str | None = None
    finished: bool = False
    durable: bool = False
    copied: int = 0
    swept: bool = False
    """The sweep is over: what comes later stays."""

    @property
    def active(self) -> bool:
        return self.aborted is None and not self.finished


@dataclass
class Keeper:
    """A host: which keys it owns, has granted, and knows to be elsewhere."""

    world: World
    network: str
    spec: HostSpec
    port: int
    store_id: str
    rows: dict[str, tuple[str, str]] = field(default_factory=dict)
    migrations: dict[str, FakeMigration] = field(default_factory=dict)
    worker_alive: bool = True
    permitted: bool = True
    broken: bool = False
    """Answers nothing, as a keeper that is being restarted."""
    erased: bool = False
    shadow_behind: bool = False
    """Home does not have yet all that was done here."""
    banned: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stores that were declared lost, each with what was told of it."""
    calls: list[str] = field(default_factory=list)

    def count(self, state: str) -> int:
        return sum(s == state for s, _ in self.rows.values())

    def state(self, m: FakeMigration) -> str:
        if m.aborted is not None:
            return "aborting" if self.count("granted") else "aborted"
        if m.finished:
            return "done"
        if m.role == "source" and not m.durable:
            return "copying"
        if m.relocating:
            done = m.swept or (m.sweep == "all" and not self.count("owned") and not self.count("granted"))
            m.swept = done
            return "settled" if done else "relocating"
        return "following" if m.durable else "copying"

    async def __call__(self, request: Request) -> Response:
        if self.broken:
            raise Unreachable("the keeper is down", not_sent=True)
        parts = request.path.split("/")[3:]
        self.calls.append(f"{request.method} {'/'.join(parts)}")
        await self.other_than(request, parts)
        match request.method, parts:
            case "GET", ["status"]:
                ues = {s: self.count(s) for s in ("owned", "granted", "foreign")}
                return json_response(
                    200,
                    {
                        "service": SERVICE, "storeId": self.store_id, "incarnation": 1, "rows": ues,
                        "version": self.version(parts), "ues": len(self.rows), "away": self.away(),
                        "digestKey": self.spec.digest_key or "00" * 16,
                        "worker": {"pid": 1, "alive": self.worker_alive},
                    },
                )  # fmt: skip
            case "POST", ["gone"]:
                body = request.json()
                moved = [k for k, row in self.rows.items() if row == ("foreign", body["network"])]
                self.rows |= dict.fromkeys(moved, ("foreign", body["to"]))
                return json_response(200, {"rows": len(moved)})
            case "PUT", ["permission"]:
                self.permitted = request.json()["valid"]
                return Response(204)
            case "POST", ["erase"]:
                if self.count("owned") or self.count("granted"):
                    return refusal_response(Refusal("CONTEXTS_OWNED_HERE", "contexts are owned here", status=409))
                if self.shadow_behind:
                    return refusal_response(Refusal("SHADOW_BEHIND", "home does not have all yet", status=409))
                self.erased = True
                count = len(self.rows)
                self.rows.clear()
                return json_response(200, {"erasedUes": count})
            case "POST", ["migrations"]:
                body = request.json()
                self.world.stores.setdefault((body["migrationId"], body["peer"]), body.get("peerStoreId"))
                m = self.migrations.setdefault(
                    body["migrationId"], FakeMigration(body["migrationId"], body["role"], body["peer"])
                )
                return json_response(201, self.summary(m))
            case method, ["migrations", name, *verb]:
                found = self.migrations.get(name)
                if found is None:
                    return problem(404, "MIGRATION_UNKNOWN", "no such migration")
                if method == "GET":
                    return json_response(200, self.summary(found))
                match verb:
                    case ["relocate"]:
                        found.relocating, found.sweep = True, request.json()["sweep"]
                    case ["abort"]:
                        found.aborted = request.json()["cause"]
                        for key, (state, peer) in self.rows.items():
                            if state == "granted":  # recalled, and refused at once
                                self.rows[key] = ("owned", peer)
                    case ["may-declare-lost"]:
                        other = self.world.keepers.get((found.peer, self.spec.service))
                        if other is not None and not other.broken and other.store_id == request.json()["storeId"]:
                            return refusal_response(Refusal("STORE_ANSWERS", "it answers", status=409))
                    case ["declare-lost"]:
                        return json_response(200, self.declare_lost(found, request.json()["storeId"]))
                    case ["finish"]:
                        found.finished, found.relocating = True, False
                return Response(204)
        return problem(404, "RESOURCE_URI_STRUCTURE_NOT_FOUND", request.path)

    def declare_lost(self, m: FakeMigration, store_id: str) -> dict[str, Any]:
        if store_id in self.banned:
            return self.banned[store_id]
        m.aborted = "STORE_LOST"
        taken = [key for key, (state, peer) in self.rows.items() if state != "owned" and peer == m.peer]
        for key in taken:
            self.rows[key] = ("owned", "")
        keys = [{"key": key, "ues": 1, "epoch": 2, "shadow": "followed"} for key in taken]
        loss = self.banned[store_id] = {
            "storeId": store_id, "peer": m.peer, "declaredMs": 1, "ues": len(taken), "shared": 0, "keys": keys,
            "shadow": {"unknown": 0, "behind": 0, "followed": len(taken)}, "behindEntries": 0, "moreKeys": 0,
        }  # fmt: skip
        return loss

    def lost(self, m: FakeMigration) -> str:
        """Why the peer's store counts as lost."""
        other = self.world.keepers.get((m.peer, self.spec.service))
        known = self.world.stores.get((m.id.removesuffix(".r"), m.peer))
        lost = other is not None and known not in (None, other.store_id) and known not in self.banned
        return "another store answers" if lost else ""

    def version(self, parts: list[str]) -> str:
        if parts[0] == "migrations":
            m = self.migrations[parts[1]]
            return self.state(m) + self.lost(m).replace(" ", "-")
        return f"{not self.count('owned')} {not self.count('granted')} {sorted(self.away())}"

    def away(self) -> dict[str, int]:
        return dict(Counter(peer for state, peer in self.rows.values() if state != "owned"))

    async def other_than(self, request: Request, parts: list[str]) -> None:
        """Keep a question waiting until there is something new, as long as it says."""
        args = request.args()
        ticks = int(float(args.get("wait-ms", ["0"])[0]) / SPEED)
        while ticks and (parts[0] == "status" or parts[1] in self.migrations):
            if self.version(parts) != args["after"][0] or self.broken:
                return
            await asyncio.sleep(0.001)
            ticks -= 1

    def summary(self, m: FakeMigration) -> dict[str, Any]:
        moved = sum(s == "foreign" and p == m.peer for s, p in self.rows.values())
        return {
            "version": self.version(["migrations", m.id]), "storeLost": self.lost(m),
            "migrationId": m.id, "role": m.role, "peer": m.peer, "state": self.state(m),
            "copiedUes": m.copied,
            "totalUes": len(self.rows), "ues": len(self.rows), "bytesSent": 1000 * m.copied, "movedUes": moved,
            "remainingUes": self.count("owned"), "inDoubt": [], "waitingFor": "", "waits": {},
        }  # fmt: skip


class World:
    """Where keys are, and how they move: one key a tick, if both keepers let it."""

    def __init__(self) -> None:
        self.keepers: dict[tuple[str, str], Keeper] = {}
        self.stores: dict[tuple[str, str], str] = {}
        """The store of a peer that a migration is with, by migration and peer."""
        self.arrived: set[str] = set()
        self.frozen = False
        """No copy becomes durable and no key moves."""
        self.copies = True
        """Copies become durable; without, only UEs that have arrived move. Home has a shadow for the way back."""
        self.budget: int | None = None
        """How many more keys A may give away; None: all."""
        self.grants: list[tuple[str, str, str]] = []
        """(giver, migration, key)"""
        self.linked = True

    def keeper(self, network: str) -> Keeper:
        return self.keepers[network, SERVICE]

    def lose_store(self, network: str) -> None:
        """The network's disk is gone, and its keeper starts with an empty one."""
        keeper = self.keeper(network)
        keeper.store_id += "-reborn"
        keeper.rows.clear()
        keeper.migrations.clear()

    def tick(self) -> None:
        if self.frozen or not self.linked:
            return
        for keeper in list(self.keepers.values()):
            peer_of = {n: k for (n, s), k in self.keepers.items() if s == keeper.spec.service}
            for m in keeper.migrations.values():
                other = peer_of.get(m.peer)
                if m.role != "source" or not m.active or keeper.broken or other is None or other.broken:
                    continue
                theirs = other.migrations.get(m.id)
                if theirs is None or theirs.aborted is not None:
                    continue
                for key in keeper.rows:
                    other.rows.setdefault(key, ("foreign", keeper.network))
                if not m.durable and (self.copies or m.id.endswith(".r")):
                    m.copied += 10
                    m.durable = m.copied >= len(keeper.rows)
                elif m.relocating:
                    wanted = (k for k, (s, _) in keeper.rows.items() if s == "owned" and self._moves(k, m))
                    key = next(wanted, None)
                    keeper.state(m)
                    if keeper.network == A and self.budget is not None:
                        if self.budget == 0:
                            continue
                        self.budget -= 1
                    if key is not None:
                        self.grants.append((keeper.network, m.id, key))
                        keeper.rows[key] = ("foreign", other.network)
                        other.rows[key] = ("owned", "")

    def _moves(self, key: str, m: FakeMigration) -> bool:
        return (m.sweep == "all" and m.durable and not m.swept) or key in self.arrived

    def owners(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for keeper in self.keepers.values():
            for key, (state, _) in keeper.rows.items():
                if state == "owned":
                    found.setdefault(key, []).append(keeper.network)
        return found


class FakeHosts:
    """The hosts of one network; they outlive a restart of its LMSF."""

    def __init__(self, world: World, network: str, first_port: int) -> None:
        self.world, self.network, self._port = world, network, first_port
        self.fail: str | None = None
        self.digest_keys: list[str | None] = []
        self.up: set[str] = set()
        """Hosts that the node has started since its own start."""
        self.lost: Refusal | None = None
        """What a keeper says that does not find its store."""
        self.aside: list[str] = []
        self.stores: Stores | None = None

    async def start(self, spec: HostSpec, stores: Stores) -> Host:
        await asyncio.sleep(0.005)
        if self.fail is not None:
            raise HostFailed(self.fail)
        if self.lost is not None:
            raise StoreLost(self.lost)
        self.stores = stores
        self.digest_keys.append(spec.digest_key)
        name = (self.network, spec.service)
        if name not in self.world.keepers:
            self._port += 1
            keeper = Keeper(self.world, self.network, spec, self._port, f"store-{self.network}-{self._port}")
            if spec.home == self.network:
                keeper.rows = {f"ue:{i:032x}": ("owned", "") for i in range(KEYS)}
            self.world.keepers[name] = keeper
        self.up.add(spec.service)
        host = self.get(spec.service)
        assert host is not None
        await stores.note(spec.service, StoreMark(host.store_id, len(self.digest_keys), 0))
        return host

    async def die_with_store(self, service: str, refusal: Refusal) -> None:
        """A keeper dies, and its store is lost: the node does not start it again."""
        assert self.stores is not None
        self.lost = refusal
        self.up.discard(service)
        self.world.keepers.pop((self.network, service))
        await self.stores.lost(service, refusal)

    async def close(self) -> None:
        pass

    async def set_aside(self, service: str) -> Path | None:
        self.aside.append(service)
        self.lost = None
        return None

    def get(self, service: str) -> Host | None:
        keeper = self.world.keepers.get((self.network, service))
        return (
            None
            if keeper is None or service not in self.up
            else Host(service, "127.0.0.1", keeper.port, 1, keeper.store_id)
        )

    async def stop(self, service: str) -> None:
        pass

    async def remove(self, service: str) -> None:
        keeper = self.world.keepers.pop((self.network, service), None)
        if keeper is not None:
            keeper.world.grants.append((self.network, "removed", service))


class Network:
    """One network: its keys, NRF and LMSF, and its ways to the own functions and to the partner."""

    def __init__(self, world: World, identity: str, folder: Path, first_port: int) -> None:
        self.world = world
        self.id = NetworkId.parse(identity)
        self.folder = folder
        self.clock = FastClock()
        self.operator_key = Ed25519PrivateKey.generate()
        self.signer = KeySigner(self.operator_key)
        nrf_key = ec.generate_private_key(ec.SECP256R1())
        self.nrf_id = f"{first_port:08x}-0000-4000-8000-000000000001"
        self.lmsf_id = f"{first_port:08x}-0000-4000-8000-000000000002"
        self.issuer = TokenIssuer(private_pem(nrf_key), self.nrf_id, self.id)
        self.verifier = TokenVerifier({self.nrf_id: public_pem(nrf_key)}, network=self.id)
        self._nrf_key = private_pem(nrf_key)
        self.nrf = self.new_nrf()
        self.hosts = FakeHosts(world, identity, first_port)
        self.software = FakeSoftware()
        self.nf_types = frozenset({"AMF", "SMF", "PCF"})
        self.others: dict[str, Network] = {}
        self.cut = False
        """Nothing that this network sends arrives at a partner."""
        self.sent: list[str] = []
        self.intercept: Callable[[str, str], Response | None] = lambda method, path: None
        self.policy: FakePolicy | None = None
        self.supply: Any = None
        self.lmsf = self._new()

    def new_nrf(self) -> Nrf:
        """An NRF that knows nobody."""
        return Nrf(
            network=self.id,
            nf_instance_id=self.nrf_id,
            signing_key_pem=self._nrf_key,
            api_root="http://nrf",
            client=NOTIFYING,
        )

    def _new(self) -> Lmsf:
        return Lmsf(
            LmsfConfig(self.id, self.lmsf_id, self.nf_types, "http://nrf", self.folder),
            partners=self,
            inner=_Inner(self),
            hosts=self.hosts,
            signer=self.signer,
            software=self.software,
            policy=self.policy,
            supply=self.supply,
            clock=self.clock,
        )

    @property
    def faces(self) -> Faces:
        return Faces(self.lmsf, self.verifier)

    async def restart(self) -> None:
        """The node dies and comes back; keepers go on, but the node knows of none until it has started it again."""
        await self.lmsf.stop()
        self.hosts.up.clear()
        self.lmsf = self._new()
        await self.lmsf.start()

    # ----------------------------------------------------------------------- Partners, as a port

    def get(self, network: str) -> Partner | None:
        other = self.others.get(network)
        return None if other is None else Partner(network, "", (other.signer.public_pem,))

    def list(self) -> Sequence[Partner]:
        return [p for n in self.others if (p := self.get(n)) is not None]

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
        self.sent.append(f"{method} {path}")
        other = self.others[network]
        if self.cut:
            raise Unreachable("the link is cut", not_sent=True)
        said = self.intercept(method, path)
        if said is not None:
            return said
        token = other.issuer.issue(
            subject=self.lmsf_id, audience="LMSF", scope=scope, consumer_plmn=self.id.plmn_id(), subject_type="LMSF"
        )
        answer = await _call(other.faces.partner_router(str(self.id)), method, path, token, headers, body, json)
        if other.cut:
            raise Unreachable("the answer is lost", not_sent=False)
        return answer

    # ----------------------------------------------------------------------- as its operator

    async def ask(
        self, method: str, path: str, json: object = msgspec.UNSET, *, body: bytes = b"",
        headers: Sequence[tuple[str, str]] = (), status: int | None = None,
    ) -> Any:  # fmt: skip
        """A request of the operator; the answer's JSON, or its body where it is none."""
        token = self.issuer.issue(subject="operator", audience="LMSF", scope=path.split("/")[1])
        answer = await _call(self.faces.router, method, path, token, headers, body, json)
        assert status is None or answer.status == status, (answer.status, answer.body)
        return answer.json() if answer.body else None

    async def show(self, migration_id: str) -> Any:
        return await self.ask("GET", f"/nlmsf-migration/v1/migrations/{migration_id}", status=200)

    async def discovered(self, nf_type: str = "SMF", service: str = "nsmf-groupsession") -> list[Any]:
        query = f"target-nf-type={nf_type}&requester-nf-type=AF&service-names={service}"
        answer = await self.nrf.router(Request("GET", "/nnrf-disc/v1/nf-instances", query))
        assert answer.status == 200, answer.body
        found = answer.json()["nfInstances"]
        assert isinstance(found, list)
        return found

    def permission(self, **changes: Any) -> Permission:
        package = hashlib.sha256(archive()).hexdigest()
        now = self.clock.now_ms()
        made = Permission(
            signer=str(self.id),
            service=SERVICE,
            package_digest=package,
            sbom_digest=hashlib.sha256(b"sbom" + archive()).hexdigest(),
            source=A,
            target=B,
            home=A,
            purpose="communication-service",
            not_before_ms=now - 1000,
            not_after_ms=now + 86_400_000 * 30,
            data_policy=DataPolicy(),
            nonce=hashlib.sha256(str(self.id).encode()).hexdigest()[:32],
        )
        return msgspec.structs.replace(made, **changes)

    async def permit(self, key: Ed25519PrivateKey | None = None, **changes: Any) -> str:
        """Sign a permission and hand it to the own LMSF; its id."""
        envelope = statements.sign_permission(self.permission(**changes), key or self.operator_key)
        answer = await self.ask("POST", "/nlmsf-permission/v1/permissions", body=envelope, status=201)
        return str(answer["id"])

    async def revoke(self, permission_id: str) -> None:
        revocation = Revocation(
            signer=str(self.id), permission_id=permission_id, revoked_at_ms=self.clock.now_ms(), reason="over"
        )
        envelope = statements.sign_revocation(revocation, self.operator_key)
        await self.ask("POST", "/nlmsf-permission/v1/revocations", body=envelope, status=201)

    async def onboard(self, data: bytes, status: int = 201) -> Any:
        digest = hashlib.sha256(data).hexdigest()
        for first in range(0, len(data), 512 * 1024):
            part = data[first : first + 512 * 1024]
            span = [("content-range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")]
            await self.ask("PUT", f"/nlmsf-catalogue/v1/uploads/{digest}", body=part, headers=span, status=200)
        return await self.ask("POST", "/nlmsf-catalogue/v1/packages", {"sha256": digest}, status=status)

    async def under(self, rules: str = "", cedar: str = "") -> None:
        """This operator writes a policy; it counts when this returns."""
        files = {name: text for name, text in (("rules_toml", rules), ("own_cedar", cedar)) if text}
        if self.policy is None:
            self.policy = FakePolicy(**files)
            await self.restart()
            if self.lmsf.deployments.get(SERVICE) is not None:
                await self.lmsf.deployments.settled(SERVICE)
        else:
            self.policy.files = files
            await self.ask("POST", "/nlmsf-policy/v1/apply", status=200)

    async def deploy(self) -> Any:
        package = await self.onboard(archive())
        await self.ask("POST", "/nlmsf-catalogue/v1/deployments", {"packageDigest": package["digest"]}, status=201)
        await self.lmsf.deployments.settled(SERVICE)
        return await self.ask("GET", f"/nlmsf-catalogue/v1/deployments/{SERVICE}", status=200)


class _Inner:
    """Requests to the own NRF and keepers."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def request(
        self, method: str, url: str, *, scope: str, target_nf_type: str, headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"", json: object = msgspec.UNSET, timeout_s: float = 5.0,
    ) -> Response:  # fmt: skip
        await asyncio.sleep(0)
        if url.startswith("http://nrf/"):
            return await _call(
                self._network.nrf.router, method, url.removeprefix("http://nrf"), "", headers, body, json
            )
        root, _, path = url.removeprefix("http://127.0.0.1:").partition("/")
        for keeper in self._network.world.keepers.values():
            if keeper.port == int(root) and keeper.network == str(self._network.id):
                return await _call(keeper, method, f"/{path}", "", headers, body, json)
        raise Unreachable("no keeper listens there", not_sent=True)


async def _call(
    handler: Any, method: str, path: str, token: str, headers: Sequence[tuple[str, str]], body: bytes, json: object
) -> Response:
    sent = {k.lower(): v for k, v in headers}
    if json is not msgspec.UNSET:
        body = msgspec.json.encode(json)
        sent.setdefault("content-type", "application/json")
    if token:
        sent["authorization"] = f"Bearer {token}"
    path, _, query = path.partition("?")
    answer = await handler(Request(method, path, query, sent, body))
    assert isinstance(answer, Response)
    return answer


def archive(**changes: Any) -> bytes:
    """A package: its manifest, and blanks so that it takes several ranges to fetch."""
    data = msgspec.json.encode(manifest(**changes), order="sorted")
    return data + b" " * (600 * 1024 - len(data))


@pytest.fixture
def package_bytes() -> bytes:
    """The archive that `deploy` onboards."""
    return archive()


class Pair:
    """Two networks, partners of each other, with the service deployed at A."""

    def __init__(self, world: World, a: Network, b: Network) -> None:
        self.world, self.a, self.b = world, a, b
        self.all = [a, b]

    async def migrate(self, *, move_all: bool = False, status: int | None = 201, **wanted: Any) -> Any:
        body = {"service": SERVICE, "target": B, "moveAll": move_all} | wanted
        return await self.a.ask("POST", "/nlmsf-migration/v1/migrations", body, status=status)

    def later(self, seconds: float) -> None:
        """Let the clocks of both networks jump."""
        for network in self.all:
            network.clock.ahead_ms += int(seconds * 1000)

    async def reach(self, migration_id: str, *phases: str, at: Network | None = None, limit_s: float = 30) -> Any:
        """Wait until one side (or both) is in one of the phases."""
        for network in (at,) if at is not None else self.all:
            found = None
            async with asyncio.timeout(limit_s):
                while found is None:
                    found = network.lmsf.get(migration_id)
                    await asyncio.sleep(0.001)
            arrived = await found.until(lambda row: row.phase.value in phases, limit_s * 1000)
            assert arrived, await network.show(migration_id)
        return await (at or self.a).show(migration_id)

    async def ended(self, migration_id: str, limit_s: float = 30) -> tuple[Any, ...]:
        """Wait until all sides have nothing left to do; how they see it."""
        seen = []
        for network in self.all:
            found = network.lmsf.get(migration_id)
            assert found is not None
            over = await found.until(lambda row, found=found: found.over, limit_s * 1000)  # type: ignore[misc]
            assert over, await network.show(migration_id)
            seen.append(await network.show(migration_id))
        return tuple(seen)

    async def held_in(self, phase: str, *, move_all: bool = True, **wanted: Any) -> tuple[str, Callable[[], None]]:
        """A migration that stands in a phase at both sides, and what lets it go on."""
        stopped = {"on": True}

        def hold(part: str) -> Callable[[str, str], Response | None]:
            def say(method: str, path: str) -> Response | None:
                return problem(503, "NF_CONGESTION", "held") if stopped["on"] and part in path else None

            return say

        def release() -> None:
            stopped["on"] = False
            self.world.frozen, self.world.budget = False, None

        self.world.frozen = phase == "COPYING"
        self.world.budget = KEYS // 3 if phase == "RELOCATING" else None
        if phase == "NEGOTIATING":
            self.a.intercept = hold("/offers")
        if phase == "PERMITTING":
            self.a.intercept = hold("/exchange")
        if phase == "PREPARING":
            self.b.intercept = hold("/archive")
        name = (await self.migrate(move_all=move_all, **wanted))["migrationId"]
        if phase == "RETURNING":
            await self.reach(name, "SETTLED")
            self.world.frozen = True
            await self.a.ask("POST", f"/nlmsf-migration/v1/migrations/{name}/return", status=202)
        await self.reach(name, phase, at=self.a)
        if phase not in ("NEGOTIATING",):
            await self.reach(name, phase, at=self.b)
        return name, release

    def whole_at_home(self) -> None:
        """Every key is owned at A, and only there."""
        assert self.world.owners() == {f"ue:{i:032x}": [A] for i in range(KEYS)}

    async def clear_at_target(self) -> None:
        """Nothing of the service is left at B."""
        assert (B, SERVICE) not in self.world.keepers
        assert await self.b.discovered() == []
        assert self.b.lmsf.deployments.all() == []
        assert not list((self.b.folder / "installed").glob("*/"))
        assert not list((self.b.folder / "packages").iterdir())


class Three(Pair):
    """A third network C: A's service is hosted at B, in a migration that is SETTLED, and may go onward to C."""

    def __init__(self, world: World, a: Network, b: Network, c: Network) -> None:
        super().__init__(world, a, b)
        self.c = c
        self.first = ""
        """The migration from A to B."""

    async def settle(self) -> None:
        """Bring everything to B."""
        self.first = (await self.migrate(move_all=True))["migrationId"]
        await self.reach(self.first, "SETTLED")
        self.all = [self.a, self.b, self.c]

    async def permit(self, **changes: Any) -> None:
        """All three permit that it goes from B to C."""
        for network in (self.a, self.b, self.c):
            await network.permit(source=B, target=C, nonce="3" * 32, **changes)

    async def onward(self, *, move_all: bool = True, status: int | None = 201, **wanted: Any) -> Any:
        return await self.migrate(source=B, target=C, move_all=move_all, status=status, **wanted)

    def owners(self) -> Counter[str]:
        """How many keys each network owns; each key is owned once."""
        owners = self.world.owners()
        assert len(owners) == KEYS
        assert all(len(networks) == 1 for networks in owners.values())
        return Counter(network for networks in owners.values() for network in networks)


@pytest.fixture(autouse=True)
def no_faults() -> Iterator[None]:
    """What the log calls an error is a fault of ours; only a host that is made to fail, or a log, is meant."""
    errors: list[dict[str, Any]] = []

    def note(logger: Any, method: str, event: Any) -> Any:
        if method in ("error", "exception", "critical") and not event["event"].startswith(("deployment.", "audit.")):
            errors.append(dict(event))
        return event

    before = structlog.get_config()["processors"]
    structlog.configure(processors=[note, *before])
    yield
    structlog.configure(processors=before)
    assert errors == []


@pytest.fixture
def world() -> World:
    return World()


@asynccontextmanager
async def running(world: World, *networks: Network) -> AsyncIterator[None]:
    """LMSFs at work, and keys that move; each network is a partner of every other."""
    for network in networks:
        network.others = {str(other.id): other for other in networks if other is not network}
        await network.lmsf.start()

    async def run() -> None:
        while True:
            world.tick()
            await asyncio.sleep(0.0005)

    moving = asyncio.create_task(run())
    yield
    moving.cancel()
    await asyncio.gather(moving, return_exceptions=True)
    for network in networks:
        network.cut = True  # those that stop last ask the first for no counter-signature
    for network in networks:
        await network.lmsf.stop()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    for phase in runner.PHASE_LIMITS_MS:  # a busy machine is slow, and time runs fast here
        monkeypatch.setitem(runner.PHASE_LIMITS_MS, phase, 3_600_000)


@pytest.fixture
async def networks(world: World, tmp_path: Path, patient: None) -> AsyncIterator[Pair]:
    a, b = Network(world, A, tmp_path / "a", 20_000), Network(world, B, tmp_path / "b", 30_000)
    async with running(world, a, b):
        yield Pair(world, a, b)


@pytest.fixture
async def three(world: World, tmp_path: Path, patient: None) -> AsyncIterator[Three]:
    """The service is hosted at B; nobody has permitted yet that it goes onward."""
    a, b = Network(world, A, tmp_path / "a", 20_000), Network(world, B, tmp_path / "b", 30_000)
    c = Network(world, C, tmp_path / "c", 40_000)
    async with running(world, a, b, c):
        made = Three(world, a, b, c)
        await a.deploy()
        await a.permit()
        await b.permit()
        await made.settle()
        yield made


@pytest.fixture
async def pair(networks: Pair) -> Pair:
    """The service is deployed at A, and both networks permit its migration to B."""
    await networks.a.deploy()
    await networks.a.permit()
    await networks.b.permit()
    return networks
