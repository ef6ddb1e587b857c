"""Marks that stand for a UE's identity in what is stored of its requests: no record holds a SUPI (ADR 0005).

An identity is written in several ways: as it is, percent-encoded where it stands in a URI, and without the prefix that
says its kind. Each has a mark of its own, so that a stored answer is given again byte for byte.
"""

import functools
from collections.abc import Sequence
from urllib.parse import quote

_LEAST = 5
"""Digits of the shortest IMSI; what is shorter and has no prefix may well be something else."""

_IN_IDS = b"{ue}"
"""Stands for every form in the id of a record, which is compared and never read back."""


@functools.lru_cache(maxsize=4096)
def _forms(identity: str) -> Sequence[tuple[bytes, bytes]]:
    """Each way to write an identity, and its mark; what has another one in it comes first."""
    value = identity.partition("-")[2]
    return (
        (identity.encode(), b"\x00UE\x00"),
        (quote(identity, safe="").encode(), b"\x00UE%\x00"),
        (value.encode(), b"\x00ue\x00"),
        (quote(value, safe="").encode(), b"\x00ue%\x00"),
    )


def _hidden(identity: str | None) -> Sequence[tuple[bytes, bytes]]:
    if not identity:
        return ()
    forms = _forms(identity)
    return forms if len(forms[2][0]) >= _LEAST else forms[:2]


def hide(content: bytes, identity: str | None) -> bytes:
    """The content with marks where the identity stands."""
    for form, mark in _hidden(identity):
        content = content.replace(form, mark)
    return content


def show(content: bytes, identity: str | None) -> bytes:
    """The content with this identity where the marks stand."""
    for form, mark in _forms(identity) if identity else ():
        content = content.replace(mark, form)
    return content


def hide_in_id(name: str, identity: str | None) -> str:
    """A record's id without the identity."""
    content = name.encode()
    for form, _ in _hidden(identity):
        content = content.replace(form, _IN_IDS)
    return content.decode()
