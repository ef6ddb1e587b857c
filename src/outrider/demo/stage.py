"""Two operators on one machine: each with its own folder, keys and process, set up by its own `outrider` commands.

What one operator does is done by commands that get only its folder; what passes between them is what they would hand
to each other: a card, and the package. The relay stands where the link between their borders would be. While UEs are
served, the operators' requests go to their nodes directly, as the commands send them: on a machine of two cores the
start of a command is felt by every UE.
"""

import asyncio
import os
import shutil
import tomllib
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from outrider.demo.processes import ProcessFailed, Running, command
from outrider.network.reach import Reach

HOME, TARGET = "999-70", "999-71-000007ed9d5"
"""The home PLMN (the test PLMN 999-70) and an SNPN of a port, a campus, a railway yard."""

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

    async def migrate(self, service: str, target: str) -> str:
        """As `outrider migration start`; the migration's id."""
        return str((await self.ask("POST", MIGRATIONS, {"service": service, "target": target}))["migrationId"])

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
    """The two networks and the link between them."""

    def __init__(self, directory: Path, *, rtt_ms: float) -> None:
        self.directory = directory
        self.rtt_ms = rtt_ms
        self.a = Operator(HOME, "A", "plmn", directory / "a")
        self.b = Operator(TARGET, "B", "snpn", directory / "b")
        self.relay: Running | None = None
        self.package: Path | None = None

    async def build(self) -> None:
        """Set both networks up, join them, and run them."""
        a, b = self.a, self.b
        await asyncio.gather(*(
            command("network", "init", str(o.directory), "--id", o.id, "--kind", o.kind, "--name", o.name,
                    "--sbi-port", str(base + 2), "--border-port", str(base))
            for o, base in ((a, _free_base(0)), (b, _free_base(1)))
        ))  # fmt: skip
        for_b, for_a = self.directory / "card-of-a.json", self.directory / "card-of-b.json"
        of_a, of_b = await asyncio.gather(
            a.cli("partner", "invite", b.id, "-o", str(for_b)), b.cli("partner", "invite", a.id, "-o", str(for_a))
        )
        ports = [str(port) for port in await self.link([of_a["border"], of_b["border"]])]
        to_a, to_b = ports[:2], ports[2:]
        await asyncio.gather(
            b.cli("partner", "add", str(for_b), "--fingerprint", of_a["fingerprint"],
                  "--address", "127.0.0.1", "--control-port", to_a[0], "--bulk-port", to_a[1]),
            a.cli("partner", "add", str(for_a), "--fingerprint", of_b["fingerprint"],
                  "--address", "127.0.0.1", "--control-port", to_b[0], "--bulk-port", to_b[1]),
        )  # fmt: skip
        await asyncio.gather(a.run(), b.run())

    async def link(self, ends: list[dict[str, Any]]) -> list[int]:
        """Let a relay stand between the borders; the ports that stand for the control and bulk port of each end."""
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
        """Each operator signs its permission over the package, with its own key, and gives it to its own LMSF."""
        self._trust()
        between = ["--source", self.a.id, "--target", self.b.id, "--home", self.a.id, "--days", "1"]

        async def sign(operator: Operator) -> None:
            file = self.directory / f"permission-of-{operator.name.lower()}.json"
            await operator.cli("permission", "sign", str(self.package), *between, "-o", str(file))
            await operator.cli("permission", "upload", str(file))

        await asyncio.gather(sign(self.a), sign(self.b))

    def _trust(self) -> None:
        """Both operators trust the vendor."""
        for operator in (self.a, self.b):
            shutil.copy(self.directory / "vendor.pub", operator.directory / "vendors")

    async def relay_bytes(self) -> int:
        """Bytes that have passed between the borders, both ways."""
        assert self.relay is not None
        stats = await self.relay.order("stats")
        return sum(r["forward"] + r["backward"] for r in stats["bytes"])

    async def close(self) -> None:
        """End every process."""
        await asyncio.gather(self.a.close(), self.b.close())
        if self.relay is not None:
            await self.relay.end()


def new_instance_id() -> str:
    """An NF instance id."""
    return str(uuid.uuid4())


def _free_base(number: int) -> int:
    """A base for a network's ports that is likely free (below those given to clients); the node says if it is not.

    A border's pair of ports and the internal listener's are fixed, so a node that is started again is found again.
    """
    return 20_000 + (os.getpid() * 2 + number) % 3_000 * 4
