"""Canonical JSON: the one way in which anything that is signed or digested is written.

Keys sorted, no blanks, UTF-8. What is read must be written that way too, so that one value has one byte string and a
reader that takes the first of two equal keys cannot be told another story than one that takes the last.
"""

import hashlib
from typing import TypeVar

import msgspec

T = TypeVar("T")


class NotCanonical(ValueError):
    """The bytes are no JSON of that schema, or not the one canonical way to write it."""


def canonical(value: object) -> bytes:
    """The value as canonical JSON."""
    return msgspec.json.encode(value, order="sorted")


def decode_canonical(data: bytes, kind: type[T]) -> T:
    """Read canonical JSON of a schema; `NotCanonical` says what is wrong."""
    try:
        if canonical(msgspec.json.decode(data)) != data:
            raise NotCanonical("it is not written as canonical JSON (sorted keys, each once, no blanks)")
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise NotCanonical(str(error)) from None
    except RecursionError:
        raise NotCanonical("it is nested too deeply") from None


def sha256_hex(data: bytes) -> str:
    """SHA-256 as 64 hexadecimal digits: how packages, SBOMs and statements are named."""
    return hashlib.sha256(data).hexdigest()
