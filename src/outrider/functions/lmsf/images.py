"""Services at rest: saved into one file while they run, and brought to life again at the same operator.

Saving does not stop the service: the copy of its contexts is one snapshot. What was acknowledged after that moment is
not in the image; whoever wants to move a service to another machine takes it out of use first. A service is saved, and
restored, only while all of it is at home and no migration of it is under way: then no other network holds anything of
it that the restored one would have to know (`store.image`).
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal
from uuid import uuid4

import msgspec
import structlog

from outrider.core import limits
from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf import image
from outrider.functions.lmsf.anew import Anew
from outrider.functions.lmsf.catalogue import Catalogue, byte_range, check_room
from outrider.functions.lmsf.deployments import Deployments, fits
from outrider.functions.lmsf.image import PACKAGE, STORE, Image, Meta
from outrider.functions.lmsf.ports import Clock, Hosts, Signer
from outrider.functions.lmsf.record import Deployment
from outrider.functions.lmsf.runner import Runner
from outrider.sbi.http import Request, Response
from outrider.store.image import revive
from outrider.store.port import StoreFault

log = structlog.get_logger(__name__)


class ImageInfo(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An image that is being saved, or waits to be fetched."""

    image_id: str
    service: str
    state: Literal["SAVING", "SAVED", "FAILED"]
    done_bytes: int = 0
    total_bytes: int = 0
    """Of the parts, before they are packed; 0 until the contexts are copied."""
    size_bytes: int = 0
    sha256: str = ""
    meta: Meta | None = None
    signed_by: str = ""
    """The fingerprint of the key that it is signed with."""
    refusal: Refusal | None = None


class Restore(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Which upload is to be restored, and the key that may have signed it beside the network's own."""

    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    signer: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")] | None = None


class Images:
    """The images of this network that are being made, and the way back."""

    def __init__(
        self,
        network: str,
        nf_types: frozenset[str],
        folder: Path,
        deployments: Deployments,
        catalogue: Catalogue,
        hosts: Hosts,
        signer: Signer,
        clock: Clock,
        live: Callable[[str], Runner | None],
        anew: Anew,
    ) -> None:
        """`live` finds the migration of a service that is not over, if there is one."""
        self._network = network
        self._nf_types = nf_types
        self._folder = folder
        self._deployments = deployments
        self._catalogue = catalogue
        self._hosts = hosts
        self._signer = signer
        self._clock = clock
        self._live = live
        self._anew = anew
        self._all: dict[str, ImageInfo] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._restoring: set[str] = set()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in folder.iterdir():  # of an earlier life: nobody knows their names any more
            left.unlink()

    async def stop(self) -> None:
        """Stop saving."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def busy(self, service: str) -> bool:
        """Whether a service is being saved or restored: no migration of it begins meanwhile."""
        saving = any(i.service == service and i.state == "SAVING" for i in self._all.values())
        return saving or service in self._restoring

    def get(self, image_id: str) -> ImageInfo:
        """One image; refused if there is none."""
        found = self._all.get(image_id)
        if found is None:
            raise Refused(Refusal("IMAGE_UNKNOWN", "There is no such image here.", status=404))
        return found

    # ---------------------------------------------------------------------------------------------- saving

    def save(self, service: str) -> ImageInfo:
        """Begin to save a service; refused for what is known at once."""
        deployment = self._deployments.get(service)
        if deployment is None:
            sentence = f"No service {service} runs at this network."
            raise Refused(Refusal("SERVICE_UNKNOWN", sentence, {"service": service}, status=404))
        if deployment.migration_id is not None:
            sentence = f"{service} belongs to {deployment.home} and is hosted here under a migration."
            facts = {"home": deployment.home, "migrationId": deployment.migration_id}
            remedy = f"The operator of {deployment.home} saves it."
            raise Refused(Refusal("SERVICE_HOSTED", sentence, facts, remedy, status=409))
        if not deployment.package_dir or deployment.state in ("REMOVING", "STORE_LOST"):
            sentence = f"{service} does not run: {deployment.state.lower()}."
            raise Refused(Refusal("SERVICE_NOT_RUNNING", sentence, {"state": deployment.state}, status=409))
        self._check_idle(service)
        info = ImageInfo(image_id=str(uuid4()), service=service, state="SAVING")
        self._all[info.image_id] = info
        self._tasks[info.image_id] = asyncio.create_task(self._save(info.image_id, deployment), name=f"save {service}")
        return info

    async def _save(self, image_id: str, deployment: Deployment) -> None:
        copy, file, signer = self._folder / f"{image_id}.db", self._path(image_id), self._signer
        try:
            facts = await self._hosts.save(deployment.service, copy)
            archive = self._catalogue.archive(deployment.package_digest)
            parts = {name: await asyncio.to_thread(image.part_of, path) for name, path in _named(archive, copy)}
            total = sum(part.size_bytes for part in parts.values())
            check_room(self._folder, total)
            self._change(image_id, total_bytes=total)
            meta = Meta(
                service=deployment.service,
                version=deployment.version,
                home=deployment.home,
                package_digest=deployment.package_digest,
                architectures=deployment.manifest.architectures,
                python=deployment.manifest.python,
                store=facts,
                parts=parts,
                saved_ms=self._clock.now_ms(),
                operator_key=signer.public_pem.decode(),
            )
            await asyncio.to_thread(
                image.write, file, meta, archive, copy, signer, lambda size: self._advance(image_id, size)
            )
            whole = await asyncio.to_thread(image.part_of, file)
            said = {"sha256": whole.sha256, "size_bytes": whole.size_bytes, "meta": meta, "signed_by": meta.signer}
            self._change(image_id, state="SAVED", **said)
        except Refused as refused:
            self._change(image_id, state="FAILED", refusal=refused.refusal)
        except (StoreFault, OSError) as error:
            log.error("image.failed", service=deployment.service, why=str(error))
            refusal = Refusal("IMAGE_FAILED", f"The image could not be written: {error}", status=500)
            self._change(image_id, state="FAILED", refusal=refusal)
        finally:
            copy.unlink(missing_ok=True)
            if self._all[image_id].state != "SAVED":
                file.unlink(missing_ok=True)

    def _advance(self, image_id: str, size: int) -> None:
        self._change(image_id, done_bytes=self._all[image_id].done_bytes + size)

    def _change(self, image_id: str, **changes: object) -> None:
        self._all[image_id] = msgspec.structs.replace(self._all[image_id], **changes)

    def _path(self, image_id: str) -> Path:
        return self._folder / f"{image_id}.image"

    async def read(self, image_id: str, request: Request) -> Response:
        """A range of a saved image, cut at the bound of one answer."""
        info = self.get(image_id)
        first, last, _ = byte_range(request.headers.get("range"))
        if info.state != "SAVED" or first >= info.size_bytes:
            sentence = f"The image has {info.size_bytes} bytes."
            raise Refused(Refusal("RANGE_NOT_SATISFIABLE", sentence, {"state": info.state}, status=416))
        size = min(last + 1 - first, limits.CATALOGUE_RANGE_BYTES)

        def read() -> bytes:
            with self._path(image_id).open("rb") as file:
                file.seek(first)
                return file.read(size)

        body = await asyncio.to_thread(read)
        span = f"bytes {first}-{first + len(body) - 1}/{info.size_bytes}"
        return Response(206, [("content-type", "application/octet-stream"), ("content-range", span)], body)

    async def drop(self, image_id: str) -> None:
        """Delete an image; one that is being saved is not saved."""
        task = self._tasks.pop(image_id, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._all.pop(image_id, None)
        self._path(image_id).unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------- restoring

    async def restore(self, sha256: str, signer: str | None = None) -> Deployment:
        """Bring a service to life from an upload that has come whole, signed by this network or with that key."""
        upload = self._catalogue.uploaded_file(sha256)
        whole = await asyncio.to_thread(image.part_of, upload)
        if whole.sha256 != sha256:
            upload.unlink()
            sentence = "The image was damaged on the way."
            raise Refused(Refusal("DIGEST_MISMATCH", sentence, {"found": whole.sha256}, "Send it again."))
        with Image(upload) as saved:
            service = saved.meta.service
            self._check_new(saved.meta)
            saved.check_signer({image.key_id(self._signer.public_pem), signer or ""})
            self._restoring.add(service)
            try:
                deployment = await self._revive(saved)
            finally:
                self._restoring.discard(service)
        upload.unlink()
        return deployment

    def _check_new(self, meta: Meta) -> None:
        """Refuse what this network must not restore."""
        if meta.home != self._network:
            raise Refused(
                Refusal(
                    "IMAGE_OF_ANOTHER_NETWORK",
                    f"The image is of {meta.service} of {meta.home}; this network is {self._network}.",
                    {"home": meta.home, "network": self._network},
                    "A service is restored at its own operator; it comes to others by migration.",
                    status=409,
                )
            )
        known = self._deployments.get(meta.service)
        if known is not None and known.state == "STORE_LOST" and known.migration_id is None:
            refusal = self._anew.why_not(meta.service)
            if refusal is not None:
                raise Refused(refusal)
            self._check_free(meta.service)
            return
        self._check_idle(meta.service)
        if known is not None:
            raise Refused(
                Refusal(
                    "SERVICE_EXISTS",
                    f"{known.service} {known.version} is at this network already.",
                    {"service": known.service, "home": known.home, "state": known.state},
                    f"`outrider service remove {known.service}` first, if its state is not needed any more.",
                    status=409,
                )
            )

    def _check_idle(self, service: str) -> None:
        busy = self._live(service)
        if busy is not None:
            sentence = f"{service} is in migration {busy.id} with {busy.partner} ({busy.row.phase.value})."
            facts = {"migrationId": busy.id, "partner": busy.partner, "phase": busy.row.phase.value}
            remedy = f"`outrider migration return {busy.id}`, or wait until it is over."
            raise Refused(Refusal("SERVICE_MIGRATING", sentence, facts, remedy, status=409))
        self._check_free(service)

    def _check_free(self, service: str) -> None:
        if self.busy(service):
            sentence = f"{service} is being saved or restored already."
            raise Refused(Refusal("SERVICE_BUSY", sentence, {"service": service}, "Wait for its end.", status=409))

    async def _revive(self, saved: Image) -> Deployment:
        meta = saved.meta
        check_room(self._folder, 2 * sum(part.size_bytes for part in meta.parts.values()))
        known = {package.digest for package in self._catalogue.all()}
        archive = self._catalogue.upload_file(meta.parts[PACKAGE].sha256)
        await asyncio.to_thread(saved.extract, PACKAGE, archive)
        package = await self._catalogue.onboard(meta.parts[PACKAGE].sha256)
        copy = self._folder / f"{uuid4()}.db"
        try:
            if (package.digest, package.manifest.service) != (meta.package_digest, meta.service):
                raise image.malformed("its package is another than it says")
            if reasons := fits(package.manifest, self._nf_types):
                raise Refused(reasons[0])
            await asyncio.to_thread(saved.extract, STORE, copy)
            now_s = self._clock.now_ms() // 1000
            store_id = await asyncio.to_thread(revive, copy, meta.store, now_s=now_s)
            if self._deployments.get(meta.service) is not None:
                await self._hosts.set_aside(meta.service)
            await self._hosts.restore(meta.service, copy)
            await self._deployments.stores.begin(meta.service, store_id)
            deployment = await self._deployments.deploy(package)
            if isinstance(deployment, Refusal):
                await self._hosts.remove(meta.service)
                await self._deployments.stores.forget(meta.service)
                raise Refused(deployment)
        except BaseException:
            if package.digest not in known:
                await self._catalogue.drop(package.digest)
            raise
        finally:
            copy.unlink(missing_ok=True)
        return deployment


def _named(archive: Path, copy: Path) -> tuple[tuple[str, Path], ...]:
    return (PACKAGE, archive), (STORE, copy)
