"""APIs for the own network: catalogue, deployments, permissions, migrations; `policing` adds the policy's."""

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec

from outrider.core import limits
from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf import audit_api, policing, shown
from outrider.functions.lmsf.catalogue import archive_range, byte_range, check_digest
from outrider.functions.lmsf.engine import Lmsf
from outrider.functions.lmsf.images import Restore
from outrider.functions.lmsf.negotiation import Wanted
from outrider.functions.lmsf.record import Deployment, Package
from outrider.functions.lmsf.runner import Runner
from outrider.sbi.http import Handler, Request, Response
from outrider.sbi.problem import json_response, refusal_response

Add = Callable[[str, str, Handler], None]

_CATALOGUE, _PERMISSION, _MIGRATION = "/nlmsf-catalogue/v1", "/nlmsf-permission/v1", "/nlmsf-migration/v1"


class _Onboard(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    sha256: str


class _Deploy(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    package_digest: str


class _Stop(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    cause: Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")] = "OPERATOR_ABORT"
    sentence: Annotated[str, msgspec.Meta(max_length=400)] = ""


class _Lost(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    store_id: str
    sentence: Annotated[str, msgspec.Meta(max_length=400)] = ""


class _Anew(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    accept_loss: Literal[True]
    by: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    sentence: Annotated[str, msgspec.Meta(max_length=400)] = ""


class _Back(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    sentence: Annotated[str, msgspec.Meta(max_length=400)] = ""


def routes(lmsf: Lmsf, add: Add) -> None:
    """Add everything that the own network may ask."""
    api = Operator(lmsf)
    add("GET", f"{_CATALOGUE}/uploads/{{sha256}}", api.upload_state)
    add("PUT", f"{_CATALOGUE}/uploads/{{sha256}}", api.upload)
    add("POST", f"{_CATALOGUE}/packages", api.onboard)
    add("GET", f"{_CATALOGUE}/packages", api.packages)
    add("GET", f"{_CATALOGUE}/packages/{{packageDigest}}", api.package)
    add("DELETE", f"{_CATALOGUE}/packages/{{packageDigest}}", api.drop_package)
    add("GET", f"{_CATALOGUE}/packages/{{packageDigest}}/archive", api.archive)
    add("GET", f"{_CATALOGUE}/packages/{{packageDigest}}/impact", api.impact)
    add("POST", f"{_CATALOGUE}/packages/{{packageDigest}}/withdraw", api.withdraw)
    add("POST", f"{_CATALOGUE}/deployments", api.deploy)
    add("GET", f"{_CATALOGUE}/deployments", api.services)
    add("GET", f"{_CATALOGUE}/deployments/{{service}}", api.service)
    add("DELETE", f"{_CATALOGUE}/deployments/{{service}}", api.remove)
    add("POST", f"{_CATALOGUE}/deployments/{{service}}/begin-anew", api.begin_anew)
    add("POST", f"{_CATALOGUE}/deployments/{{service}}/image", api.save)
    add("GET", f"{_CATALOGUE}/images/{{imageId}}", api.image)
    add("DELETE", f"{_CATALOGUE}/images/{{imageId}}", api.drop_image)
    add("GET", f"{_CATALOGUE}/images/{{imageId}}/content", api.image_content)
    add("POST", f"{_CATALOGUE}/restorations", api.restore)
    add("POST", f"{_PERMISSION}/permissions", api.add_permission)
    add("GET", f"{_PERMISSION}/permissions", api.permissions)
    add("GET", f"{_PERMISSION}/permissions/{{permissionId}}", api.permission)
    add("POST", f"{_PERMISSION}/revocations", api.revoke)
    add("POST", f"{_MIGRATION}/migrations", api.begin)
    add("GET", f"{_MIGRATION}/migrations", api.migrations)
    add("GET", f"{_MIGRATION}/migrations/{{migrationId}}", api.migration)
    add("GET", f"{_MIGRATION}/migrations/{{migrationId}}/events", api.events)
    add("GET", f"{_MIGRATION}/migrations/{{migrationId}}/contract", api.contract)
    add("POST", f"{_MIGRATION}/migrations/{{migrationId}}/abort", api.abort)
    add("POST", f"{_MIGRATION}/migrations/{{migrationId}}/return", api.send_home)
    add("POST", f"{_MIGRATION}/migrations/{{migrationId}}/declare-lost", api.declare_lost)
    policing.routes(lmsf, add)
    audit_api.operator_routes(lmsf, add)


class Operator:
    """The handlers."""

    def __init__(self, lmsf: Lmsf) -> None:
        self._lmsf = lmsf

    # ------------------------------------------------------------------------------------------ catalogue

    async def upload_state(self, request: Request) -> Response:
        """How much of an upload has come, so that it can go on there."""
        return json_response(200, {"receivedBytes": self._lmsf.catalogue.uploaded(request.params["sha256"])})

    async def upload(self, request: Request) -> Response:
        """One range of an archive."""
        first, last, total = byte_range(request.headers.get("content-range"), total=True)
        size = len(request.body)
        if last + 1 - first != size or size > limits.CATALOGUE_RANGE_BYTES:
            sentence = f"The range says {last + 1 - first} bytes, the body has {size}."
            most = f"Send what the range says, {limits.CATALOGUE_RANGE_BYTES} bytes at most."
            return refusal_response(Refusal("INVALID_RANGE", sentence, {"bodyBytes": str(size)}, most, status=400))
        received = await self._lmsf.catalogue.upload(request.params["sha256"], first, total, request.body)
        return json_response(200, {"receivedBytes": received})

    async def onboard(self, request: Request) -> Response:
        """Verify an upload that has come whole, and take it into the catalogue."""
        wanted = msgspec.json.decode(request.body, type=_Onboard)
        package = await self._lmsf.catalogue.onboard(wanted.sha256)
        where = [("location", f"{_CATALOGUE}/packages/{package.digest}")]
        return json_response(201, self._package(package), where)

    async def packages(self, request: Request) -> Response:
        """Every package."""
        return json_response(200, {"packages": [self._package(p) for p in self._lmsf.catalogue.all()]})

    def _package(self, package: Package) -> shown.PackageInfo:
        lmsf = self._lmsf
        return shown.package(package, lmsf.network, lmsf.permissions, lmsf.deployments, lmsf.all())

    def _find_package(self, digest: str) -> Package:
        package = self._lmsf.catalogue.get(digest)
        if package is None:
            raise Refused(Refusal("PACKAGE_UNKNOWN", "The catalogue has no such package.", status=404))
        return package

    async def package(self, request: Request) -> Response:
        """One package, with what speaks against it now."""
        package = self._find_package(request.params["packageDigest"])
        against = await self._lmsf.catalogue.against(package.digest)
        try:
            findings = await self._lmsf.catalogue.findings(package.digest)
        except Refused:  # it stands in `against` that what is known cannot be read
            findings = []
        return json_response(200, msgspec.structs.replace(self._package(package), against=against, findings=findings))

    async def impact(self, request: Request) -> Response:
        """What deploying a package here would do; nothing is done."""
        package = self._find_package(request.params["packageDigest"])
        return json_response(200, await self._lmsf.deployments.impact(package))

    async def withdraw(self, request: Request) -> Response:
        """Begin nothing new with a package; what runs from it goes on."""
        stop = msgspec.json.decode(request.body or b"{}", type=_Back)
        package = await self._lmsf.catalogue.withdraw(request.params["packageDigest"], stop.sentence)
        return json_response(200, self._package(package))

    async def drop_package(self, request: Request) -> Response:
        """Delete a package that nothing runs from."""
        digest = check_digest(request.params["packageDigest"])
        if self._lmsf.deployments.hosted(digest):
            sentence = "A service runs from this package."
            return refusal_response(Refusal("PACKAGE_IN_USE", sentence, {"packageDigest": digest}, status=409))
        await self._lmsf.catalogue.drop(digest)
        return Response(204)

    async def archive(self, request: Request) -> Response:
        """A range of an archive."""
        return await archive_range(self._lmsf.catalogue, request)

    async def deploy(self, request: Request) -> Response:
        """Run a package of this operator."""
        wanted = msgspec.json.decode(request.body, type=_Deploy)
        package = self._find_package(wanted.package_digest)
        against = await self._lmsf.catalogue.against(package.digest)
        if against:
            return refusal_response(*against)
        deployment = await self._lmsf.deployments.deploy(package)
        if isinstance(deployment, Refusal):
            return refusal_response(deployment)
        where = [("location", f"{_CATALOGUE}/deployments/{deployment.service}")]
        return json_response(201, self._shown(deployment), where)

    async def services(self, request: Request) -> Response:
        """Every service that runs here."""
        return json_response(200, {"deployments": [self._shown(d) for d in self._lmsf.deployments.all()]})

    async def service(self, request: Request) -> Response:
        """One service, with what its keeper says of itself."""
        name = request.params["service"]
        deployment = self._lmsf.deployments.get(name)
        if deployment is None:
            return refusal_response(_no_service(name))
        value = shown.as_json(self._shown(deployment))
        value["keeper"] = await self._lmsf.keepers.described(name)
        return json_response(200, value)

    async def remove(self, request: Request) -> Response:
        """End a service of this operator and delete its state."""
        name = request.params["service"]
        busy = self._lmsf.live(name)
        if busy is not None:
            sentence = f"{name} is in migration {busy.id}; it is removed when that is over."
            return refusal_response(Refusal("SERVICE_MIGRATING", sentence, {"migrationId": busy.id}, status=409))
        removing = await self._lmsf.deployments.remove(name)
        if isinstance(removing, Refusal):
            return refusal_response(removing)
        return json_response(202, self._shown(removing))

    async def begin_anew(self, request: Request) -> Response:
        """Give up the lost store of a service of this operator: it begins again with nothing."""
        name, wanted = request.params["service"], msgspec.json.decode(request.body, type=_Anew)
        if self._lmsf.images.busy(name):
            sentence = f"{name} is being saved or restored already."
            return refusal_response(Refusal("SERVICE_BUSY", sentence, {"service": name}, status=409))
        begun = await self._lmsf.anew.begin(name, by=wanted.by, sentence=wanted.sentence)
        if isinstance(begun, Refusal):
            return refusal_response(begun)
        return json_response(202, self._shown(begun))

    def _shown(self, deployment: Deployment) -> shown.ServiceInfo:
        against = self._lmsf.catalogue.revoked(deployment.package_digest)
        return shown.service(deployment, self._lmsf.deployments, self._lmsf.anew, against)

    async def save(self, request: Request) -> Response:
        """Begin to save a service at rest."""
        info = self._lmsf.images.save(request.params["service"])
        return json_response(202, info, [("location", f"{_CATALOGUE}/images/{info.image_id}")])

    async def image(self, request: Request) -> Response:
        """How far an image is."""
        return json_response(200, self._lmsf.images.get(request.params["imageId"]))

    async def drop_image(self, request: Request) -> Response:
        """Delete an image, as a rule after it was fetched."""
        await self._lmsf.images.drop(self._lmsf.images.get(request.params["imageId"]).image_id)
        return Response(204)

    async def image_content(self, request: Request) -> Response:
        """A range of an image."""
        return await self._lmsf.images.read(request.params["imageId"], request)

    async def restore(self, request: Request) -> Response:
        """Bring a service to life from an uploaded image."""
        wanted = msgspec.json.decode(request.body, type=Restore)
        deployment = await self._lmsf.images.restore(wanted.sha256, wanted.signer)
        where = [("location", f"{_CATALOGUE}/deployments/{deployment.service}")]
        return json_response(201, self._shown(deployment), where)

    # ---------------------------------------------------------------------------------------- permissions

    async def add_permission(self, request: Request) -> Response:
        """Keep a signed permission."""
        permission = await self._lmsf.permissions.add(request.body.decode(errors="replace"))
        where = [("location", f"{_PERMISSION}/permissions/{permission.id}")]
        return json_response(201, self._lmsf.permissions.get(permission.id), where)

    async def permissions(self, request: Request) -> Response:
        """Every permission that is known here."""
        return json_response(200, {"permissions": self._lmsf.permissions.all()})

    async def permission(self, request: Request) -> Response:
        """One permission."""
        view = self._lmsf.permissions.get(request.params["permissionId"])
        if view is None:
            return refusal_response(Refusal("PERMISSION_UNKNOWN", "No such permission is known here.", status=404))
        return json_response(200, view)

    async def revoke(self, request: Request) -> Response:
        """Keep a signed revocation; what depends on the permission ends or goes back at once."""
        envelope = request.body.decode(errors="replace")
        revocation = await self._lmsf.permissions.revoke(envelope)
        if revocation.signer == self._lmsf.network:
            self._lmsf.spread(envelope)
        await self._lmsf.looked()
        return json_response(201, revocation)

    # ----------------------------------------------------------------------------------------- migrations

    def _find(self, request: Request) -> Runner:
        migration_id = request.params["migrationId"]
        runner = self._lmsf.get(migration_id)
        if runner is None:
            raise Refused(
                Refusal(
                    "MIGRATION_UNKNOWN",
                    f"No migration {migration_id[:80]} is known at this network.",
                    remedy="`outrider migration list` shows those that are.",
                    status=404,
                )
            )
        return runner

    async def begin(self, request: Request) -> Response:
        """Begin a migration."""
        wanted = msgspec.json.decode(request.body, type=Wanted)
        runner = await self._lmsf.begin(wanted)
        if isinstance(runner, Refusal):
            return refusal_response(runner)
        return json_response(201, shown.migration(runner), [("location", f"{_MIGRATION}/migrations/{runner.id}")])

    async def migrations(self, request: Request) -> Response:
        """Every migration, the newest first."""
        return json_response(200, {"migrations": [shown.migration(r) for r in self._lmsf.all()]})

    async def migration(self, request: Request) -> Response:
        """One migration, both sides."""
        return json_response(200, shown.migration(self._find(request)))

    async def events(self, request: Request) -> Response:
        """What happened to a migration at this network, in order."""
        events = await self._lmsf.journal.events(self._find(request).id)
        return json_response(
            200, {"events": [{"atMs": e.at_ms, "event": e.event, "phase": e.phase, "why": e.why} for e in events]}
        )

    async def contract(self, request: Request) -> Response:
        """The contract, and its envelope with the signatures."""
        runner = self._find(request)
        return json_response(200, {"contract": runner.contract, "envelope": runner.record.contract})

    async def abort(self, request: Request) -> Response:
        """Stop a migration; one that has ended already stays as it is."""
        runner = self._find(request)
        stop = msgspec.json.decode(request.body or b"{}", type=_Stop)
        sentence = stop.sentence or f"the operator of {self._lmsf.network} has stopped it"
        await self._lmsf.abort(runner, stop.cause, sentence)
        return json_response(202, shown.migration(runner))

    async def send_home(self, request: Request) -> Response:
        """Bring every UE home and retire the service at the target."""
        runner = self._find(request)
        back = msgspec.json.decode(request.body or b"{}", type=_Back)
        sentence = back.sentence or f"the operator of {self._lmsf.network} asks for it"
        refusal = await self._lmsf.send_home(runner, sentence)
        return refusal_response(refusal) if refusal is not None else json_response(202, shown.migration(runner))

    async def declare_lost(self, request: Request) -> Response:
        """The partner's store is gone for good: bring back what it had, as far as it is known here."""
        runner = self._find(request)
        lost = msgspec.json.decode(request.body, type=_Lost)
        refusal = await self._lmsf.declare_lost(runner, lost.store_id, lost.sentence)
        return refusal_response(refusal) if refusal is not None else json_response(202, shown.migration(runner))


def _no_service(name: str) -> Refusal:
    return Refusal("SERVICE_UNKNOWN", f"No service {name} runs at this network.", {"service": name}, status=404)
