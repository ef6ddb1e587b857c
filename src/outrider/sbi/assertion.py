"""Client credentials assertions (CCA, TS 33.501 §13.3.8, TS 29.500 §5.2.3.2.11): an NF proves who it is.

An access token says what somebody may do; an assertion says who asks. It is a short-lived JWT that the NF signs with
its own key.
"""

import time
from collections.abc import Callable, Sequence

import msgspec

from outrider.core.refusal import Refusal
from outrider.sbi import jose

ASSERTION_TTL_S = 30
"""Lifetime of an assertion: one request and the clocks' difference."""

ASSERTION_LIMIT_S = 60
"""An assertion that claims to live longer is refused: it would be a password."""

LEEWAY_S = 2.0
"""How far the clocks of the signer and the verifier may differ."""

CCA_REFUSED = "CCA_VERIFICATION_FAILURE"
"""The cause that TS 29.500 §5.2.7.2 gives (403)."""


class CcaClaims(msgspec.Struct, frozen=True):
    """Claims of an assertion; `aud` lists the NF types that it may be shown to."""

    sub: str
    aud: list[str] | str
    iat: int
    exp: int


class CcaSigner:
    """Signs an NF instance's assertions."""

    def __init__(
        self, private_key_pem: str | bytes, nf_instance_id: str, *, now_s: Callable[[], float] = time.time
    ) -> None:
        self._key = jose.import_key(private_key_pem)
        self._nf_instance_id = nf_instance_id
        self._now_s = now_s

    def assertion(self, audience: Sequence[str] = ("NRF",)) -> str:
        """A fresh assertion for NFs of these types; the value of `3gpp-Sbi-Client-Credentials`."""
        now = int(self._now_s())
        return jose.sign(CcaClaims(self._nf_instance_id, list(audience), now, now + ASSERTION_TTL_S), self._key)


class CcaVerifier:
    """Checks assertions against the trusted public keys."""

    def __init__(self, public_keys_pem: Sequence[str | bytes], *, now_s: Callable[[], float] = time.time) -> None:
        self._keys = [jose.import_key(pem) for pem in public_keys_pem]
        self._now_s = now_s

    def verify(self, assertion: str | None, *, subject: str, audience: str = "NRF") -> CcaClaims | Refusal:
        """The claims, or why they do not prove that `subject` asks."""
        if assertion is None:
            return _refused("The request carries no client credentials assertion.")
        claims = self._proved(assertion)
        if isinstance(claims, Refusal):
            return claims
        now = self._now_s()
        if claims.exp + LEEWAY_S <= now:
            return _refused("The assertion has expired.")
        if claims.iat - LEEWAY_S > now or claims.exp - claims.iat > ASSERTION_LIMIT_S or claims.iat > claims.exp:
            return _refused(f"The assertion's lifetime is not within {ASSERTION_LIMIT_S} seconds of now.")
        if audience not in ([claims.aud] if isinstance(claims.aud, str) else claims.aud):
            return _refused(f"The assertion is not for {audience}.")
        if claims.sub != subject:
            return _refused("The assertion is another NF instance's.")
        return claims

    def _proved(self, assertion: str) -> CcaClaims | Refusal:
        for key in self._keys:
            try:
                return jose.verified(assertion, key, CcaClaims)
            except jose.BadToken:
                continue
        return _refused("No trusted key has signed the assertion.")


def _refused(sentence: str) -> Refusal:
    return Refusal(CCA_REFUSED, sentence, status=403)
