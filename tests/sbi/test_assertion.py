import json

import pytest
from joserfc import jws
from joserfc.jwk import ECKey

from outrider.core.refusal import Refusal
from outrider.sbi.assertion import CcaSigner, CcaVerifier

NF = "00000000-0000-4000-8000-000000000002"
NOW = 1_800_000_000


@pytest.fixture
def key(key_pair):
    return key_pair()


@pytest.fixture
def verifier(key, key_pair):
    return CcaVerifier([key_pair().public, key.public], now_s=lambda: NOW)


def signed(key, **changes):
    claims = {"sub": NF, "aud": ["NRF"], "iat": NOW, "exp": NOW + 30} | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    return jws.serialize_compact({"alg": "ES256"}, json.dumps(claims), ECKey.import_key(key.private), ["ES256"])


def test_an_assertion_proves_its_signer(key, verifier):
    assertion = CcaSigner(key.private, NF, now_s=lambda: NOW).assertion()
    claims = verifier.verify(assertion, subject=NF)
    assert not isinstance(claims, Refusal)
    assert claims.sub == NF
    assert claims.exp - claims.iat <= 60


def test_an_audience_may_be_one_or_several(key, verifier):
    for audience in ("NRF", ["SMF", "NRF"]):
        assert not isinstance(verifier.verify(signed(key, aud=audience), subject=NF), Refusal)


@pytest.mark.parametrize(
    "change",
    [
        {"sub": "00000000-0000-4000-8000-000000000003"},
        {"sub": None},
        {"aud": ["SMF"]},
        {"aud": []},
        {"aud": None},
        {"iat": None},
        {"exp": None},
        {"iat": NOW - 100, "exp": NOW - 50},
        {"iat": NOW + 50, "exp": NOW + 80},
        {"exp": NOW + 3600},
        {"iat": NOW, "exp": NOW - 1},
        {"exp": "never"},
    ],
    ids=str,
)
def test_an_assertion_with_one_wrong_claim_proves_nothing(key, verifier, change):
    refusal = verifier.verify(signed(key, **change), subject=NF)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status) == ("CCA_VERIFICATION_FAILURE", 403)


@pytest.mark.parametrize("assertion", [None, "", "x", "a.b.c"])
def test_no_assertion_proves_nothing(verifier, assertion):
    assert isinstance(verifier.verify(assertion, subject=NF), Refusal)


def test_an_untrusted_key_proves_nothing(key_pair, verifier):
    assert isinstance(verifier.verify(signed(key_pair()), subject=NF), Refusal)
