"""Nnrf_NFManagement for NF instances (TS 29.510 §5.2.2): register, replace, patch, read, list, deregister."""

import re
from typing import Any

import jsonpatch
import jsonpointer
import msgspec
from msgspec import UNSET, Struct, UnsetType

from outrider.core.ids import NetworkId
from outrider.functions.nrf.profile import (
    PROFILE_BYTES,
    BadProfile,
    Document,
    Profile,
    Uuid,
    read,
    with_both_forms,
)
from outrider.functions.nrf.store import Full, Instance, Registry
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import JSON, json_response, problem
from outrider.sbi.router import Router

HAL_JSON = "application/3gppHal+json"
JSON_PATCH = "application/json-patch+json"

PATCH_ITEMS = 128
"""Operations in one patch."""

PATCH_COPIES = 4
"""`copy` operations in one patch: each can double the document."""

_INSTANCES = "/nnrf-nfm/v1/nf-instances"
_HEARTBEAT_ADDITIONS = ("/load", "/loadTimeStamp")


class PatchItem(Struct, frozen=True, omit_defaults=True):
    """One operation of RFC 6902."""

    op: str
    path: str
    value: Any | UnsetType = UNSET
    from_: str | UnsetType = msgspec.field(name="from", default=UNSET)


class Management:
    """Serves `/nf-instances`."""

    def __init__(self, registry: Registry, network: NetworkId, api_root: str) -> None:
        self._registry = registry
        self._network = network
        self._root = f"{api_root}{_INSTANCES}"

    def routes(self, router: Router) -> None:
        """Serve the resources."""
        router.add("GET", _INSTANCES, self._list)
        for method, handler in (
            ("GET", self._get),
            ("PUT", self._put),
            ("PATCH", self._patch),
            ("DELETE", self._delete),
        ):
            router.add(method, _INSTANCES + "/{nfInstanceID}", handler)

    async def _put(self, request: Request) -> Response:
        identity = request.params["nfInstanceID"]
        if not _media_type(request).startswith(JSON):
            return problem(415, "UNSUPPORTED_MEDIA_TYPE", f"A profile is sent as {JSON}.")
        if len(request.body) > PROFILE_BYTES:
            return problem(413, "PAYLOAD_TOO_LARGE", f"A profile may have {PROFILE_BYTES} bytes.")
        document = request.json()
        try:
            if not isinstance(document, dict):
                raise BadProfile("INVALID_MSG_FORMAT", "/", "it is no JSON object")
            document = with_both_forms(document)
            profile = read(document)
            self._check(profile, identity)
            instance, created = self._registry.put(document)
        except BadProfile as bad:
            return _refused(bad)
        except Full:
            return problem(500, "INSUFFICIENT_RESOURCES", "The registry takes no more NF instances.")
        headers = [("etag", instance.etag)]
        if created:
            headers.append(("location", f"{self._root}/{instance.profile.nf_instance_id}"))
        return json_response(201 if created else 200, instance.document, headers)

    async def _patch(self, request: Request) -> Response:
        instance = self._find(request)
        if isinstance(instance, Response):
            return instance
        if _media_type(request) != JSON_PATCH:
            return problem(415, "UNSUPPORTED_MEDIA_TYPE", f"A profile is patched with {JSON_PATCH}.")
        expected = request.headers.get("if-match")
        if expected is not None and not _lists(expected, instance.etag):
            return problem(412, "PRECONDITION_FAILED", "The profile has changed since.", headers=_tag(instance))
        items = msgspec.json.decode(request.body, type=list[PatchItem])
        if not 0 < len(items) <= PATCH_ITEMS:
            return problem(400, "INVALID_MSG_FORMAT", f"A patch has 1 to {PATCH_ITEMS} operations.")
        try:
            patched = _applied(items, instance.document)
            # The attributes by which others know the instance stay as they are for its whole life.
            if not isinstance(patched, dict) or any(
                patched.get(name) != instance.document[name] for name in ("nfInstanceId", "nfType")
            ):
                return problem(403, "MODIFICATION_NOT_ALLOWED", "nfInstanceId and nfType of a profile cannot change.")
            document = with_both_forms(patched, before=instance.document)
            self._check(read(document), instance.profile.nf_instance_id)
        except BadProfile as bad:
            return _refused(bad)
        except jsonpatch.InvalidJsonPatch as error:
            return problem(400, "INVALID_MSG_FORMAT", f"The patch cannot be read: {error}")
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError) as error:
            return problem(409, "PATCH_CONFLICT", f"The patch does not fit the profile: {error}")
        if len(msgspec.json.encode(document)) > 2 * PROFILE_BYTES:  # in two forms
            return problem(413, "PAYLOAD_TOO_LARGE", f"A profile may have {PROFILE_BYTES} bytes.")
        self._registry.put(document)
        return Response(204)

    async def _get(self, request: Request) -> Response:
        instance = self._find(request)
        if isinstance(instance, Response):
            return instance
        if _lists(request.headers.get("if-none-match", ""), instance.etag):
            return Response(304, _tag(instance))
        return json_response(200, instance.document, _tag(instance))

    async def _delete(self, request: Request) -> Response:
        instance = self._find(request)
        if isinstance(instance, Response):
            return instance
        self._registry.remove(instance.identity)
        return Response(204)

    async def _list(self, request: Request) -> Response:
        args = request.args()
        nf_type = args.get("nf-type", [None])[0]
        numbers: dict[str, int | None] = {}
        for name in ("limit", "page-number", "page-size"):
            text = args.get(name, [None])[0]
            if text is not None and (not text.isascii() or not text.isdigit() or int(text) < 1):
                return problem(
                    400, "INVALID_QUERY_PARAM", invalid_params=[(f"query/{name}", "it is no positive number")]
                )
            numbers[name] = int(text) if text is not None else None
        instances = self._registry if nf_type is None else self._registry.of_type(nf_type)
        found = sorted(one.profile.nf_instance_id for one in instances)[: numbers["limit"]]
        total = len(found)
        if numbers["page-size"] is not None:
            start = ((numbers["page-number"] or 1) - 1) * numbers["page-size"]
            found = found[start : start + numbers["page-size"]]
        links: dict[str, Any] = {"self": {"href": self._root}}
        if found:
            links["item"] = [{"href": f"{self._root}/{identity}"} for identity in found]
        body = msgspec.json.encode({"_links": links, "totalItemCount": total})
        return Response(200, [("content-type", HAL_JSON)], body)

    def _find(self, request: Request) -> Instance | Response:
        identity = request.params["nfInstanceID"]
        instance = self._registry.get(identity)
        if instance is None:
            return problem(404, "NF_NOT_FOUND", f"No NF instance {identity} is registered.")
        return instance

    def _check(self, profile: Profile, identity: str) -> None:
        """What a profile must be in order to stand in this registry under this id."""
        try:
            msgspec.convert(identity, Uuid)
        except msgspec.ValidationError:
            raise BadProfile("INVALID_MSG_FORMAT", "nfInstanceID", "the resource's name is no UUID") from None
        if profile.nf_instance_id.lower() != identity.lower():
            raise BadProfile("MANDATORY_IE_INCORRECT", "/nfInstanceId", "it differs from the resource's name")
        named = [("/plmnList", profile.plmn_list), ("/snpnList", profile.snpn_list)]
        if any(networks for _, networks in named) and not any(
            plmn.network == self._network for _, networks in named for plmn in networks or ()
        ):
            pointer = next(pointer for pointer, networks in named if networks)
            raise BadProfile("OPTIONAL_IE_INCORRECT", pointer, f"the NF is not of this network, {self._network}")


def _applied(items: list[PatchItem], document: Document) -> Any:
    if sum(item.op == "copy" for item in items) > PATCH_COPIES:
        raise jsonpatch.InvalidJsonPatch(f"more than {PATCH_COPIES} copies")
    operations = []
    for item in items:
        try:
            jsonpointer.JsonPointer(item.path)
        except jsonpointer.JsonPointerException as error:
            raise jsonpatch.InvalidJsonPatch(str(error)) from None
        operation = msgspec.to_builtins(item)
        # Load is reported with heartbeats as a replacement, also by NFs that registered without one.
        if item.op == "replace" and item.path in _HEARTBEAT_ADDITIONS:
            operation["op"] = "add"
        operations.append(operation)
    return jsonpatch.JsonPatch(operations).apply(document)


def _media_type(request: Request) -> str:
    return re.split(r"[;,]", request.headers.get("content-type", ""), maxsplit=1)[0].strip().lower()


def _lists(validators: str, etag: str) -> bool:
    """Whether an `If-Match` or `If-None-Match` names an entity tag."""
    return any(one.strip() in ("*", etag) for one in validators.split(","))


def _tag(instance: Instance) -> list[tuple[str, str]]:
    return [("etag", instance.etag)]


def _refused(bad: BadProfile) -> Response:
    return problem(
        400, bad.cause, f"The profile is not accepted: {bad.reason}.", invalid_params=[(bad.pointer, bad.reason)]
    )
