"""A sample service, its vendor, its package, and ways to spoil a package."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from outrider.core.canonical import canonical, sha256_hex
from outrider.package import archive, layout, signing
from outrider.package.build import Built, build
from outrider.package.vendors import TrustedVendor

TOML = """
service = "roll-call"
version = "1.2.0"
vendor = "Acme Rail"
description = "Who is here"
licence = "Apache-2.0"
requirements = ["starlette", "msgspec"]

[state_schema.categories]
nsmf-rollcall = "service"

[[nf_services]]
name = "nsmf-rollcall"
nf_type = "SMF"
app = "rollcall.app:app"

[[nf_services.keys]]
path = "/nsmf-rollcall/v1/ues/{supi}"
at = "path:supi"
creates = true
"""

APP = '''"""Answers who is here."""

import json
from typing import TYPE_CHECKING

import msgspec
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from rollcall import names

if TYPE_CHECKING:
    import not_needed_when_it_runs

try:
    import a_faster_json as fast
except ImportError:
    fast = json


async def here(request):
    return Response(msgspec.json.encode({"name": names.NAME}))


app = Starlette(routes=[Route("/nsmf-rollcall/v1/ues/{supi}", here)])
'''


def write_service(folder: Path, **files: str) -> Path:
    """A service's folder; `files` replace or add, with `__` for `/` and without `.py`."""
    contents = {
        "outrider.toml": TOML,
        "LICENSE": "do what you like\n",
        "rollcall/__init__.py": "",
        "rollcall/app.py": APP,
        "rollcall/names.py": 'NAME = "Ada"\n',
    }
    contents |= {name if "." in name else f"{name.replace('__', '/')}.py": text for name, text in files.items()}
    for name, text in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@dataclass(frozen=True)
class Sample:
    """A built package and those concerned."""

    built: Built
    path: Path
    key: Ed25519PrivateKey
    vendor: TrustedVendor

    def members(self) -> dict[str, bytes]:
        with zipfile.ZipFile(self.path) as source:
            return {name: source.read(name) for name in source.namelist()}


@pytest.fixture(scope="session")
def toml() -> str:
    return TOML


@pytest.fixture(scope="session")
def vendor_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory, vendor_key: Ed25519PrivateKey) -> Sample:
    folder = tmp_path_factory.mktemp("sample")
    built = build(write_service(folder / "service"), folder / "out", vendor_key)
    assert isinstance(built, Built), built
    return Sample(built, Path(built.file), vendor_key, TrustedVendor("Acme Rail", vendor_key.public_key()))


@pytest.fixture
def service(tmp_path: Path) -> Callable[..., Path]:
    def make(**files: str) -> Path:
        return write_service(tmp_path / "service", **files)

    return make


@pytest.fixture
def pack(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Write members as an archive of the one true form, whatever they say; not compressed, because that takes time."""

    def write(members: dict[str, bytes]) -> Path:
        path = tmp_path / "changed.lms"
        buffer = io.BytesIO()
        archive.write_zip(buffer, sorted(members.items()), compress=False)
        path.write_bytes(buffer.getvalue())
        return path

    return write


@pytest.fixture
def resign(pack: Callable[[dict[str, bytes]], Path]) -> Callable[[dict[str, bytes], Ed25519PrivateKey], Path]:
    """As `pack`, with digests and signature made anew: what a vendor who lies, or errs, could hand out."""

    def write(members: dict[str, bytes], key: Ed25519PrivateKey, name: str | None = None) -> Path:
        rest = {n: d for n, d in members.items() if n not in (layout.DIGESTS, layout.SIGNATURE)}
        digests = canonical({n: sha256_hex(d) for n, d in rest.items()})
        manifest = json.loads(rest[layout.MANIFEST]) if rest.get(layout.MANIFEST, b"").startswith(b"{") else {}
        subject = name or f"{manifest.get('service', 'roll-call')}-{manifest.get('version', '1.2.0')}.lms"
        statement = layout.Statement(
            [layout.Subject(subject, layout.Sha256(layout.package_digest(digests)))],
            layout.Predicate(
                manifest.get("vendor", "Acme Rail"),
                layout.Sha256(sha256_hex(rest.get(layout.MANIFEST, b""))),
                layout.Sha256(sha256_hex(rest.get(layout.sbom_in(rest) or "", b""))),
            ),
        )
        envelope = signing.sign(canonical(statement), signing.IN_TOTO_TYPE, key)
        return pack(rest | {layout.DIGESTS: digests, layout.SIGNATURE: envelope})

    return write
