"""Wheels out of what is installed: the distributions of the building environment, and the SDK from its own source.

An installed distribution is put back into a wheel from its RECORD, each file checked against it. Times, order and what
installers add are left out, and nothing is compressed (the archive does that), so the same distribution gives the same
bytes on every machine. They are not the bytes that were downloaded: the SBOM carries the digest of these.
"""

import csv
import hashlib
import importlib.metadata
import importlib.resources
import io
from importlib.metadata import Distribution, PackageNotFoundError
from importlib.resources.abc import Traversable
from pathlib import Path

from packaging.tags import Tag, parse_tag
from packaging.utils import canonicalize_name

import outrider
from outrider.core.refusal import Refusal, Refused
from outrider.package.archive import write_zip
from outrider.package.wheels import record_hash

SDK_NAME = "outrider-sdk"
SDK_REQUIREMENTS = ("msgspec",)
"""What `outrider.sdk` imports beside the standard library."""

_BY_INSTALLERS = frozenset(("INSTALLER", "REQUESTED", "RECORD", "RECORD.jws", "RECORD.p7s", "direct_url.json"))


def repack(name: str) -> tuple[str, bytes] | None:
    """File name and bytes of a wheel of an installed distribution; None if it is not installed."""
    try:
        distribution = importlib.metadata.distribution(name)
    except PackageNotFoundError:
        return None
    info = _info(distribution, name)
    record = distribution.read_text("RECORD")
    wheel = distribution.read_text("WHEEL")
    if record is None or wheel is None:
        raise _unusable(name, "it was not installed from a wheel")
    files: dict[str, bytes] = {}
    for row in csv.reader(io.StringIO(record)):
        if len(row) != 3 or _left_out(row[0], info):
            continue
        files[row[0]] = _read(distribution, name, row[0], row[1])
    if not any(path.partition("/")[0] != info and not path.endswith(".pth") for path in files):
        raise _unusable(name, "it is installed in editable mode, so its code is not in it")
    return f"{info.removesuffix('.dist-info')}-{_tags(wheel)}.whl", _wheel(info, files)


def sdk() -> tuple[str, bytes]:
    """File name and bytes of the wheel of `outrider.sdk`, the only part of Outrider that a worker gets."""
    version = outrider.__version__
    info = f"{SDK_NAME.replace('-', '_')}-{version}.dist-info"
    files = {
        "outrider/__init__.py": b'"""Outrider, as far as workers have it: `outrider.sdk`."""\n',
        f"{info}/METADATA": (
            f"Metadata-Version: 2.4\nName: {SDK_NAME}\nVersion: {version}\n"
            "Summary: What NF services are written with\nAuthor: Outrider\nLicense-Expression: Apache-2.0\n"
            "License-File: LICENSE\nRequires-Python: >=3.11\n"
            + "".join(f"Requires-Dist: {r}\n" for r in SDK_REQUIREMENTS)
        ).encode(),
        f"{info}/WHEEL": (
            f"Wheel-Version: 1.0\nGenerator: outrider {version}\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ).encode(),
        f"{info}/licenses/LICENSE": _own_licence(),
    }
    _collect(importlib.resources.files("outrider.sdk"), "outrider/sdk", files)
    return f"{info.removesuffix('.dist-info')}-py3-none-any.whl", _wheel(info, files)


def _collect(folder: Traversable, path: str, files: dict[str, bytes]) -> None:
    for item in folder.iterdir():
        if item.is_dir() and item.name.isidentifier():
            _collect(item, f"{path}/{item.name}", files)
        elif item.name.endswith(".py"):
            files[f"{path}/{item.name}"] = item.read_bytes()


def _own_licence() -> bytes:
    """The licence text, from the installed distribution or from the source tree."""
    tree = Path(outrider.__file__).parents[2] / "LICENSE"
    if tree.is_file():
        return tree.read_bytes()
    text = importlib.metadata.distribution("outrider").read_text("licenses/LICENSE")
    if text is None:
        raise FileNotFoundError("the licence text of Outrider is not installed")
    return text.encode()


def _info(distribution: Distribution, name: str) -> str:
    """Name of the .dist-info folder."""
    for file in distribution.files or ():
        folder = file.parts[0]
        if folder.endswith(".dist-info") and len(file.parts) == 2 and file.name == "METADATA":
            return folder
    raise _unusable(name, "it has no list of its files")


def _left_out(path: str, info: str) -> bool:
    """Whether a file is not from the wheel (caches, the installer's notes) or is of no use to a worker (scripts)."""
    parts = path.split("/")
    if path.startswith(("/", "..")) or "__pycache__" in parts or path.endswith(".pyc"):
        return True
    return parts[0] == info and len(parts) == 2 and (parts[1] in _BY_INSTALLERS or parts[1].startswith("uv_"))


def _read(distribution: Distribution, name: str, path: str, expected: str) -> bytes:
    try:
        data = Path(str(distribution.locate_file(path))).read_bytes()
    except OSError as error:
        raise _unusable(name, f"its file {path} cannot be read ({error.strerror})") from None
    if expected and expected != record_hash(hashlib.sha256(data).digest()):
        raise _unusable(name, f"its file {path} was changed after it was installed")
    return data


def _tags(wheel: str) -> str:
    """The compressed tag set of a wheel's name, with the build number in front if there is one."""
    fields = [line.partition(": ")[::2] for line in wheel.splitlines()]
    build = "".join(f"{value.strip()}-" for key, value in fields if key == "Build")
    tags: set[Tag] = set()
    for key, value in fields:
        if key == "Tag":
            tags |= parse_tag(value.strip())
    parts = ({t.interpreter for t in tags}, {t.abi for t in tags}, {t.platform for t in tags})
    return build + "-".join(".".join(sorted(part)) for part in parts)


def _wheel(info: str, files: dict[str, bytes]) -> bytes:
    """The wheel with these files and a fresh RECORD."""
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for path in sorted(files):
        rows.writerow((path, record_hash(hashlib.sha256(files[path]).digest()), len(files[path])))
    rows.writerow((f"{info}/RECORD", "", ""))
    members = files | {f"{info}/RECORD": record.getvalue().encode()}
    buffer = io.BytesIO()
    write_zip(buffer, sorted(members.items()), compress=False)
    return buffer.getvalue()


def _unusable(name: str, why: str) -> Refused:
    return Refused(
        Refusal(
            "DISTRIBUTION_UNUSABLE",
            f"The installed distribution {name} cannot be packaged: {why}.",
            {"distribution": canonicalize_name(name)},
            "Install it from a wheel, or give wheels with `--wheels`.",
        )
    )
