"""The manifest of a package: what a communication service's advanced part is made of and what it needs.

Authors write it as `outrider.toml`; the package carries it as canonical JSON. Field names are camelCase in JSON and
snake_case in TOML.
"""

from typing import Literal

import msgspec


class KeyRule(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How a request's key is found: the first rule whose `path` (RFC 6570 template) and method fit decides.

    `at` says where the key's name stands: `path:VARIABLE` of the template, or `body:/JSON/POINTER`. `of` says what it
    names: a UE's identity (`ue`) or a shared object (`shared`, the name is `prefix` + value). `creates` allows the
    first request of an unknown UE.
    """

    path: str
    at: str
    methods: list[str] = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    of: Literal["ue", "shared"] = "ue"
    prefix: str = ""
    creates: bool = False


class NfServiceSpec(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One NF service: the NF type that hosts it, its API, its ASGI app (`module:attribute`), how its keys are found."""

    name: str
    nf_type: str
    app: str
    keys: list[KeyRule]
    api_version: str = "v1"
    api_full_version: str = "1.0.0"


class StateSchema(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Version of the records' layout, the versions this software reads, and each NF service's data category."""

    version: int = 1
    reads: list[int] = [1]
    categories: dict[str, str] = {}


class Resources(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What one worker may use at most."""

    memory_mb: int = 256
    processes: int = 8
    cpu_share: float = 1.0


class Manifest(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A communication service's advanced part, as its vendor describes it."""

    service: str
    version: str
    vendor: str
    description: str = ""
    nf_services: list[NfServiceSpec]
    requirements: list[str] = []
    """Python distributions (PEP 508) that the code imports; each is in the package as a wheel."""
    architectures: list[str] = []
    """Machines (`x86_64`, `aarch64`) that the wheels run on; filled in by `package build`."""
    python: str = ""
    """`major.minor` of the interpreter that the wheels are for; filled in by `package build`."""
    anchoring: Literal["lbo", "hr", "hr-sbo", "none"] = "none"
    requires: list[str] = []
    """APIs of the basic part that it consumes."""
    s_nssai: list[dict[str, str | int]] = []
    dnn: list[str] = []
    state_schema: StateSchema = StateSchema()
    resources: Resources = Resources()
    licence: str = "NOASSERTION"
