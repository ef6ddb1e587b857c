"""The software bill of materials: CycloneDX 1.6, made from the bytes in the package and compared with them again.

The document has the NTIA minimum fields as far as the packaged bytes know them; what a wheel does not say (its
licence, its author) is left out rather than guessed. It is written here and not by a library's model, so that its
bytes depend on the package alone; the CycloneDX library then validates it strictly.
"""

import datetime as dt
import functools
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

import outrider
from outrider.core.canonical import canonical, decode_canonical, sha256_hex
from outrider.core.manifest import Manifest
from outrider.core.refusal import Refusal
from outrider.package.closure import Needed
from outrider.package.layout import WHEELS
from outrider.package.licences import as_cyclonedx
from outrider.package.repack import SDK_NAME
from outrider.package.wheels import Wheel

if TYPE_CHECKING:
    from jsonschema import ValidationError

NAMESPACE = uuid.UUID("5b6d1e1c-8f2b-5c55-9f0e-0f6a5d1b7c11")
ROOT, CODE = "package", "code"


class PackedWheel(NamedTuple):
    """A wheel as it is in the package; `needs` are the paths of the wheels that it depends on."""

    path: str
    sha256: str
    wheel: Wheel
    needs: tuple[str, ...]


class Content(NamedTuple):
    """What an SBOM is about: the code's files with their digests, the wheels, and which of those the code needs."""

    manifest: Manifest
    code: Mapping[str, str]
    wheels: Sequence[PackedWheel]
    needs: tuple[str, ...]


def packed_wheels(needed: Needed, sha256: Mapping[str, str]) -> list[PackedWheel]:
    """The wheels of a package, with their digests by file name."""
    return [
        PackedWheel(f"{WHEELS}{name}", sha256[name], wheel, wheel_paths(needed.needs.get(name, ())))
        for name, wheel in sorted(needed.wheels.items())
    ]


def wheel_paths(names: Iterable[str]) -> tuple[str, ...]:
    """Where wheels are in the archive."""
    return tuple(f"{WHEELS}{name}" for name in sorted(names))


def build(content: Content, timestamp_s: int | None) -> bytes:
    """The SBOM as canonical JSON; without `timestamp_s` it has no time, since nothing in the bytes tells one."""
    manifest = content.manifest
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {
                "components": [{"type": "application", "name": "outrider", "version": outrider.__version__}],
            },
            "authors": [{"name": manifest.vendor}],
            "supplier": {"name": manifest.vendor},
            "component": _root(manifest),
        },
        "components": [_code(content), *(_library(packed) for packed in content.wheels)],
        "dependencies": [
            {"ref": ref, "dependsOn": sorted(needs)} for ref, needs in sorted(dependencies(content).items())
        ],
    }
    if timestamp_s is not None:
        at = dt.datetime.fromtimestamp(timestamp_s, dt.UTC)
        document["metadata"]["timestamp"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")  # type: ignore[index]
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(NAMESPACE, sha256_hex(canonical(document)))}"
    return canonical(document)


def root_purl(manifest: Manifest) -> str:
    """Package URL of the package itself."""
    return _purl("generic", manifest.service, manifest.version)


def purl_of(wheel: Wheel) -> str:
    """Package URL of a library. The SDK is not published under its name, so no registry may be asked for it."""
    return _purl("generic" if wheel.name == SDK_NAME else "pypi", wheel.name, str(wheel.version))


def _purl(kind: str, name: str, version: str) -> str:
    return f"pkg:{kind}/{name}@{version.replace('+', '%2B')}"


def _root(manifest: Manifest) -> dict[str, Any]:
    return {
        "type": "application",
        "bom-ref": ROOT,
        "name": manifest.service,
        "version": manifest.version,
        "purl": root_purl(manifest),
        "supplier": {"name": manifest.vendor},
        **_licences(manifest.licence),
    }


def _code(content: Content) -> dict[str, Any]:
    manifest = content.manifest
    return {
        "type": "application",
        "bom-ref": CODE,
        "name": f"{manifest.service}-code",
        "version": manifest.version,
        "supplier": {"name": manifest.vendor},
        **_licences(manifest.licence),
        "components": [
            {"type": "file", "bom-ref": path, "name": path, "hashes": _hashes(digest)}
            for path, digest in sorted(content.code.items())
        ],
    }


def _library(packed: PackedWheel) -> dict[str, Any]:
    wheel = packed.wheel
    author = {"supplier": {"name": wheel.author}, "authors": [{"name": wheel.author}]} if wheel.author else {}
    return {
        "type": "library",
        "bom-ref": packed.path,
        "name": wheel.name,
        "version": str(wheel.version),
        "purl": purl_of(wheel),
        "hashes": _hashes(packed.sha256),
        **author,
        **_licences(wheel.licence),
    }


def _hashes(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]


def _licences(licence: str | None) -> dict[str, Any]:
    found = as_cyclonedx(licence)
    return {"licenses": found} if found else {}


def dependencies(content: Content) -> dict[str, set[str]]:
    """Which components each one needs, by their references."""
    return {
        ROOT: {CODE},
        CODE: set(content.needs),
        **{packed.path: set(packed.needs) for packed in content.wheels},
    }


class _Component(msgspec.Struct, frozen=True):
    """The facts of a component that the bytes decide."""

    type: str
    name: str
    version: str = ""
    purl: str = ""
    hashes: list[dict[str, str]] = []
    licenses: list[Any] = []
    supplier: dict[str, Any] = {}
    authors: list[dict[str, Any]] = []
    bom_ref: str = msgspec.field(name="bom-ref", default="")
    components: list["_Component"] = []


class _Dependency(msgspec.Struct, frozen=True):
    ref: str
    depends_on: list[str] = msgspec.field(name="dependsOn", default_factory=list)


class _Metadata(msgspec.Struct, frozen=True):
    component: _Component
    supplier: dict[str, Any] = {}
    authors: list[dict[str, Any]] = []
    timestamp: dt.datetime | None = None


class _Document(msgspec.Struct, frozen=True):
    """The parts of an SBOM that are compared with the package."""

    metadata: _Metadata
    bom_format: Literal["CycloneDX"] = msgspec.field(name="bomFormat")
    spec_version: Literal["1.6"] = msgspec.field(name="specVersion")
    components: list[_Component] = []
    dependencies: list[_Dependency] = []


def check(data: bytes, content: Content) -> Refusal | None:
    """None if the SBOM is valid CycloneDX 1.6 and says exactly what is in the package."""
    try:
        document = decode_canonical(data, dict)
        problem = next(_validator().iter_errors(document), None)
    except (ValueError, RecursionError) as error:
        return _invalid(f"it cannot be read ({error})")
    if problem is not None:
        return _invalid(str(problem.message)[:300])
    try:
        stated = msgspec.json.decode(data, type=_Document)
    except msgspec.DecodeError as error:
        return _invalid(str(error))
    expected = msgspec.json.decode(build(content, None), type=_Document)
    for what, told, true in (
        ("component", _by_ref(stated), _by_ref(expected)),
        ("dependency", _edges(stated), _edges(expected)),
        ("author or supplier in", _makers(stated), _makers(expected)),
    ):
        different = sorted(r for r in told.keys() | true.keys() if told.get(r) != true.get(r))
        if different:
            return mismatch(different[0], what, different[0] not in told, different[0] not in true)
    return None


@functools.cache
def _validator() -> Any:
    """The strict validator of the CycloneDX library, with a test for doubled items that takes no square of time.

    The schema demands unique items of almost every list. jsonschema compares them pair by pair, which for a thousand
    components is most of twenty seconds; equal items have equal canonical bytes.
    """
    from cyclonedx.schema import SchemaVersion  # here: most of what imports this module never validates
    from cyclonedx.validation.json import JsonStrictValidator
    from jsonschema import Draft7Validator
    from jsonschema.validators import extend

    inner: Any = JsonStrictValidator(SchemaVersion.V1_6)._validator
    fast = extend(Draft7Validator, {"uniqueItems": _unique_items})
    return fast(inner.schema, registry=inner._registry, format_checker=inner.format_checker)


def _unique_items(_: object, wanted: bool, items: object, __: object) -> Iterator["ValidationError"]:
    from jsonschema import ValidationError

    if wanted and isinstance(items, list) and len({canonical(item) for item in items}) < len(items):
        yield ValidationError("a list has an item twice")


def _by_ref(document: _Document) -> dict[str, object]:
    """Every component, nested ones too, by its reference; two with one reference never equal one."""
    found: dict[str, object] = {}
    todo = [document.metadata.component, *document.components]
    while todo:
        component = todo.pop()
        todo += component.components
        bare = msgspec.structs.replace(component, components=[])
        refs = sorted(c.bom_ref for c in component.components)
        found[component.bom_ref] = (bare, refs) if component.bom_ref not in found else "twice"
    return found


def _edges(document: _Document) -> dict[str, object]:
    found: dict[str, object] = {}
    for entry in document.dependencies:
        found[entry.ref] = sorted(entry.depends_on) if entry.ref not in found else "twice"
    return found


def _makers(document: _Document) -> dict[str, object]:
    return {"metadata": (document.metadata.supplier, document.metadata.authors)}


def _invalid(what: str) -> Refusal:
    return Refusal("SBOM_INVALID", f"The SBOM is not valid CycloneDX 1.6: {what}.", status=400)


def mismatch(name: str, what: str, missing: bool, extra: bool) -> Refusal:
    """The SBOM lacks, invents or misstates something."""
    does = "lacks" if missing else "invents" if extra else "misstates"
    sentence = f"The SBOM does not describe the package: it {does} the {what} {name[:200]}."
    return Refusal("SBOM_MISMATCH", sentence, {"about": name[:200]}, "Ask the vendor.", status=400)


class Listed(msgspec.Struct, frozen=True, rename="camel"):
    """One library for people."""

    name: str
    version: str
    licence: str
    sha256: str


def listed(packed: Iterable[PackedWheel]) -> list[Listed]:
    """The libraries of a package, for people."""
    return [Listed(p.wheel.name, str(p.wheel.version), p.wheel.licence or "not declared", p.sha256) for p in packed]
