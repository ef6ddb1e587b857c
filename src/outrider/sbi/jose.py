"""Compact JWS with ES256 and nothing else: the one place where tokens are signed and their signatures checked."""

import base64
import binascii
from typing import Final, TypeVar

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

ALGORITHM: Final = "ES256"

TOKEN_BYTES = 16 * 1024
"""Longest token that is looked at."""

T = TypeVar("T")
_encoder = msgspec.json.Encoder()


class BadToken(Exception):
    """The token is not what it claims to be; the text says why."""


def import_key(pem: str | bytes) -> ECKey:
    """A P-256 key from PEM; `ValueError` for any other kind of key."""
    key = ECKey.import_key(pem)
    if key.curve_name != "P-256":
        raise ValueError(f"{ALGORITHM} needs a P-256 key, this one is {key.curve_name}")
    return key


def sign(claims: object, key: ECKey) -> str:
    """The claims as a compact JWS."""
    return jws.serialize_compact({"typ": "JWT", "alg": ALGORITHM}, _encoder.encode(claims), key, algorithms=[ALGORITHM])


def unverified(token: str, claims_type: type[T]) -> T:
    """What a token says before anything is proved; good only for choosing the key."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > TOKEN_BYTES:
        raise BadToken("It is no compact JWS.")
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(payload, type=claims_type)
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise BadToken(f"Its claims cannot be read: {error}.") from None


def verified(token: str, key: ECKey, claims_type: type[T]) -> T:
    """The claims, once the signature by `key` is proved; `alg` must be ES256, whatever the header says."""
    if len(token) > TOKEN_BYTES:
        raise BadToken("It is too long.")
    try:
        payload = jws.deserialize_compact(token, key, algorithms=[ALGORITHM]).payload
    except (JoseError, ValueError) as error:
        raise BadToken(f"Its signature does not hold ({error}).") from None
    try:
        return msgspec.json.decode(payload, type=claims_type)
    except msgspec.DecodeError as error:
        raise BadToken(f"Its claims cannot be read: {error}.") from None
