"""The manifest of a package: what a communication service's advanced part is made of and what it needs.

Authors write it as `outrider.toml`; the package carries it as canonical JSON. Field names are camelCase in JSON and
snake_case in TOML.
"""

import re
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from outrider.core.canonical import canonical

Name = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9]+(-[a-z0-9]+)*\Z", max_length=63)]
"""Of a service or an NF service: fits into a URI path, a file name and a DNS label."""

Line = Annotated[str, msgspec.Meta(min_length=1, max_length=80, pattern=r"\A[^\x00-\x1f\x7f]+\Z")]

SchemaVersion = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]

_VARIABLE = re.compile(r"\{([^}]*)\}")
_SD = re.compile(r"\A[0-9a-fA-F]{6}\Z")


class KeyRule(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """How a request's key is found: the first rule whose `path` (RFC 6570 template) and method fit decides.

    `at` says where the key's name stands: `path:VARIABLE` of the template, or `body:/JSON/POINTER`. `of` says what it
    names: a UE's identity (`ue`) or a shared object (`shared`, the name is `prefix` + value). `creates` allows the
    first request of an unknown UE.
    """

    path: Annotated[str, msgspec.Meta(pattern=r"\A/[!-~]+\Z", max_length=256)]
    at: Annotated[str, msgspec.Meta(pattern=r"\A(path:\w+|body:(/[^/\s]+)+)\Z", max_length=256)]
    methods: list[Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]+\Z")]] = msgspec.field(
        default_factory=lambda: ["GET", "POST", "PUT", "PATCH", "DELETE"]
    )
    of: Literal["ue", "shared"] = "ue"
    prefix: str = ""
    creates: bool = False


class NfServiceSpec(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """One NF service: the NF type that hosts it, its API, its ASGI app (`module:attribute`), how its keys are found."""

    name: Name
    nf_type: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z0-9][A-Z0-9_]{1,30}\Z")]
    app: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z", max_length=256)]
    keys: list[KeyRule]
    api_version: Annotated[str, msgspec.Meta(pattern=r"\Av[0-9]+\Z")] = "v1"
    api_full_version: str = "1.0.0"


class StateSchema(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """Version of the records' layout, the versions this software reads, and each NF service's data category."""

    version: SchemaVersion = 1
    reads: list[SchemaVersion] = msgspec.field(default_factory=lambda: [1])
    categories: dict[str, str] = {}


class Resources(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """What one worker may use at most."""

    memory_mb: Annotated[int, msgspec.Meta(ge=1, le=1_048_576)] = 256
    processes: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 8
    cpu_share: Annotated[float, msgspec.Meta(gt=0, le=1_024)] = 1.0


class Manifest(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """A communication service's advanced part, as its vendor describes it."""

    service: Name
    version: Annotated[str, msgspec.Meta(pattern=r"\A[0-9][0-9A-Za-z.+]*\Z", max_length=64)]
    vendor: Line
    description: str = ""
    nf_services: Annotated[list[NfServiceSpec], msgspec.Meta(min_length=1)]
    requirements: list[str] = []
    """Python distributions (PEP 508) that the code imports; each is in the package as a wheel."""
    architectures: list[Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9_]+\Z")]] = []
    """Machines (`x86_64`, `aarch64`) that the wheels run on, or `any`; filled in by `package build`. An author who
    names some makes the build fail unless each is served."""
    python: Annotated[str, msgspec.Meta(pattern=r"\A([0-9]+\.[0-9]+)?\Z")] = ""
    """`major.minor` of the interpreter that the wheels are for; filled in by `package build`."""
    anchoring: Literal["lbo", "hr", "hr-sbo", "none"] = "none"
    requires: list[str] = []
    """APIs of the basic part that it consumes."""
    s_nssai: list[dict[str, str | int]] = []
    dnn: list[str] = []
    state_schema: StateSchema = StateSchema()
    resources: Resources = Resources()
    licence: str = "NOASSERTION"
    export_class: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]*\Z", max_length=40)] = ""
    """Class under export control (`EAR99`, `5D002`), as the vendor declares it."""
    source_offers: dict[str, Line] = {}
    """By distribution: where its source can be had. Some licences demand it of whoever hands a compiled one on."""

    def encode(self) -> bytes:
        """The manifest as the package carries it."""
        return canonical(self)


def problems(manifest: Manifest) -> list[str]:
    """What is wrong beyond the schema, one sentence each."""
    found: list[str] = []
    names = [spec.name for spec in manifest.nf_services]
    found += [f"NF service {name} is described twice" for name in sorted({n for n in names if names.count(n) > 1})]
    for spec in manifest.nf_services:
        for rule in spec.keys:
            found += [f"{spec.name}, key {rule.path}: {what}" for what in _rule_problems(spec, rule)]
    schema = manifest.state_schema
    if schema.version not in schema.reads:
        found.append(f"state_schema.reads does not have its own version {schema.version}")
    found += [
        f"state_schema.categories names {n}, which is no NF service here" for n in schema.categories.keys() - names
    ]
    for slice_ in manifest.s_nssai:
        sst, sd = slice_.get("sst"), slice_.get("sd")
        if not isinstance(sst, int) or not 0 <= sst <= 255 or slice_.keys() - {"sst", "sd"}:
            found.append("s_nssai needs sst (0 to 255) and at most sd beside it")
        if sd is not None and (not isinstance(sd, str) or not _SD.match(sd)):
            found.append("s_nssai.sd has six hexadecimal digits")
    return found


def _rule_problems(spec: NfServiceSpec, rule: KeyRule) -> list[str]:
    found: list[str] = []
    root = f"/{spec.name}/{spec.api_version}/"
    if not rule.path.startswith(root):
        found.append(f"the path must begin with {root}")
    variables = _VARIABLE.findall(rule.path)
    if not all(re.fullmatch(r"\w+", v) for v in variables) or "{" in _VARIABLE.sub("", rule.path):
        found.append("a variable is written {name}")
    where, _, name = rule.at.partition(":")
    if where == "path" and name not in variables:
        found.append(f"the path has no variable {{{name}}}")
    return found


def from_toml(text: str) -> Manifest:
    """Read an author's `outrider.toml`; `ValueError` names the key that is wrong."""
    try:
        manifest = msgspec.convert(_to_camel(msgspec.toml.decode(text), Manifest, ""), Manifest)
    except msgspec.ValidationError as error:
        raise ValueError(_SNAKE.sub(lambda m: _NAMES[m[0]], str(error))) from None
    except msgspec.DecodeError as error:
        raise ValueError(f"not TOML: {error}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    found = problems(manifest)
    if found:
        raise ValueError("; ".join(found))
    return manifest


def _to_camel(value: Any, kind: Any, at: str) -> Any:
    """Rename the keys of structs, and only those, from TOML's spelling to JSON's."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, dict):
        fields = {f.name: f for f in msgspec.structs.fields(kind)}
        unknown = [f"{at}{key}" for key in value if key not in fields]
        if unknown:
            raise ValueError(f"unknown key {unknown[0]} (known here: {', '.join(fields)})")
        return {fields[k].encode_name: _to_camel(v, fields[k].type, f"{at}{k}.") for k, v in value.items()}
    if get_origin(kind) is Annotated:
        return _to_camel(value, get_args(kind)[0], at)
    if get_origin(kind) is list and isinstance(value, list):
        return [_to_camel(v, get_args(kind)[0], at) for v in value]
    return value


_NAMES = {
    f.encode_name: f.name
    for struct in (Manifest, NfServiceSpec, KeyRule, StateSchema, Resources)
    for f in msgspec.structs.fields(struct)
    if f.encode_name != f.name
}
_SNAKE = re.compile(r"\b(" + "|".join(_NAMES) + r")\b")
