"""Building a package: from a folder with `outrider.toml` and code to one signed archive, the same bytes every time."""

import contextlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from packaging.requirements import Requirement

from outrider.core import limits
from outrider.core.canonical import canonical, sha256_hex
from outrider.core.manifest import Manifest, from_toml
from outrider.core.refusal import Refusal, Refused
from outrider.package import archive, imports, layout, sbom, signing, spdx
from outrider.package.closure import (
    ANY,
    Needed,
    Pool,
    for_architecture,
    over_architectures,
    requirements_of,
    resolve,
    site_plan,
)
from outrider.package.verify import check_digests, check_structure
from outrider.package.wheels import python_here

SbomFormat = Literal["cyclonedx", "spdx"]

SOURCE_FILE = "outrider.toml"
_TESTS = ("tests", "test")
"""Top-level folders that stay out: what is in them does not run in a worker, and imports what is not packaged."""


class Built(msgspec.Struct, frozen=True, rename="camel"):
    """A package that was built."""

    file: str
    package_digest: str
    sbom_digest: str
    vendor_key: str
    service: str
    version: str
    architectures: list[str]
    python: str
    size_bytes: int
    libraries: list[sbom.Listed]
    without_licence_text: list[str]
    """Wheels that carry no licence text: whether they may be passed on is for the vendor to find out."""


def build(
    source: Path,
    output: Path,
    key: Ed25519PrivateKey,
    *,
    wheel_dir: Path | None = None,
    timestamp_s: int | None = None,
    sbom_format: SbomFormat = "cyclonedx",
    chain: Sequence[bytes] = (),
) -> Built | Refusal:
    """Build the package of a folder into `output` (a folder, or a file that ends in `.lms`).

    Wheels come from `wheel_dir`, or else are made of what is installed here. `timestamp_s` goes into the SBOM. `chain`
    are certificates (DER) that vouch for the key, its own first.
    """
    try:
        return _build(source, output, key, wheel_dir, timestamp_s, sbom_format, chain)
    except Refused as refused:
        return refused.refusal


def _build(
    source: Path,
    output: Path,
    key: Ed25519PrivateKey,
    wheel_dir: Path | None,
    timestamp_s: int | None,
    sbom_format: SbomFormat,
    chain: Sequence[bytes],
) -> Built:
    manifest = _read_manifest(source)
    code = _read_code(source)
    pool = Pool(wheel_dir)
    wanted = requirements_of(manifest.requirements)
    manifest, needed = _for_architectures(manifest, wanted, pool, wheel_dir is not None)
    _check_code(manifest, code, wanted, pool)

    files = {f"{layout.CODE}{path}": data for path, data in code.items()}
    files |= {f"{layout.WHEELS}{name}": pool.content(wheel) for name, wheel in needed.wheels.items()}
    packed = sbom.packed_wheels(needed, {n: sha256_hex(files[f"{layout.WHEELS}{n}"]) for n in needed.wheels})
    texts = {name: pool.texts(wheel) for name, wheel in needed.wheels.items()}
    for name, found in texts.items():
        wheel = needed.wheels[name]
        for path, data in found.items():
            files[f"{layout.LICENCES}{wheel.name}-{wheel.version}/{path.partition('/')[2]}"] = data
    files |= {
        f"{layout.LICENCES}{manifest.service}/{path}": data
        for path, data in code.items()
        if "/" not in path and path.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE"))
    }
    digests_of_code = {p: sha256_hex(d) for p, d in files.items() if p.startswith(layout.CODE)}
    content = sbom.Content(manifest, digests_of_code, packed, sbom.wheel_paths(needed.needs[""]))
    files[layout.MANIFEST] = manifest.encode()
    form, entry = (spdx, layout.SPDX) if sbom_format == "spdx" else (sbom, layout.SBOM)
    files[entry] = form.build(content, timestamp_s)
    problem = form.check(files[entry], content)
    if problem is not None:
        raise Refused(problem)
    files[layout.DIGESTS] = digests = canonical({path: sha256_hex(data) for path, data in files.items()})
    statement = layout.statement(manifest, files[layout.MANIFEST], files[entry], digests)
    files[layout.SIGNATURE] = signing.sign(statement, signing.IN_TOTO_TYPE, key, chain)
    _check_bounds(files)

    file = output if output.suffix == layout.SUFFIX else output / layout.file_name(manifest)
    file.parent.mkdir(parents=True, exist_ok=True)
    archive.write_atomic(file, sorted(files.items()))
    return Built(
        file=str(file),
        package_digest=layout.package_digest(digests),
        sbom_digest=layout.sbom_digest(files[entry]),
        vendor_key=signing.key_id(key.public_key()),
        service=manifest.service,
        version=manifest.version,
        architectures=manifest.architectures,
        python=manifest.python,
        size_bytes=file.stat().st_size,
        libraries=sbom.listed(packed),
        without_licence_text=sorted(name for name, found in texts.items() if not found),
    )


def _read_manifest(source: Path) -> Manifest:
    file = source / SOURCE_FILE
    try:
        return from_toml(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        sentence = f"{source} has no {SOURCE_FILE}, so it is not the folder of a service."
        raise Refused(Refusal("MANIFEST_MISSING", sentence, {"file": str(file)}, "Name another folder.")) from None
    except ValueError as error:
        raise Refused(
            Refusal("MANIFEST_INVALID", f"{file}: {error}.", {"file": str(file)}, "Correct the file.", status=400)
        ) from None


def _read_code(source: Path) -> dict[str, bytes]:
    """The folder's files by path, without caches, hidden files, tests, archives and the manifest's source."""
    code: dict[str, bytes] = {}
    for folder, folders, files in os.walk(source):
        at = Path(folder).relative_to(source)
        kept = [f for f in folders if not _left_out(f) and not (at == Path() and f in _TESTS)]
        folders[:] = sorted(kept)
        for name in sorted(kept + files):
            path, full = (at / name).as_posix(), Path(folder, name)
            if _left_out(name) or path == SOURCE_FILE:
                continue
            if full.is_symlink() or not (full.is_file() or full.is_dir()):
                raise archive.path_refused(path, "it is a link or a device; a package has files only")
            if full.is_file():
                archive.check_path(path)
                code[path] = _read_file(full, path)
    return code


def _left_out(name: str) -> bool:
    cache = name == "__pycache__" or name.endswith((".pyc", ".pyo", ".egg-info"))
    return cache or name.startswith(".") or name.endswith(layout.SUFFIX)


def _read_file(path: Path, name: str) -> bytes:
    data = path.read_bytes()
    if b"PRIVATE KEY-----" in data:
        raise Refused(
            Refusal(
                "SECRET_IN_CODE",
                f"{name} holds a private key, which would be handed to every network that the package goes to.",
                {"file": name},
                "Keep keys outside the service's folder.",
            )
        )
    return data


def _for_architectures(
    manifest: Manifest, wanted: Sequence[Requirement], pool: Pool, from_folder: bool
) -> tuple[Manifest, Needed]:
    """The manifest with architectures and Python filled in, and the wheels needed for them."""
    python = python_here()
    here = platform.machine()
    if manifest.architectures:
        served = sorted(set(manifest.architectures))
    elif from_folder:
        served = []
        for architecture in sorted(pool.architectures):
            with contextlib.suppress(Refused):
                resolve(wanted, pool.find, for_architecture(architecture, python), architecture, python)
                served.append(architecture)
    else:
        served = [here]
    # With none served, resolving for this machine says what is missing.
    served = served or [here]
    needed = over_architectures(wanted, pool.find, served, python)
    if not any(wheel.architectures for wheel in needed.wheels.values()):
        served = [ANY]
        needed = over_architectures(wanted, pool.find, served, python)
    return msgspec.structs.replace(manifest, architectures=served, python=python), needed


def _check_code(manifest: Manifest, code: dict[str, bytes], wanted: Sequence[Requirement], pool: Pool) -> None:
    """Each architecture's `site` must be free of conflicts and have every module that the code imports."""
    for architecture in manifest.architectures:
        fits = for_architecture(architecture, manifest.python)
        chosen = resolve(wanted, pool.find, fits, architecture, manifest.python).wheels
        apps = [spec.app for spec in manifest.nf_services]
        imports.check(code, apps, {name: wheel.members for name, wheel in chosen.items()})
        site_plan(code, chosen.values())


def _check_bounds(files: dict[str, bytes]) -> None:
    """What a reader would refuse is not written."""
    for path in files:
        archive.check_path(path)
    total = sum(map(len, files.values()))
    if len(files) > limits.PACKAGE_ENTRIES:
        raise archive.too_large(f"{len(files)} files, more than {limits.PACKAGE_ENTRIES}")
    if total > limits.PACKAGE_BYTES:
        raise archive.too_large(f"{total} bytes, more than {limits.PACKAGE_BYTES}")


def sign_again(path: Path, key: Ed25519PrivateKey, chain: Sequence[bytes] = ()) -> str | Refusal:
    """Add a vendor's signature to a package, so that it outlives the key that signed it before; the package digest.

    Nothing else changes, and the signature is no part of what the digest is over: permissions stay as they are.
    """
    try:
        with archive.Archive(path) as opened:
            check_structure(opened)
            raw = opened.read(layout.DIGESTS, limits.PACKAGE_META_BYTES)
            check_digests(opened, raw)
            envelope = opened.read(layout.SIGNATURE, limits.ENVELOPE_BYTES)
            members = {name: b"".join(opened.chunks(name)) for name in opened.entries}
        signed = signing.add_signature(envelope, signing.IN_TOTO_TYPE, key, chain)
        if isinstance(signed, Refusal):
            return signed
        archive.write_atomic(path, sorted((members | {layout.SIGNATURE: signed}).items()))
    except Refused as refused:
        return refused.refusal
    return layout.package_digest(raw)
