"""What a distribution says about its licence and its author, and which of its files are licence texts."""

import re
from email.utils import getaddresses
from typing import TYPE_CHECKING

from outrider.decide.spdx import licensing

if TYPE_CHECKING:
    from packaging.metadata import RawMetadata

_TEXT = re.compile(r"(?i)\A(licen[cs]e|copying|copyright|notice|authors)[^/]*\Z")
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
}
"""Trove classifiers that mean one SPDX licence; others ("BSD License") are passed on as names."""


def declared(metadata: "RawMetadata") -> str | None:
    """The licence that a distribution declares: an SPDX expression where it gives one, else a name; None if neither."""
    expression = metadata.get("license_expression")
    if expression:
        return expression
    text = metadata.get("license") or ""
    text = "" if "\n" in text or len(text) > 100 or text == "UNKNOWN" else text
    if text and is_spdx(text):
        return text
    names = [c.rpartition(" :: ")[2] for c in metadata.get("classifiers", []) if c.startswith("License :: ")]
    known = sorted({_CLASSIFIERS[n] for n in names if n in _CLASSIFIERS})
    if len(known) == 1:
        return known[0]
    return text or ", ".join(n for n in names if n != "OSI Approved") or None


def is_spdx(text: str) -> bool:
    """Whether the text is an SPDX licence expression of known licences."""
    try:
        return 0 < len(text) <= 300 and not licensing().validate(text).errors
    except Exception:  # the library raises what it likes for text like ";" (AttributeError), and it means no
        return False


def as_cyclonedx(licence: str | None) -> list[dict[str, object]]:
    """The licence as CycloneDX writes it; nothing if it is not known."""
    from cyclonedx.spdx import is_supported_id

    if not licence or licence == "NOASSERTION":
        return []
    if is_supported_id(licence):
        return [{"license": {"id": licence, "acknowledgement": "declared"}}]
    if is_spdx(licence):
        return [{"expression": licence, "acknowledgement": "declared"}]
    return [{"license": {"name": licence, "acknowledgement": "declared"}}]


def author(metadata: "RawMetadata") -> str | None:
    """Who made it: the author, or else the maintainer, by name where there is one."""
    for name, email in (("author", "author_email"), ("maintainer", "maintainer_email")):
        plain = metadata.get(name)
        if isinstance(plain, str) and plain.strip():
            return plain.strip()
        addresses = metadata.get(email)
        people = [who or address for who, address in getaddresses([addresses])] if isinstance(addresses, str) else []
        if any(people):
            return ", ".join(filter(None, people))
    return None


def is_text(name: str, info: str) -> bool:
    """Whether an entry of a wheel is a licence text: in `.dist-info/licenses`, or by its name beside METADATA."""
    folder, _, rest = name.partition("/")
    return folder == info and (rest.startswith(("licenses/", "license_files/")) or _TEXT.match(rest) is not None)
