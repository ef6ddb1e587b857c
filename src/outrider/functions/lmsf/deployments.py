"""Services that run at this network: installed, hosted, registered, kept alive, removed.

One way for a service that this operator deploys and for one that is hosted for a partner: a deployment is journalled
first, and each step may be run again, so that a restart goes on in the middle. The node supervises the processes; the
LMSF keeps their NF instances registered (`instances`), because a host that is busy with a migration must not be lost
to a heartbeat.
"""

import asyncio
import functools
import platform
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import structlog

from outrider.core import limits
from outrider.core.ids import NetworkId
from outrider.core.manifest import Manifest
from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf.catalogue import Catalogue
from outrider.functions.lmsf.impact import Impact, impact
from outrider.functions.lmsf.instances import HEARTBEAT_S, Instances
from outrider.functions.lmsf.journal import Journal
from outrider.functions.lmsf.ports import Clock, Host, HostFailed, Hosts, HostSpec, StoreLost
from outrider.functions.lmsf.record import Deployment, Instance, Package
from outrider.functions.lmsf.stores import StoreMarks
from outrider.functions.lmsf.unbroken import Unbroken
from outrider.package.closure import ANY
from outrider.package.wheels import python_here
from outrider.sbi.client import Unreachable

log = structlog.get_logger(__name__)

DOWN = ("FAILED", "STORE_LOST")
"""States of a service that is to run and does not, until somebody has done something about it."""


def fits(manifest: Manifest, nf_types: frozenset[str]) -> list[Refusal]:
    """Why the software cannot run at this network whoever permits it; every reason."""
    reasons = []
    absent = sorted({spec.nf_type for spec in manifest.nf_services} - nf_types)
    for nf_type in absent:
        services = ", ".join(s.name for s in manifest.nf_services if s.nf_type == nf_type)
        reasons.append(
            Refusal(
                "NF_TYPE_ABSENT",
                f"This network has no {nf_type}, which {services} must run in.",
                {"nfType": nf_type, "nfServices": services, "present": ", ".join(sorted(nf_types))},
                "A network that has this NF type can host the service, or one between that hosts for others.",
            )
        )
    machine = platform.machine()
    if manifest.architectures and manifest.architectures != [ANY] and machine not in manifest.architectures:
        reasons.append(
            Refusal(
                "ARCHITECTURE_ABSENT",
                f"The package runs on {', '.join(manifest.architectures)}; this network has {machine}.",
                {"architectures": ", ".join(manifest.architectures), "present": machine},
                f"The vendor builds the package with wheels for {machine} too.",
            )
        )
    version = python_here()
    if manifest.python and manifest.python != version:
        reasons.append(
            Refusal(
                "PYTHON_ABSENT",
                f"The package's wheels are for Python {manifest.python}; this network has {version}.",
                {"python": manifest.python, "present": version},
                f"The vendor builds the package for Python {version}.",
            )
        )
    return reasons


class Deployments:
    """What runs here, by service."""

    def __init__(
        self,
        network: str,
        nf_types: frozenset[str],
        folder: Path,
        journal: Journal,
        catalogue: Catalogue,
        hosts: Hosts,
        instances: Instances,
        clock: Clock,
    ) -> None:
        self._network = network
        self._nf_types = nf_types
        self._folder = folder
        self._journal = journal
        self._catalogue = catalogue
        self._hosts = hosts
        self._instances = instances
        self._clock = clock
        self._unbroken = Unbroken()
        self.stores = StoreMarks(journal, self._store_lost)
        self._all: dict[str, Deployment] = {}
        self._working: dict[str, asyncio.Task[None]] = {}
        self._heart: asyncio.Task[None] | None = None
        self._timer_s = float(HEARTBEAT_S)
        for body in journal.all("deployment"):
            deployment = msgspec.json.decode(body, type=Deployment)
            self._all[deployment.service] = deployment

    # ------------------------------------------------------------------------------------ life of the LMSF

    def start(self) -> None:
        """Go on with what was under way, start every host again, and keep the instances alive."""
        self._tidy()
        for deployment in list(self._all.values()):
            if deployment.state == "REMOVING":
                # What is hosted is removed by its migration, which needs the keeper to say that nothing is owned.
                hosted = deployment.migration_id is not None
                self._work(deployment.service, self._bring_up if hosted else self._remove)
            elif deployment.migration_id is None or deployment.state in ("RUNNING", *DOWN):
                self._work(deployment.service, self._bring_up)
        self._heart = asyncio.create_task(self._beat(), name="heartbeats")

    def _tidy(self) -> None:
        """Delete installed packages, and halves of such, that no deployment names: a crash has left them."""
        kept = {Path(d.package_dir) for d in self._all.values() if d.package_dir}
        for folder in self._folder.glob("*/"):
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    async def stop(self) -> None:
        """Stop working; hosts are the node's and go on or end with it."""
        tasks = [*self._working.values(), *([self._heart] if self._heart else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._unbroken.stop()

    # -------------------------------------------------------------------------------------------- looking

    def all(self) -> list[Deployment]:
        """Every deployment, by service."""
        return sorted(self._all.values(), key=lambda d: d.service)

    def get(self, service: str) -> Deployment | None:
        """One deployment."""
        return self._all.get(service)

    def host(self, service: str) -> Host | None:
        """The host of a deployment, if it runs."""
        return self._hosts.get(service)

    def hosted(self, package_digest: str | None = None) -> int:
        """How many services of partners, or hosts of one package, run here."""
        if package_digest is not None:
            return sum(d.package_digest == package_digest for d in self._all.values())
        return sum(d.migration_id is not None for d in self._all.values())

    def full(self) -> Refusal | None:
        """Why no further service of a partner is taken in."""
        hosted = self.hosted()
        if hosted < limits.HOSTED_SERVICES:
            return None
        return Refusal(
            "NO_ROOM",
            f"{self._network} hosts {hosted} services of partners already.",
            {"limit": str(limits.HOSTED_SERVICES)},
            "Return one first.",
        )

    # ------------------------------------------------------------------------------- by the own operator

    async def deploy(self, package: Package) -> Deployment | Refusal:
        """Run a service of this operator: owned here, discoverable at once. The same again is the same."""
        known = self._all.get(package.manifest.service)
        if known is not None and known.package_digest == package.digest and known.state not in DOWN:
            return known
        if known is not None and (known.state not in DOWN or known.migration_id is not None):
            return _exists(known)
        unusable = self._catalogue.usable(package.digest)
        reasons = [unusable] if unusable is not None else fits(package.manifest, self._nf_types)
        if reasons:
            return reasons[0]
        deployment = await self.prepare(package, home=self._network)
        self._work(deployment.service, self._bring_up)
        return deployment

    async def impact(self, package: Package) -> Impact:
        """What deploying a package here would do; nothing is done."""
        unusable = self._catalogue.usable(package.digest)
        reasons = [*([unusable] if unusable is not None else []), *fits(package.manifest, self._nf_types)]
        known = self._all.get(package.manifest.service)
        if known is not None:
            reasons.append(_exists(known))
        return impact(
            package.manifest,
            package.digest,
            package.size_bytes,
            NetworkId.parse(self._network),
            await self._instances.known(),
            [str(reason) for reason in reasons],
        )

    async def remove(self, service: str) -> Deployment | Refusal:
        """End a service of this operator and delete its state; migrations are checked by the caller."""
        deployment = self._all.get(service)
        if deployment is None:
            return _unknown(service)
        if deployment.migration_id is not None:
            return Refusal(
                "SERVICE_HOSTED",
                f"{service} belongs to {deployment.home} and is hosted here under a migration.",
                {"migrationId": deployment.migration_id},
                f"`outrider migration return {deployment.migration_id}` sends it home.",
                status=409,
            )
        removing = await self.change(service, state="REMOVING")
        self._work(service, self._remove)
        return removing

    async def begin_anew(self, service: str) -> Deployment:
        """Give up the lost store of a service and start the host with an empty one. Who may is decided before."""
        aside = await self._hosts.set_aside(service)  # before it is forgotten: a crash between leaves the store lost
        log.warning("store.set-aside", service=service, left=None if aside is None else str(aside))
        await self.stores.forget(service)
        begun = await self.change(service, state="INSTALLING", refusal=None)
        self._work(service, self._bring_up)
        return begun

    def _work(self, service: str, do: Callable[[str], Awaitable[None]]) -> None:
        """One task at a time for a service; what it cannot do stands in the deployment."""
        before = self._working.get(service)

        async def work() -> None:
            if before is not None:
                before.cancel()
                await asyncio.gather(before, return_exceptions=True)
            await do(service)

        self._working[service] = asyncio.create_task(work(), name=f"deployment {service}")

    async def settled(self, service: str) -> None:
        """Wait until nothing is under way for a service."""
        task = self._working.get(service)
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    async def _insist(self, what: str, do: Callable[[str], Awaitable[None]], service: str) -> None:
        """Try until it is done: the node's own NRF may just be starting, or the journal's disk be full."""
        pause_s = 0.1
        while True:
            try:
                await do(service)
                return
            except (Refused, Unreachable) as error:
                log.warning(what, service=service, why=str(error))
            except Exception:
                log.exception(what, service=service)
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)

    async def _bring_up(self, service: str) -> None:
        await self._insist("deployment.waits", self._up, service)

    async def _up(self, service: str) -> None:
        try:
            await self.install(service)
            host = await self.run(service)
            if self._all[service].state != "REMOVING":
                await self.register(service, host)
                await self.change(service, state="RUNNING", refusal=None)
        except Refused as error:
            await self._failed(service, error.refusal)
        except HostFailed as error:
            await self._failed(service, host_failed(service, error))

    async def _failed(self, service: str, refusal: Refusal) -> None:
        log.error("deployment.failed", service=service, cause=refusal.code, sentence=refusal.sentence)
        if service not in self._all:  # it has been removed meanwhile
            return
        leaving = self._all[service].state == "REMOVING"
        state = "FAILED" if refusal.code != "STORE_LOST" else "REMOVING" if leaving else "STORE_LOST"
        await self.change(service, state=state, refusal=refusal)
        try:
            await self._instances.deregister(self._all[service])
        except (Refused, Unreachable) as error:  # without heartbeats the NRF forgets them by itself
            log.warning("deployment.not-deregistered", service=service, why=str(error))

    async def _store_lost(self, service: str, refusal: Refusal) -> None:
        if service in self._all:
            failed = functools.partial(self._failed, refusal=refusal)
            self._work(service, lambda name: self._insist("deployment.waits", failed, name))

    async def _remove(self, service: str) -> None:
        await self._insist("deployment.remove", self.clear, service)

    # -------------------------------------------------------------- steps, also of a migration at a target

    async def prepare(
        self, package: Package, *, home: str, migration_id: str | None = None, digest_key: str | None = None
    ) -> Deployment:
        """Decide the deployment's identities, durably, before anything is started.

        Refused (NO_ROOM) if as many services of partners are here as may be: many offers may have been taken at once.
        """
        known = self._all.get(package.manifest.service)
        if known is not None and known.migration_id == migration_id and known.package_digest == package.digest:
            if known.state in DOWN:
                return await self.change(known.service, state="INSTALLING", refusal=None)
            return known
        if migration_id is not None and (full := self.full()) is not None:
            raise Refused(full)
        deployment = Deployment(
            service=package.manifest.service,
            version=package.manifest.version,
            package_digest=package.digest,
            home=home,
            manifest=package.manifest,
            instances=[Instance(str(uuid4()), s.name, s.nf_type) for s in package.manifest.nf_services],
            keeper_instance_id=str(uuid4()),
            nf_status="REGISTERED" if migration_id is None else "UNDISCOVERABLE",
            migration_id=migration_id,
            digest_key=digest_key,
            created_ms=self._clock.now_ms(),
        )
        await self._put(deployment)
        return deployment

    async def install(self, service: str) -> None:
        """Unpack the package, unless that was done."""
        await self._unbroken.run(service, lambda: self._install(service))

    async def _install(self, service: str) -> None:
        deployment = self._all[service]
        if not deployment.package_dir:
            installed = await self._catalogue.install(deployment.package_digest, self._folder)
            await self.change(service, package_dir=str(installed))

    async def run(self, service: str) -> Host:
        """Start the host, unless it runs."""
        deployment = self._all[service]
        if deployment.state not in ("RUNNING", "REMOVING"):
            deployment = await self.change(service, state="STARTING")
        spec = HostSpec(
            service=service,
            package_dir=Path(deployment.package_dir),
            home=deployment.home,
            nf_instance_ids=deployment.nf_instance_ids,
            keeper_instance_id=deployment.keeper_instance_id,
            digest_key=deployment.digest_key,
        )
        return await self._unbroken.run(service, lambda: self._hosts.start(spec, self.stores))

    async def register(self, service: str, host: Host | None = None) -> None:
        """Put the NF instances at the NRF as the deployment says."""
        host = host or self._hosts.get(service)
        if host is not None:
            self._timer_s = min(self._timer_s, await self._instances.register(self._all[service], host))

    async def show(self, service: str, nf_status: str, selection: dict[str, Any] | None = None) -> None:
        """Change what consumers can discover of a service."""
        deployment = self._all.get(service)
        if deployment is None:
            return
        if (deployment.nf_status, deployment.selection) != (nf_status, selection):
            await self.change(service, nf_status=nf_status, selection=selection)
        await self.register(service)

    async def withdraw(self, service: str) -> None:
        """Take the NF instances from the NRF and send no heartbeat any more; the host runs on."""
        deployment = self._all[service]
        if deployment.state != "REMOVING":
            deployment = await self.change(service, state="REMOVING")
        await self._instances.deregister(deployment)

    async def clear(self, service: str) -> None:
        """Deregister, end the host, delete store and software; nothing to do if there is no such deployment."""
        await self._unbroken.run(service, lambda: self._clear(service))

    async def _clear(self, service: str) -> None:
        deployment = self._all.get(service)
        if deployment is None:
            return
        await self._instances.deregister(deployment)
        await self._hosts.remove(service)
        if self.hosted(deployment.package_digest) == 1 and deployment.package_dir:
            await asyncio.to_thread(shutil.rmtree, deployment.package_dir, ignore_errors=True)
        del self._all[service]
        await self._journal.drop("deployment", service)
        await self.stores.forget(service)

    async def change(self, service: str, **changes: Any) -> Deployment:
        """Change fields of a deployment, durably."""
        deployment: Deployment = msgspec.structs.replace(self._all[service], **changes)
        await self._put(deployment)
        return deployment

    async def _put(self, deployment: Deployment) -> None:
        self._all[deployment.service] = deployment
        await self._journal.put("deployment", deployment.service, msgspec.json.encode(deployment))

    # ----------------------------------------------------------------------------------------- heartbeats

    async def _beat(self) -> None:
        """Keep every registered instance alive; one that the NRF has forgotten is registered again."""
        while True:
            await self._clock.sleep(self._timer_s / 3)
            for deployment in self.all():
                if deployment.state != "RUNNING":
                    continue
                try:
                    if not await self._instances.heartbeat(deployment):
                        await self.register(deployment.service)
                except (Unreachable, Refused) as error:
                    log.warning("heartbeat.failed", service=deployment.service, why=str(error))


def host_failed(service: str, error: HostFailed) -> Refusal:
    """The refusal of a host that does not come up."""
    if isinstance(error, StoreLost):
        return error.refusal
    return Refusal("HOST_FAILED", str(error), {"service": service}, "Read the host's log.", status=500)


def _exists(deployment: Deployment) -> Refusal:
    return Refusal(
        "SERVICE_EXISTS",
        f"{deployment.service} {deployment.version} runs here already.",
        {"service": deployment.service, "packageDigest": deployment.package_digest, "home": deployment.home},
        f"`outrider service remove {deployment.service}` first.",
        status=409,
    )


def _unknown(service: str) -> Refusal:
    return Refusal("SERVICE_UNKNOWN", f"No service {service} runs at this network.", {"service": service}, status=404)
