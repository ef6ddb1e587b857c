import asyncio
import base64
import hmac
import json
import time
from hashlib import sha256
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jws
from joserfc.jwk import ECKey

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal, Refused
from outrider.sbi import headers, tokens
from outrider.sbi.assertion import CcaSigner, CcaVerifier
from outrider.sbi.client import Unreachable
from outrider.sbi.http import Request, Response
from outrider.sbi.problem import SCOPE_INSUFFICIENT, TOKEN_INVALID, TOKEN_MISSING, json_response, problem
from outrider.sbi.tokens import TokenIssuer, TokenSource, TokenVerifier

NRF = "00000000-0000-4000-8000-000000000001"
CONSUMER = "00000000-0000-4000-8000-000000000002"
PRODUCER = "00000000-0000-4000-8000-000000000003"
HOME = NetworkId("999", "70")
SNPN = NetworkId("999", "71", "0123456789a")
NOW = 1_800_000_000


@pytest.fixture
def key(key_pair):
    return key_pair()


def fixed() -> float:
    return NOW


@pytest.fixture
def issuer(key):
    return TokenIssuer(key.private, NRF, HOME, now_s=fixed)


@pytest.fixture
def verifier(key):
    return TokenVerifier({NRF: key.public}, now_s=fixed)


def signed(key, header=None, **changes):
    """A token with every claim right, but for the changes; None removes a claim."""
    claims = {
        "iss": NRF,
        "sub": CONSUMER,
        "aud": "SMF",
        "scope": "nsmf-groupsession nsmf-event-exposure",
        "exp": NOW + 100,
        "iat": NOW,
    } | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    return jws.serialize_compact(
        {"alg": "ES256", "typ": "JWT"} | (header or {}), json.dumps(claims), ECKey.import_key(key.private), ["ES256"]
    )


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def check(verifier, token, *, audience=frozenset({"SMF", PRODUCER}), scope="nsmf-groupsession", **options):
    return verifier.verify(f"Bearer {token}", audience=audience, scope=scope, **options)


def test_an_issued_token_is_accepted_and_says_who_asks(issuer, verifier):
    token = issuer.issue(
        subject=CONSUMER,
        subject_type="AF",
        audience="SMF",
        scope="nsmf-groupsession",
        consumer_plmn=SNPN.plmn_id(),
        producer_plmn=HOME.plmn_id(),
        ttl_s=60,
    )
    claims = check(verifier, token)
    assert not isinstance(claims, Refusal)
    assert (claims.iss, claims.sub, claims.aud, claims.exp) == (NRF, CONSUMER, "SMF", NOW + 60)
    assert (claims.consumer, claims.producer, claims.sub_nf_type) == (SNPN, HOME, "AF")
    said = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert said["consumerSnpnId"] == {"mcc": "999", "mnc": "71", "nid": "0123456789a"}
    assert said["producerPlmnId"] == {"mcc": "999", "mnc": "70"}
    assert "consumerPlmnId" not in said
    assert "producerSnpnId" not in said


def test_a_token_for_instances_is_accepted_by_one_of_them(issuer, verifier):
    token = issuer.issue(subject=CONSUMER, audience=[PRODUCER, "other"], scope="nsmf-groupsession")
    assert not isinstance(check(verifier, token), Refusal)
    assert isinstance(check(verifier, token, audience={"SMF", "not-it"}), Refusal)


@pytest.mark.parametrize("authorization", [None, "", "Basic eDp5", "Bearer", "token"])
def test_a_request_without_a_bearer_token_is_asked_for_one(verifier, authorization):
    refusal = verifier.verify(authorization, audience={"SMF"}, scope="x")
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status) == (TOKEN_MISSING, 401)


def test_the_scheme_is_not_case_sensitive(key, verifier):
    answer = verifier.verify(f"bearer {signed(key)}", audience={"SMF"}, scope="nsmf-groupsession")
    assert not isinstance(answer, Refusal)


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "00000000-0000-4000-8000-00000000000f"},
        {"iss": None},
        {"iss": 7},
        {"sub": None},
        {"aud": None},
        {"aud": "AMF"},
        {"aud": [CONSUMER]},
        {"aud": []},
        {"aud": {"SMF": 1}},
        {"scope": None},
        {"scope": ["nsmf-groupsession"]},
        {"exp": None},
        {"exp": NOW - 3},
        {"exp": str(NOW + 100)},
        {"exp": -1},
        {"iat": NOW + 50},
        {"iat": NOW + 1, "exp": NOW},
        {"nbf": NOW + 50},
    ],
    ids=str,
)
def test_a_token_with_one_wrong_claim_is_invalid(key, verifier, change):
    refusal = check(verifier, signed(key, **change))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status) == (TOKEN_INVALID, 401)


@pytest.mark.parametrize("change", [{"exp": NOW - 1}, {"iat": NOW + 1}, {"nbf": NOW + 1}, {"nbf": NOW}], ids=str)
def test_clocks_may_differ_a_little(key, verifier, change):
    assert not isinstance(check(verifier, signed(key, **({"iat": NOW - 10} | change))), Refusal)


@pytest.mark.parametrize("scope", ["nsmf", "nsmf-groupsession:read", "", "nsmf-groupsession nsmf-event-exposure"])
def test_a_token_without_the_scope_is_insufficient(key, verifier, scope):
    refusal = check(verifier, signed(key), scope=scope)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status) == (SCOPE_INSUFFICIENT, 403)


def test_a_token_for_another_networks_producers_is_invalid(key):
    verifier = TokenVerifier({NRF: key.public}, network=HOME, now_s=fixed)
    assert not isinstance(check(verifier, signed(key)), Refusal)
    assert not isinstance(check(verifier, signed(key, producerPlmnId=HOME.plmn_id())), Refusal)
    assert isinstance(check(verifier, signed(key, producerSnpnId=SNPN.plmn_id())), Refusal)


def test_an_unsigned_token_is_invalid(key, verifier):
    _, payload, signature = signed(key).split(".")
    for algorithm in ("none", "None", "NONE"):
        head = b64(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
        for tail in ("", signature):
            assert isinstance(check(verifier, f"{head}.{payload}.{tail}"), Refusal)


def test_the_public_key_is_not_taken_for_a_shared_secret(key, verifier):
    _, payload, _ = signed(key).split(".")
    head = b64(b'{"alg":"HS256","typ":"JWT"}')
    mac = b64(hmac.new(key.public, f"{head}.{payload}".encode(), sha256).digest())
    assert isinstance(check(verifier, f"{head}.{payload}.{mac}"), Refusal)


def test_a_key_inside_the_token_is_not_believed(key, key_pair, verifier):
    forger = key_pair()
    own = ECKey.import_key(forger.public).as_dict(private=False)
    for header in ({"jwk": own}, {"jku": "http://127.0.0.1/keys"}, {"kid": NRF}):
        assert isinstance(check(verifier, signed(forger, header)), Refusal)


def test_a_header_that_must_be_understood_and_is_not_makes_it_invalid(key, verifier):
    _, payload, _ = signed(key).split(".")
    head = b64(b'{"alg":"ES256","crit":["b64x"],"b64x":true}')
    der = load_pem_private_key(key.private, None).sign(f"{head}.{payload}".encode(), ec.ECDSA(hashes.SHA256()))
    r, s = decode_dss_signature(der)
    assert isinstance(
        check(verifier, f"{head}.{payload}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"), Refusal
    )


def test_a_changed_payload_or_signature_is_invalid(key, verifier):
    head, payload, signature = signed(key).split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    other = b64(json.dumps(claims | {"scope": "everything nsmf-groupsession"}).encode())
    assert isinstance(check(verifier, f"{head}.{other}.{signature}"), Refusal)
    assert isinstance(check(verifier, f"{head}.{payload}.{b64(bytes(64))}"), Refusal)
    assert isinstance(check(verifier, f"{head}.{payload}.{signature[:-4]}"), Refusal)


@pytest.mark.parametrize(
    "token", ["", "a", "a.b", "a.b.c", "a.b.c.d", "..", "é.é.é", "x" * 100_000, "e30.e30.e30", "e30.W10.e30"]
)
def test_what_is_no_token_is_invalid(verifier, token):
    refusal = check(verifier, token)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 401


def test_a_remembered_token_still_expires_and_is_still_checked(key, verifier):
    token = signed(key)
    assert not isinstance(check(verifier, token), Refusal)
    assert isinstance(check(verifier, token, now_s=NOW + 103), Refusal)
    assert not isinstance(check(verifier, token), Refusal)
    assert isinstance(check(verifier, token, audience={"AMF"}), Refusal)
    assert isinstance(check(verifier, token, scope="other"), Refusal)


def test_a_remembered_token_is_not_proved_again(key, verifier, monkeypatch):
    token = signed(key)
    first = check(verifier, token)
    monkeypatch.setattr(tokens.jose, "verified", None)
    assert check(verifier, token) is first


def test_no_more_tokens_are_remembered_than_the_bound(key, verifier, monkeypatch):
    monkeypatch.setattr(tokens, "CACHE_TOKENS", 3)
    issued = [signed(key, sub=str(n)) for n in range(5)]
    for token in issued:
        assert not isinstance(check(verifier, token), Refusal)
    assert len(verifier._known) == 3


def test_only_p256_keys_sign(key, key_pair):
    with pytest.raises(ValueError, match="P-256"):
        TokenIssuer(key_pair(ec.SECP384R1()).private, NRF, HOME)
    with pytest.raises(ValueError, match="private"):
        TokenIssuer(key.public, NRF, HOME)


class Endpoint:
    """A token endpoint that counts, and can refuse."""

    def __init__(self, issuer: TokenIssuer) -> None:
        self.issuer = issuer
        self.forms: list[dict[str, str]] = []
        self.assertions: list[str | None] = []
        self.refuse: Response | None = None
        self.ttl_s = 600

    async def __call__(self, request: Request) -> Response:
        assert request.path == "/oauth2/token"
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"
        form = {name: values[0] for name, values in parse_qs(request.body.decode(), strict_parsing=True).items()}
        self.forms.append(form)
        self.assertions.append(request.headers.get(headers.CLIENT_CREDENTIALS))
        if self.refuse is not None:
            return self.refuse
        token = self.issuer.issue(subject=form["nfInstanceId"], audience=form["targetNfType"], scope=form["scope"])
        return json_response(200, {"access_token": token, "token_type": "Bearer", "expires_in": self.ttl_s})


class Clock:
    def __init__(self) -> None:
        self.s = float(NOW)

    def __call__(self) -> float:
        return self.s


@pytest.fixture
async def endpoint(serve, issuer):
    made = Endpoint(issuer)
    made.server = await serve(made)
    return made


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def source(client, endpoint, clock):
    return TokenSource(client, f"http://127.0.0.1:{endpoint.server.port}/", CONSUMER, "AF", now_s=clock)


async def test_a_token_is_fetched_once_for_all_who_want_it(source, endpoint, verifier):
    bearers = await asyncio.gather(*(source.bearer(scope="nsmf-groupsession", target_nf_type="SMF") for _ in range(20)))
    assert len(set(bearers)) == 1
    assert endpoint.forms == [
        {
            "grant_type": "client_credentials",
            "nfInstanceId": CONSUMER,
            "nfType": "AF",
            "targetNfType": "SMF",
            "scope": "nsmf-groupsession",
        }
    ]
    claims = verifier.verify(bearers[0], audience={"SMF"}, scope="nsmf-groupsession")
    assert not isinstance(claims, Refusal)


async def test_a_token_is_fetched_anew_shortly_before_it_expires(source, endpoint, clock):
    for at, fetched in ((0, 1), (569, 1), (571, 2), (900, 2)):
        clock.s = NOW + at
        await source.bearer(scope="a", target_nf_type="SMF")
        assert len(endpoint.forms) == fetched


async def test_each_scope_type_and_network_has_its_token(source, endpoint):
    for _ in range(2):
        await source.bearer(scope="a", target_nf_type="SMF")
        await source.bearer(scope="b", target_nf_type="SMF")
        await source.bearer(scope="a", target_nf_type="AMF")
        await source.bearer(scope="a", target_nf_type="SMF", target_plmn=HOME.plmn_id())
        await source.bearer(scope="a", target_nf_type="SMF", target_plmn=SNPN.plmn_id())
    assert len(endpoint.forms) == 5
    assert json.loads(endpoint.forms[3]["targetPlmn"]) == HOME.plmn_id()
    assert json.loads(endpoint.forms[4]["targetSnpn"]) == SNPN.plmn_id()


async def test_forgotten_tokens_are_fetched_anew(source, endpoint):
    await source.bearer(scope="a", target_nf_type="SMF")
    source.forget()
    await source.bearer(scope="a", target_nf_type="SMF")
    assert len(endpoint.forms) == 2


async def test_the_nrfs_refusal_is_passed_on(source, endpoint):
    endpoint.refuse = problem(403, "CCA_VERIFICATION_FAILURE", "No.")
    with pytest.raises(Refused) as refused:
        await source.bearer(scope="a", target_nf_type="SMF")
    assert refused.value.refusal == Refusal("CCA_VERIFICATION_FAILURE", "No.", status=403)
    endpoint.refuse = None
    assert await source.bearer(scope="a", target_nf_type="SMF")


async def test_an_nrf_that_is_away_stops_nobody_whose_token_is_good(source, endpoint, clock):
    bearer = await source.bearer(scope="a", target_nf_type="SMF")
    await endpoint.server.stop()
    clock.s = NOW + 590
    assert await source.bearer(scope="a", target_nf_type="SMF") == bearer
    clock.s = NOW + 601
    with pytest.raises(Unreachable):
        await source.bearer(scope="a", target_nf_type="SMF")


async def test_a_source_with_a_signer_proves_who_it_is(client, endpoint, key_pair):
    own = key_pair()
    url = f"http://127.0.0.1:{endpoint.server.port}"
    source = TokenSource(client, url, CONSUMER, "AF", CcaSigner(own.private, CONSUMER), now_s=time.time)
    await source.bearer(scope="a", target_nf_type="SMF")
    assert not isinstance(CcaVerifier([own.public]).verify(endpoint.assertions[0], subject=CONSUMER), Refusal)
