"""Operators on one machine: each with its own folder, keys and process, set up by its own `outrider` commands.

What one operator does is done by commands that get only its folder; what passes between them is what they would hand
to each other: cards, and the package. The relay stands where the links between their borders would be. While UEs are
served, the operators' requests go to their nodes directly, as the commands send them: on a machine of two cores the
start of a command is felt by every UE.
"""

import asyncio
import os
import shutil
import tomllib
import uuid
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec

from outrider.demo.processes import ProcessFailed, Running, command
from outrider.network.reach import Reach

HOME, TARGET = "999-70", "999-71-000007ed9d5"
"""The home PLMN (the test PLMN 999-70) and an SNPN of a port, a campus, a railway yard."""

THIRD = "999-72"
"""Where a service goes onward from there: another PLMN."""

NETWORKS, PORTS = 3, 8
"""So many networks has a stage at most, and so many ports each of them."""

MIGRATIONS = "/nlmsf-migration/v1/migrations"


@dataclass
class Operator:
    """One network: its folder, its node, and where consumers in it find its NRF."""

    id: str
    name: str
    kind: str
    directory: Path
    node: Running | None = None
    env: dict[str, str] = field(default_factory=dict)
    _reach: Reach | None = None

    @property
    def nrf_root(self) -> str:
        """apiRoot of the node's internal listener."""
        assert self.node is not None
        return str(self.node.said["ready"]["root"])

    async def run(self) -> None:
        """Start the node (again)."""
        log = self.directory / "log" / "node.log"
        self.node = await Running.start(
            f"node of {self.name}", log, "outrider.cli.main", "network", "run", str(self.directory), "--json",
            env=self.env,
        )  # fmt: skip

    async def ask(self, method: str, path: str, json: object = msgspec.UNSET) -> dict[str, Any]:
        """A request of this operator to its node; `ProcessFailed` if it is refused, `Refused` if the node is away."""
        if self._reach is None:
            self._reach = Reach(self.directory)
        response = await self._reach.request(method, path, scope=path.split("/")[1], json=json, timeout_s=10.0)
        if response.status >= 400:
            raise ProcessFailed(f"{method} {path} was answered {response.status}: {response.body[:300]!r}")
        shown: dict[str, Any] = response.json()
        return shown

    async def migrate(self, service: str, target: str, source: str | None = None) -> str:
        """As `outrider migration start`, with `--from` where the service goes onward; the migration's id."""
        order = {"service": service, "target": target} | ({"source": source} if source else {})
        return str((await self.ask("POST", MIGRATIONS, order))["migrationId"])

    async def migration(self, migration_id: str) -> dict[str, Any]:
        """As `outrider migration show`."""
        return await self.ask("GET", f"{MIGRATIONS}/{migration_id}")

    async def take_back(self, migration_id: str) -> None:
        """As `outrider migration return`."""
        await self.ask("POST", f"{MIGRATIONS}/{migration_id}/return", {"sentence": ""})

    async def service(self, name: str) -> dict[str, Any]:
        """As `outrider service show`."""
        return await self.ask("GET", f"/nlmsf-catalogue/v1/deployments/{name}")

    async def kill(self) -> None:
        """SIGKILL the node, and reap it."""
        assert self.node is not None
        self.node.kill()
        await self.node.end()
        await self._forget()

    async def _forget(self) -> None:
        if self._reach is not None:
            await self._reach.__aexit__(None, None, None)
            self._reach = None

    async def close(self) -> None:
        """End the node."""
        await self._forget()
        if self.node is not None:
            await self.node.end()

    async def cli(self, *args: str, accept: tuple[int, ...] = (0,)) -> Any:
        """A command of this operator, with this operator's folder and nothing else."""
        return await command(*args, "--dir", str(self.directory), accept=accept)


class Stage:
    """The networks, and a link between each two of them."""

    def __init__(self, directory: Path, *, rtt_ms: float, third: bool = False) -> None:
        self.directory = directory
        self.rtt_ms = rtt_ms
        self.a = Operator(HOME, "A", "plmn", directory / "a")
        self.b = Operator(TARGET, "B", "snpn", directory / "b")
        self.c = Operator(THIRD, "C", "plmn", directory / "c")
        """Only there if `third`."""
        self.operators = [self.a, self.b, *([self.c] if third else [])]
        self.relay: Running | None = None
        self.package: Path | None = None

    @property
    def pairs(self) -> list[tuple[Operator, Operator]]:
        """The two ends of each link, in the order of `link`."""
        return list(combinations(self.operators, 2))

    async def build(self) -> None:
        """Set the networks up, join them, and run them."""
        await asyncio.gather(*(
            command("network", "init", str(o.directory), "--id", o.id, "--kind", o.kind, "--name", o.name,
                    "--sbi-port", str(base), "--border-port", str(base + 1))
            for o, base in ((o, _free_base(number)) for number, o in enumerate(self.operators))
        ))  # fmt: skip
        invited = await asyncio.gather(*(self._invite(first, second) for first, second in self.pairs))
        ports = [str(port) for port in await self.link([made["border"] for pair in invited for made in pair])]
        for number, ((first, second), (of_first, of_second)) in enumerate(zip(self.pairs, invited, strict=True)):
            to_first, to_second = ports[4 * number : 4 * number + 2], ports[4 * number + 2 : 4 * number + 4]
            await asyncio.gather(
                self._add(second, first, of_first, to_first), self._add(first, second, of_second, to_second)
            )
        await asyncio.gather(*(operator.run() for operator in self.operators))

    async def _invite(self, first: Operator, second: Operator) -> tuple[dict[str, Any], dict[str, Any]]:
        """A card of each for the other."""
        of_first, of_second = await asyncio.gather(
            first.cli("partner", "invite", second.id, "-o", str(self._card(first, second))),
            second.cli("partner", "invite", first.id, "-o", str(self._card(second, first))),
        )
        return of_first, of_second

    async def _add(self, operator: Operator, partner: Operator, made: dict[str, Any], ports: list[str]) -> None:
        """Let an operator take the card that a partner made for it."""
        await operator.cli(
            "partner", "add", str(self._card(partner, operator)), "--fingerprint", made["fingerprint"],
            "--address", "127.0.0.1", "--control-port", ports[0], "--bulk-port", ports[1],
        )  # fmt: skip

    def _card(self, of: Operator, made_for: Operator) -> Path:
        return self.directory / f"card-of-{of.name.lower()}-for-{made_for.name.lower()}.json"

    async def link(self, ends: list[dict[str, Any]]) -> list[int]:
        """Let a relay stand between the borders; the ports that stand for the control and bulk port of each end.

        There are two ends for each of `pairs`.
        """
        pairs = [
            part
            for end in ends
            for port in (end["controlPort"], end["bulkPort"])
            for part in ("--listen", "127.0.0.1:0", "--connect", f"{end['host']}:{port}")
        ]
        self.relay = await Running.start(
            "relay", self.directory / "relay.log", "outrider.demo.relay", *pairs, "--delay-ms", str(self.rtt_ms / 2)
        )
        return list(self.relay.said["ready"]["ports"])

    async def pack(self, source: Path) -> Path:
        """Be the service's vendor: make a key and build the package with it."""
        key = self.directory / "vendor.key"
        vendor = tomllib.loads((source / "outrider.toml").read_text())["vendor"]
        await command("package", "keygen", "--vendor", vendor, "-o", str(key))
        built = await command("package", "build", str(source), "--key", str(key), "-o", str(self.directory))
        self.package = Path(built["file"])
        return self.package

    async def deploy(self, source: Path) -> str:
        """Deploy the package at home, once it is built; the service's name."""
        package = self.package or await self.pack(source)
        self._trust()
        deployed = await self.a.cli("service", "deploy", str(package))
        return str(deployed["service"])

    async def permit(self) -> None:
        """Each operator permits the way to B, and with a third network that onward to C.

        It signs its permission over the package, with its own key, and gives it to its own LMSF.
        """
        self._trust()
        ways = [(who, self.a, self.b) for who in (self.a, self.b)]
        if self.c in self.operators:
            ways += [(who, self.b, self.c) for who in self.operators]
        await asyncio.gather(*(self._permit(who, source, target) for who, source, target in ways))

    async def _permit(self, who: Operator, source: Operator, target: Operator) -> None:
        way = ["--source", source.id, "--target", target.id, "--home", self.a.id, "--days", "1"]
        file = self.directory / f"permission-of-{who.name.lower()}-to-{target.name.lower()}.json"
        await who.cli("permission", "sign", str(self.package), *way, "-o", str(file))
        await who.cli("permission", "upload", str(file))

    def _trust(self) -> None:
        """All operators trust the vendor."""
        for operator in self.operators:
            shutil.copy(self.directory / "vendor.pub", operator.directory / "vendors")

    async def relay_bytes(self) -> int:
        """Bytes that have passed between the borders, both ways."""
        assert self.relay is not None
        stats = await self.relay.order("stats")
        return sum(r["forward"] + r["backward"] for r in stats["bytes"])

    async def close(self) -> None:
        """End every process."""
        await asyncio.gather(*(operator.close() for operator in self.operators))
        if self.relay is not None:
            await self.relay.end()


def new_instance_id() -> str:
    """An NF instance id."""
    return str(uuid.uuid4())


def _free_base(number: int) -> int:
    """A base for a network's ports that is likely free (below those given to clients); the node says if it is not.

    The internal listener's, and a pair of the border for each partner, are fixed, so a node that is started again is
    found again.
    """
    return 20_000 + (os.getpid() * NETWORKS + number) % 1_500 * PORTS
