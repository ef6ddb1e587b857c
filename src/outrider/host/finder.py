"""Finds the NF service and the key of a request from the manifest's rules."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

import jsonpointer
import msgspec

from outrider.core.manifest import KeyRule, Manifest, NfServiceSpec
from outrider.core.refusal import Refusal


class Found(NamedTuple):
    """The NF service that a request is for, and whose context it touches: an identity of a UE, or a shared object."""

    nf: NfServiceSpec
    identity: str | None
    shared: str | None
    creates: bool


def _pattern(template: str) -> re.Pattern[str]:
    """A template such as `/a/{supi}{/rest*}` as a pattern; `{/rest*}` takes the remaining path, if any."""
    parts = re.split(r"(\{[^}]*\})", template)
    out = []
    for part in parts:
        if not part.startswith("{"):
            out.append(re.escape(part))
        elif part == "{/rest*}":
            out.append(r"(?:/.*)?")
        else:
            out.append(f"(?P<{part[1:-1]}>[^/]+)")
    return re.compile("^" + "".join(out) + "$")


class Finder:
    """Looks requests up in the key rules of one package."""

    def __init__(self, manifest: Manifest) -> None:
        self._rules: dict[str, list[tuple[re.Pattern[str], KeyRule, NfServiceSpec]]] = {}
        for nf in manifest.nf_services:
            self._rules[nf.name] = [(_pattern(rule.path), rule, nf) for rule in nf.keys]

    @property
    def nf_names(self) -> Sequence[str]:
        """The NF services of the package."""
        return list(self._rules)

    def find(self, method: str, path: str, body: bytes) -> Found | Refusal:
        """The first rule that fits decides; a request that fits none, or names no key, is refused with its cause."""
        rules = self._rules.get(path.split("/", 2)[1] if path.startswith("/") else "")
        if rules is None:
            return Refusal("INVALID_API", f"no NF service of this package serves {path}", status=400)
        for pattern, rule, nf in rules:
            if method not in rule.methods or (match := pattern.match(path)) is None:
                continue
            value = _value(rule, match, body)
            if isinstance(value, Refusal):
                return value
            if rule.of == "shared":
                return Found(nf, None, rule.prefix + value, rule.creates)
            return Found(nf, value, None, rule.creates)
        return Refusal("RESOURCE_URI_STRUCTURE_NOT_FOUND", f"{method} {path} is not part of this API", status=404)


def _value(rule: KeyRule, match: re.Match[str], body: bytes) -> str | Refusal:
    place, _, name = rule.at.partition(":")
    if place == "path":
        value = match.group(name)
        return unquote(value) if "%" in value else value
    try:
        document: Any = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        return Refusal("INVALID_MSG_FORMAT", f"the body is not JSON: {error}", status=400)
    value = jsonpointer.resolve_pointer(document, name, None)
    if not isinstance(value, str) or not value:
        return Refusal("MANDATORY_IE_MISSING", f"the body has no text at {name}", {"param": name}, status=400)
    return value
