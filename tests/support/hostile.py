"""Ways to spoil a JSON document, one place at a time, so that a matrix leaves no field out."""

import copy
from collections.abc import Iterator
from typing import Any

from outrider.core import limits
from outrider.package import layout, sbom
from outrider.package import verify as checks
from outrider.package.archive import Archive
from outrider.package.closure import find_among, over_architectures, requirements_of

Path = tuple[str | int, ...]


def places(value: Any, at: Path = ()) -> Iterator[Path]:
    """Every place in a document, the containers too, but for the document itself."""
    if at:
        yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield from places(inner, (*at, key))


def get(document: Any, at: Path) -> Any:
    """What stands at a place."""
    for key in at:
        document = document[key]
    return document


def put(document: Any, at: Path, value: Any) -> Any:
    """A copy of the document with another value at a place."""
    made = copy.deepcopy(document)
    get(made, at[:-1])[at[-1]] = value
    return made


def without(document: Any, at: Path) -> Any:
    """A copy of the document without a place."""
    made = copy.deepcopy(document)
    del get(made, at[:-1])[at[-1]]
    return made


def other(value: Any) -> Any:
    """Another value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            same = value.removeprefix("0" if value.startswith("1") else "1")
            return f"{'0' if value.startswith('1') else '1'}{same[1:]}"
        case list():
            return [] if value else ["more"]
        case dict():
            return {} if value else {"more": "more"}
        case _:
            return "something"


def wrong_type(value: Any) -> Any:
    """A value of a type that is never right there."""
    return {"a": {"b": []}} if isinstance(value, str | int | float | list) or value is None else 3.5


def show(at: Path) -> str:
    """A place as a test's name."""
    return ".".join(map(str, at))


def content_of(archive: Archive) -> sbom.Content:
    """What the SBOM of an archive must say."""
    digests = checks.check_digests(archive, archive.read(layout.DIGESTS, limits.PACKAGE_META_BYTES))
    manifest, wheels = checks.read_manifest(archive), checks.read_wheels(archive)
    wanted = requirements_of(manifest.requirements)
    needed = over_architectures(wanted, find_among(wheels), manifest.architectures, manifest.python)
    packed = sbom.packed_wheels(needed, {n: digests[f"{layout.WHEELS}{n}"] for n in needed.wheels})
    code = {path: digest for path, digest in digests.items() if path.startswith(layout.CODE)}
    return sbom.Content(manifest, code, packed, sbom.wheel_paths(needed.needs[""]))
