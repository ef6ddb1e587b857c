"""Licences against lists of SPDX identifiers: an expression is met if one of its choices is."""

import functools
from collections.abc import Callable
from typing import Any


@functools.cache
def _spdx() -> Any:
    from license_expression import get_spdx_licensing  # here: it reads its list of licences when imported

    return get_spdx_licensing()


def known(identifier: str) -> bool:
    """Whether it is one SPDX licence identifier, or one with an exception (`A WITH B`)."""
    try:
        return _symbols(_spdx().parse(identifier, validate=True)) == {identifier}
    except Exception:  # the library raises what it likes for text like ";", and it means no
        return False


@functools.lru_cache(4096)
def _parsed(licence: str) -> Any:
    """The expression as a tree; the text itself if it is none. Kept, because a stay asks each second."""
    try:
        return _spdx().parse(licence, validate=True)
    except Exception:  # as above
        return licence


def identifiers(licence: str) -> frozenset[str]:
    """The licences that an expression names; a text that is no expression names itself, an empty one nothing."""
    parsed = _parsed(licence)
    return frozenset({parsed} - {""} if isinstance(parsed, str) else _symbols(parsed))


def met(licence: str, accepts: Callable[[str], bool]) -> bool:
    """Whether somebody who accepts some licences can take software under an expression: every AND, one of each OR."""
    parsed = _parsed(licence)
    return accepts(parsed) if isinstance(parsed, str) else _met(parsed, accepts)


def _met(node: Any, accepts: Callable[[str], bool]) -> bool:
    if node is None:
        return accepts("")
    kind = type(node).__name__
    if kind in ("AND", "OR"):
        parts = (_met(arg, accepts) for arg in node.args)
        return all(parts) if kind == "AND" else any(parts)
    return accepts(node.render())


def _symbols(node: Any) -> set[str]:
    if node is None:
        return set()
    if type(node).__name__ in ("AND", "OR"):
        return {symbol for arg in node.args for symbol in _symbols(arg)}
    return {node.render()}
