"""OAuth2 access tokens between NF services (TS 29.510 §6.3, TS 33.501 §13.4.1): issued, verified, fetched."""

import asyncio
import time
from collections.abc import Callable, Mapping, Set
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal, Refused
from outrider.sbi import headers, jose
from outrider.sbi.assertion import CcaSigner
from outrider.sbi.client import SbiClient, Unreachable
from outrider.sbi.problem import SCOPE_INSUFFICIENT, TOKEN_INVALID, TOKEN_MISSING, refusal_from

TOKEN_TTL_S = 600
"""Lifetime of a token: long enough to be rare work, short enough that a removed consumer is soon out."""

LEEWAY_S = 2.0
"""How far the clocks of the issuer and the verifier may differ; in one network they are the same machine or NTP."""

REFRESH_S = 30.0
"""A token is fetched anew when less than this is left of it."""

CACHE_TOKENS = 4_096
"""Verified tokens remembered; verifying costs about 90 µs, a look-up half of one."""

Plmn = Mapping[str, str]
"""`PlmnId` or, with `nid`, `PlmnIdNid` of TS 29.571, as JSON."""


class Claims(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """`AccessTokenClaims` of TS 29.510, and the consumer's NF type, which the standard leaves to the verifier's NRF."""

    iss: str
    sub: str
    aud: str | list[str]
    scope: str
    exp: int
    iat: int | None = None
    nbf: int | None = None
    consumer_plmn_id: dict[str, str] | None = None
    consumer_snpn_id: dict[str, str] | None = None
    producer_plmn_id: dict[str, str] | None = None
    producer_snpn_id: dict[str, str] | None = None
    sub_nf_type: str | None = None

    @property
    def scopes(self) -> list[str]:
        """What the token allows, one scope each."""
        return self.scope.split(" ")

    @property
    def consumer(self) -> NetworkId | None:
        """The consumer's network, if the token names it."""
        return _network(self.consumer_snpn_id or self.consumer_plmn_id)

    @property
    def producer(self) -> NetworkId | None:
        """The network whose producers the token is for, if it names it."""
        return _network(self.producer_snpn_id or self.producer_plmn_id)


def _network(plmn: Plmn | None) -> NetworkId | None:
    if plmn is None:
        return None
    try:
        nid = plmn.get("nid")
        return NetworkId(plmn["mcc"], plmn["mnc"], nid.lower() if nid else None)
    except KeyError:
        return None


class TokenIssuer:
    """Signs access tokens with the NRF's key."""

    def __init__(
        self, private_key_pem: str | bytes, issuer: str, network: NetworkId, *, now_s: Callable[[], float] = time.time
    ) -> None:
        self.issuer = issuer
        self._key = jose.import_key(private_key_pem)
        if not self._key.is_private:
            raise ValueError("tokens are signed with a private key, this is a public one")
        self._network = network
        self._now_s = now_s

    def issue(
        self,
        *,
        subject: str,
        audience: str | list[str],
        scope: str,
        subject_type: str | None = None,
        consumer_plmn: Plmn | None = None,
        producer_plmn: Plmn | None = None,
        ttl_s: int = TOKEN_TTL_S,
    ) -> str:
        """A token for `subject`, to be shown to `audience`: an NF type, or a list of NF instance ids.

        The producer's network is this issuer's unless said otherwise.
        """
        now = int(self._now_s())
        consumer = dict(consumer_plmn) if consumer_plmn else None
        producer = dict(producer_plmn or self._network.plmn_id())
        return jose.sign(
            Claims(
                iss=self.issuer,
                sub=subject,
                aud=audience,
                scope=scope,
                exp=now + ttl_s,
                iat=now,
                consumer_plmn_id=consumer if consumer and "nid" not in consumer else None,
                consumer_snpn_id=consumer if consumer and "nid" in consumer else None,
                producer_plmn_id=producer if "nid" not in producer else None,
                producer_snpn_id=producer if "nid" in producer else None,
                sub_nf_type=subject_type,
            ),
            self._key,
        )


class _Known(NamedTuple):
    """A token whose signature held, and what is asked of it each time."""

    claims: Claims
    from_s: float
    until_s: float
    audience: list[str]
    scopes: list[str]

    @classmethod
    def of(cls, claims: Claims) -> "_Known":
        from_s = max(claims.nbf or 0, claims.iat or 0) - LEEWAY_S
        until_s = claims.exp + LEEWAY_S if (claims.iat or 0) <= claims.exp else 0.0
        audience = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        return cls(claims, from_s, until_s, audience, claims.scopes)


class TokenVerifier:
    """Checks access tokens against the keys of known issuers, and remembers those whose signature held.

    `network`, where given, must be the producer's network in every token that names one.
    """

    def __init__(
        self,
        keys_pem: Mapping[str, str | bytes],
        *,
        network: NetworkId | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._keys = {issuer: jose.import_key(pem) for issuer, pem in keys_pem.items()}
        self._network = network
        self._now_s = now_s
        self._known: dict[str, _Known] = {}

    def verify(
        self, authorization: str | None, *, audience: Set[str], scope: str, now_s: float | None = None
    ) -> Claims | Refusal:
        """The claims of the bearer token in an `Authorization` header, or why it does not allow `scope`.

        `audience` is who we are: our NF type and our NF instance id.
        """
        if authorization is None:
            return _missing()
        known = self._known.get(authorization)
        if known is None:
            if authorization[:7].lower() != "bearer ":
                return _missing()
            try:
                claims = self._proved(authorization[7:].strip())
            except jose.BadToken as error:
                return _invalid(str(error))
            if len(self._known) >= CACHE_TOKENS:
                del self._known[next(iter(self._known))]
            known = self._known[authorization] = _Known.of(claims)
        now = self._now_s() if now_s is None else now_s
        if known.from_s <= now < known.until_s and not audience.isdisjoint(known.audience) and scope in known.scopes:
            return known.claims
        return self._why_not(known.claims, authorization, audience, scope, now)

    def _why_not(self, claims: Claims, authorization: str, audience: Set[str], scope: str, now: float) -> Refusal:
        if claims.exp + LEEWAY_S <= now:
            self._known.pop(authorization, None)
            return _invalid("It has expired.", exp=str(claims.exp))
        if claims.nbf is not None and claims.nbf - LEEWAY_S > now:
            return _invalid("It is not valid yet.", nbf=str(claims.nbf))
        if claims.iat is not None and (claims.iat - LEEWAY_S > now or claims.iat > claims.exp):
            return _invalid("It was issued in the future.", iat=str(claims.iat))
        meant_for = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        if audience.isdisjoint(meant_for):
            return _invalid("It is for another audience.", aud=" ".join(meant_for))
        return Refusal(
            SCOPE_INSUFFICIENT,
            f"The token does not allow {scope}.",
            {"scope": claims.scope},
            f"Ask the NRF for a token with scope {scope}.",
            403,
        )

    def _proved(self, token: str) -> Claims:
        issuer = jose.unverified(token, Claims).iss
        key = self._keys.get(issuer)
        if key is None:
            raise jose.BadToken(f"Its issuer {issuer} is not known here.")
        claims = jose.verified(token, key, Claims)
        if self._network is not None and claims.producer not in (None, self._network):
            raise jose.BadToken(f"It is for the producers of {claims.producer}.")
        return claims


def _missing() -> Refusal:
    return Refusal(TOKEN_MISSING, "The request carries no bearer token.", status=401)


def _invalid(sentence: str, **facts: str) -> Refusal:
    return Refusal(TOKEN_INVALID, f"The token is not accepted: {sentence}", facts, "Fetch a new token.", 401)


class _Fetched(NamedTuple):
    bearer: str
    exp_s: float


class _TokenAnswer(msgspec.Struct):
    access_token: str
    expires_in: int = TOKEN_TTL_S


_answer_decoder = msgspec.json.Decoder(_TokenAnswer)


class TokenSource:
    """Fetches this NF's tokens from its NRF and keeps each until shortly before it expires.

    `cca` proves who we are where the NRF demands it (TS 33.501 §13.3.8).
    """

    def __init__(
        self,
        client: SbiClient,
        nrf_root: str,
        nf_instance_id: str,
        nf_type: str,
        cca: CcaSigner | None = None,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._url = f"{nrf_root.rstrip('/')}/oauth2/token"
        self._nf_instance_id = nf_instance_id
        self._nf_type = nf_type
        self._cca = cca
        self._now_s = now_s
        self._fetched: dict[tuple[str, ...], _Fetched] = {}
        self._fetching: dict[tuple[str, ...], asyncio.Lock] = {}

    async def bearer(self, *, scope: str, target_nf_type: str, target_plmn: Plmn | None = None) -> str:
        """`Bearer …` for the `Authorization` header; `Refused` if the NRF says no, `Unreachable` if it says nothing."""
        network = sorted(target_plmn.items()) if target_plmn else ()
        key = (scope, target_nf_type, *(f"{name}={value}" for name, value in network))
        held = self._fetched.get(key)
        if held is not None and held.exp_s - self._now_s() > REFRESH_S:
            return held.bearer
        async with self._fetching.setdefault(key, asyncio.Lock()):  # callers that come together cause one request
            held = self._fetched.get(key)
            if held is not None and held.exp_s - self._now_s() > REFRESH_S:
                return held.bearer
            try:
                held = await self._fetch(scope, target_nf_type, target_plmn)
            except Unreachable:
                # An NRF that is away for a moment stops nobody whose token is still good.
                if held is not None and held.exp_s - self._now_s() > 0:
                    return held.bearer
                raise
            self._fetched[key] = held
            return held.bearer

    def forget(self) -> None:
        """Drop every token, as after a 401: the NRF may have a new key."""
        self._fetched.clear()

    async def _fetch(self, scope: str, target_nf_type: str, target_plmn: Plmn | None) -> _Fetched:
        form = {
            "grant_type": "client_credentials",
            "nfInstanceId": self._nf_instance_id,
            "nfType": self._nf_type,
            "targetNfType": target_nf_type,
            "scope": scope,
        }
        if target_plmn is not None:
            form["targetSnpn" if "nid" in target_plmn else "targetPlmn"] = msgspec.json.encode(target_plmn).decode()
        sent = [("content-type", "application/x-www-form-urlencoded")]
        if self._cca is not None:
            sent.append((headers.CLIENT_CREDENTIALS, self._cca.assertion()))
        asked_s = self._now_s()
        response = await self._client.request("POST", self._url, headers=sent, body=urlencode(form).encode())
        if response.status != 200:
            raise Refused(refusal_from(response, f"The NRF gave no token for {scope}."))
        answer = _answer_decoder.decode(response.body)
        return _Fetched(f"Bearer {answer.access_token}", asked_s + answer.expires_in)
