"""SPDX licence expressions, against lists of identifiers: what one names, and whether it can be used without another.

Lists that allow and lists that bar fail to the same side. What is allowed must be understood: every `AND`, one of each
`OR`, each a licence of the list. What is barred need only be seen: a text that is no expression is under each barred
licence that it names anywhere (`AGPL-3.0-only AND (`, `AGPL-3.0-only, see LICENSE`), and it declares none.

Spelling does not matter: case, and former identifiers (`AGPL-3.0` is `AGPL-3.0-only`).
"""

import functools
import re
from collections.abc import Collection, Iterator
from typing import Any

_NAMES = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.+-]*[A-Za-z0-9+])?")
_REFERENCES = ("LicenseRef-", "DocumentRef-")


def known(identifier: str) -> bool:
    """Whether it is one SPDX licence in its present spelling, one with an exception (`A WITH B`), or a LicenseRef."""
    tree = _parsed(identifier)
    return _node(tree) and _understood(tree) and _rendered(tree) == identifier


def declared(licence: str | None) -> bool:
    """Whether it is an expression of licences of the SPDX list and LicenseRefs; anything else declares nothing."""
    tree = _parsed(licence or "")
    return tree is not None and _understood(tree)


def identifiers(licence: str) -> frozenset[str]:
    """The licences that a text names: those of an expression, each also without its exception; else what is seen."""
    return frozenset(_named(licence)) if licence else frozenset()


def met(licence: str, allowed: Collection[str]) -> bool:
    """Whether somebody who takes these licences alone can take software under this one."""
    tree = _parsed(licence)
    return tree is not None and _met(tree, frozenset(map(str.casefold, allowed)))


def barred_by(licence: str | None, barred: Collection[str]) -> list[str]:
    """The barred licences that no choice within the expression avoids; empty if it can be used without them.

    `A WITH B` is under A too: who bars A bars it.
    """
    return list(_barred_by(licence, frozenset(barred))) if licence and barred else []


@functools.lru_cache(maxsize=4_096)
def _barred_by(licence: str, barred: frozenset[str]) -> tuple[str, ...]:
    whole = _among({licence}, barred)
    tree = _parsed(licence)
    return tuple(sorted(whole or (_needed(tree, barred) if tree is not None else _seen(licence, barred))))


def _needed(tree: Any, barred: frozenset[str]) -> set[str]:
    """Barred licences that a licensee cannot choose to do without."""
    if not _node(tree):
        found = [_needed(arg, barred) for arg in tree.args]
        choice = _operator(tree) == "OR" and any(not names for names in found)
        return set() if choice else set().union(*found)
    names = _among(_symbols(tree), barred)
    return names if _understood(tree) else names | _seen(_rendered(tree), barred)


def _among(names: set[str], barred: frozenset[str]) -> set[str]:
    wanted = {name.casefold() for name in names}
    return {name for name in barred if name.casefold() in wanted}


def _seen(text: str, barred: frozenset[str]) -> set[str]:
    """Barred licences that a text names anywhere, as a word of it or by a former identifier."""
    small = text.casefold()
    words = (re.compile(rf"(?<![^\W_]){re.escape(name.casefold())}(?![^\W_])") for name in barred)
    return {name for name, word in zip(barred, words, strict=True) if word.search(small)} | _among(
        set(_listed(text)), barred
    )


def _met(tree: Any, allowed: frozenset[str]) -> bool:
    if _node(tree):
        return _rendered(tree).casefold() in allowed
    parts = (_met(arg, allowed) for arg in tree.args)
    return any(parts) if _operator(tree) == "OR" else all(parts)


def _named(licence: str) -> Iterator[str]:
    tree = _parsed(licence)
    if tree is None:
        yield licence
        yield from _listed(licence)
        return
    yield from _symbols(tree)
    if not _understood(tree):
        yield from _listed(licence)


def _listed(text: str) -> Iterator[str]:
    """Licences of the SPDX list that a text names, in their present spelling."""
    for word in _NAMES.findall(text):
        tree = _parsed(word)
        if tree is not None and _node(tree) and _understood(tree):
            yield _rendered(tree)


# ------------------------------------------------------------------------------------------------ the library


@functools.lru_cache(maxsize=4_096)
def _parsed(text: str) -> Any:
    """The expression as a tree, whatever licences it names; None if it is none. Kept: a stay asks each second."""
    try:
        return licensing().parse(text)
    except Exception:  # the library raises what it likes for text like ";", and it means no
        return None


def _operator(tree: Any) -> str:
    return type(tree).__name__


def _node(tree: Any) -> bool:
    return tree is not None and _operator(tree) not in ("AND", "OR")


def _rendered(tree: Any) -> str:
    return str(tree.render())


def _symbols(tree: Any) -> set[str]:
    """Each licence of a tree; one with an exception also without."""
    if not _node(tree):
        return {name for arg in tree.args for name in _symbols(arg)}
    base = getattr(tree, "license_symbol", None)
    return {_rendered(tree), str(base.key)} if base is not None else {_rendered(tree)}


def _understood(tree: Any) -> bool:
    """Whether every licence of a tree is one that SPDX lists, or a LicenseRef."""
    if not _node(tree):
        return all(_understood(arg) for arg in tree.args)
    base = getattr(tree, "license_symbol", None)
    if base is not None:
        exception = licensing().known_symbols.get(tree.exception_symbol.key)
        return _one(base.key) and exception is not None and bool(exception.is_exception)
    return _one(tree.key)


def _one(key: str) -> bool:
    if key.startswith(_REFERENCES):
        return " " not in key
    symbol = licensing().known_symbols.get(key)
    return symbol is not None and not symbol.is_exception


@functools.cache
def licensing() -> Any:
    """The library with the licences of the SPDX list."""
    from license_expression import get_spdx_licensing  # here: it reads its list of licences when imported

    return get_spdx_licensing()
