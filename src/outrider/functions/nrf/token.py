"""Nnrf_AccessToken (TS 29.510 §5.4): OAuth2 client credentials, for our own NFs and for partners' NRFs."""

import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal
from outrider.functions.nrf.access import Requester, allows
from outrider.functions.nrf.profile import Plmn, Profile, Snssai, Uuid
from outrider.functions.nrf.remote import FORM, NO_STORE, Remote, forward_token
from outrider.functions.nrf.store import Instance, Registry
from outrider.sbi import headers
from outrider.sbi.assertion import CcaVerifier
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import JSON, json_response, problem
from outrider.sbi.tokens import TokenIssuer

FORM_BYTES = 16 * 1024
"""Largest token request."""

SCOPES = 16
"""Scopes in one token."""

_SCOPE = re.compile(r"^[a-zA-Z0-9_:-]+( [a-zA-Z0-9_:-]+)*$")
_NRF_SCOPES = {"nnrf-nfm", "nnrf-disc"}
_SENT_ON = ("grant_type", "nfInstanceId", "nfType", "targetNfType", "targetNfInstanceId", "scope")


class TokenError(Exception):
    """`AccessTokenErr`: one of OAuth2's error codes, and a sentence."""

    def __init__(self, error: str, sentence: str) -> None:
        super().__init__(sentence)
        self.error = error
        self.sentence = sentence


class ScopeSet:
    """A set of scopes, in which `nlmsf-*` stands for all that begin so."""

    def __init__(self, patterns: Collection[str]) -> None:
        self._exact = {one for one in patterns if not one.endswith("*")}
        self._prefixes = tuple(one[:-1] for one in patterns if one.endswith("*"))

    def __contains__(self, scope: str) -> bool:
        return scope in self._exact or scope.startswith(self._prefixes)


class TokenEndpoint:
    """Answers `POST /oauth2/token`.

    `privileged` scopes stand for Outrider's own functions: no producer need be registered for them, and one of our
    NFs that asks for one proves with an assertion that it is who it says, because such a token can move other
    people's state. Of those a partner gets `partner_scopes` and no other; its border has authenticated it.
    """

    def __init__(
        self,
        registry: Registry,
        issuer: TokenIssuer,
        network: NetworkId,
        *,
        privileged: Collection[str],
        partner_scopes: Collection[str],
        cca: CcaVerifier,
        remote: Remote | None,
        ttl_s: int,
    ) -> None:
        self._registry = registry
        self._issuer = issuer
        self._network = network
        self._privileged = ScopeSet(privileged)
        self._partner_scopes = ScopeSet(partner_scopes)
        self._cca = cca
        self._remote = remote
        self._ttl_s = ttl_s

    async def __call__(self, request: Request) -> Response:
        """A token for an NF of our own network, for producers here or elsewhere."""
        try:
            form = _form(request)
            scopes = _scopes(form)
            consumer = self._consumer(form)
            if any(scope in self._privileged for scope in scopes):
                proof = self._cca.verify(request.headers.get(headers.CLIENT_CREDENTIALS), subject=form["nfInstanceId"])
                if isinstance(proof, Refusal):
                    raise TokenError("invalid_client", proof.sentence)
            target = _target(form)
            if target not in (None, self._network):
                sent = {name: form[name] for name in _SENT_ON if name in form} | {"nfType": consumer.nf_type}
                return await forward_token(self._remote, self._network, target, sent)
            requester = Requester(
                consumer.nf_type, form.get("requesterFqdn") or consumer.fqdn, (self._network,), _snssais(form)
            )
            return self._token(form, scopes, requester, self._network)
        except TokenError as error:
            return _error(error)

    async def for_partner(self, partner: NetworkId, request: Request) -> Response:
        """A token for an NF of a partner, asked for by its NRF."""
        try:
            form = _form(request)
            scopes = _scopes(form)
            if set(_requester_networks(form)) != {partner}:
                return problem(
                    403,
                    "REQUESTER_NETWORK_NOT_ALLOWED",
                    f"{partner} asks for tokens for its own NFs only.",
                )
            if _target(form) not in (None, self._network):
                return problem(403, "TARGET_NETWORK_NOT_SERVED", f"{self._network} issues tokens for itself only.")
            for scope in scopes:
                if scope in self._privileged and scope not in self._partner_scopes:
                    raise TokenError("invalid_scope", f"{scope} is not for partners.")
            requester = Requester(form.get("nfType"), form.get("requesterFqdn"), (partner,), _snssais(form))
            return self._token(form, scopes, requester, partner)
        except TokenError as error:
            return _error(error)

    def _token(self, form: Mapping[str, str], scopes: list[str], requester: Requester, consumer: NetworkId) -> Response:
        audience = self._audience(form, scopes, requester)
        token = self._issuer.issue(
            subject=form["nfInstanceId"],
            subject_type=requester.nf_type,
            audience=audience,
            scope=form["scope"],
            consumer_plmn=consumer.plmn_id(),
            producer_plmn=self._network.plmn_id(),
            ttl_s=self._ttl_s,
        )
        return json_response(200, {"access_token": token, "token_type": "Bearer", "expires_in": self._ttl_s}, NO_STORE)

    def _consumer(self, form: Mapping[str, str]) -> Profile:
        """The registered NF that asks."""
        instance = self._registry.get(form["nfInstanceId"])
        if instance is None:
            raise TokenError("invalid_client", "The NF instance that asks is not registered.")
        if form.get("nfType", instance.profile.nf_type) != instance.profile.nf_type:
            raise TokenError("invalid_client", "The NF instance that asks is registered with another type.")
        return instance.profile

    def _audience(self, form: Mapping[str, str], scopes: list[str], requester: Requester) -> str | list[str]:
        """Whom the token is for, once every scope is one that they offer to the requester."""
        wanted = form.get("targetNfInstanceId")
        nf_type = form.get("targetNfType")
        if wanted is not None:
            producer = self._registry.get(wanted)
            producers = [producer] if producer is not None else []
            if nf_type is not None:
                producers = [one for one in producers if one.profile.nf_type == nf_type]
        elif nf_type is not None:
            producers = list(self._registry.of_type(nf_type))
        else:
            raise TokenError("invalid_request", "One of targetNfType and targetNfInstanceId is needed.")
        for scope in scopes:
            if scope in self._privileged or (scope in _NRF_SCOPES and nf_type == "NRF"):
                continue
            if not any(self._offers(one, scope, requester) for one in producers):
                raise TokenError("invalid_scope", f"No producer that is meant offers {scope} to this requester.")
        if wanted is None:
            assert nf_type is not None
            return nf_type
        return [wanted]

    def _offers(self, producer: Instance, scope: str, requester: Requester) -> bool:
        profile = producer.profile
        return any(
            service.service_name == scope and allows(profile, service, requester, self._network)
            for service in profile.nf_service_list.values()
        )


def _form(request: Request) -> dict[str, str]:
    """The form's parameters, each at most once."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise TokenError("invalid_request", f"A token is asked for with {FORM}.")
    if len(request.body) > FORM_BYTES:
        raise TokenError("invalid_request", f"A token request may have {FORM_BYTES} bytes.")
    try:
        pairs = parse_qsl(
            request.body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            max_num_fields=64,
            errors="strict",
        )
    except ValueError as error:
        raise TokenError("invalid_request", f"The form cannot be read: {error}.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise TokenError("invalid_request", "A parameter is there twice.")
    match form.get("grant_type"):
        case "client_credentials":
            pass
        case None:
            raise TokenError("invalid_request", "grant_type is missing.")
        case _:
            raise TokenError("unsupported_grant_type", "grant_type is not client_credentials.")
    for name in ("nfInstanceId", "targetNfInstanceId"):
        if name == "nfInstanceId" or name in form:
            _json(name, msgspec.json.encode(form.get(name)), Uuid)
    return form


def _scopes(form: Mapping[str, str]) -> list[str]:
    text = form.get("scope")
    if text is None:
        raise TokenError("invalid_request", "scope is missing.")
    if not _SCOPE.match(text) or len(text.split(" ")) > SCOPES:
        raise TokenError("invalid_scope", "scope is no list of scopes.")
    scopes = text.split(" ")
    if any(":" in scope for scope in scopes):
        # They would widen what a producer allows per consumer (allowedOperationsPerNfType), which is not kept here.
        raise TokenError("invalid_scope", "Scopes for single operations are not issued here.")
    return scopes


def _target(form: Mapping[str, str]) -> NetworkId | None:
    """The producers' network, if the form names one."""
    named = [form[name] for name in ("targetPlmn", "targetSnpn") if name in form]
    if len(named) > 1:
        raise TokenError("invalid_request", "targetPlmn and targetSnpn exclude each other.")
    plmn: Plmn | None = _json("targetPlmn or targetSnpn", named[0].encode(), Plmn) if named else None
    return plmn.network if plmn else None


def _requester_networks(form: Mapping[str, str]) -> list[NetworkId]:
    found: list[Plmn] = []
    if "requesterPlmn" in form:
        found.append(_json("requesterPlmn", form["requesterPlmn"].encode(), Plmn))
    for name in ("requesterPlmnList", "requesterSnpnList"):
        if name in form:
            found.extend(_json(name, form[name].encode(), list[Plmn]))
    return [one.network for one in found]


def _snssais(form: Mapping[str, str]) -> tuple[Snssai, ...]:
    if "requesterSnssaiList" not in form:
        return ()
    return tuple(_json("requesterSnssaiList", form["requesterSnssaiList"].encode(), list[Snssai]))


def _json(name: str, text: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise TokenError("invalid_request", f"{name}: {error}.") from None


def _error(error: TokenError) -> Response:
    body = msgspec.json.encode({"error": error.error, "error_description": error.sentence})
    return Response(400, [("content-type", JSON), *NO_STORE], body)
