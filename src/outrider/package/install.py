"""Installing a verified package: the archive, its manifest, and a folder `site` with its code and wheels unpacked.

Installed packages are named by their digest, so one is there completely or not at all, and installing twice is
installing once; what a crash leaves begins with `.installing-` and is never used. A package is unpacked from a copy of
the archive that is compared with what was verified, so a file that changes between verifying and installing is
noticed. Workers put `site` on their path; they must not write there (`-B`), because `check_installed` refuses any
file that is not from the package.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from outrider.core import limits
from outrider.core.refusal import Refusal, Refused
from outrider.package import layout
from outrider.package.archive import Archive
from outrider.package.closure import site_plan
from outrider.package.vendors import TrustedVendor
from outrider.package.verify import Verified, check_digests, check_structure, verify, wheel_file
from outrider.package.wheels import Machine, read_members

SITE = "site"
_UNFINISHED = ".installing-"
_FILE_MODE, _FOLDER_MODE = 0o444, 0o755


def archive_in(installed: Path) -> Path:
    """The archive of an installed package."""
    return installed / f"package{layout.SUFFIX}"


def install(verified: Verified, folder: Path) -> Path | Refusal:
    """Install below `folder`; the installed package's folder, named by its digest. Nothing is left if it fails."""
    if verified.machine is None:
        raise ValueError("the package was not verified for a machine")
    target = folder / verified.package_digest
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    unpacked = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))
    try:
        unpacked.chmod(_FOLDER_MODE)
        (unpacked / SITE).mkdir(mode=_FOLDER_MODE)
        # The copy is what is unpacked: the file that was verified may be replaced at any moment.
        shutil.copyfile(verified.archive, archive_in(unpacked))
        with Archive(archive_in(unpacked)) as archive:
            _check_same(archive, verified)
            for path, chunks in _files(archive, verified):
                _write(unpacked / path, chunks)
        _sync(unpacked)
        try:
            unpacked.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise somebody else has installed the same package meanwhile
                raise
        _sync_folder(folder)
    except Refused as refused:
        return refused.refusal
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return target


def check_installed(
    installed: Path, trusted_vendors: Iterable[TrustedVendor], machine: Machine | None = None
) -> Verified | Refusal:
    """Verify an installed package again before it runs: its archive, and that `site` is what comes out of it."""
    verified = verify(archive_in(installed), trusted_vendors, machine)
    if isinstance(verified, Refusal):
        return verified
    try:
        with Archive(archive_in(installed)) as archive:
            expected = {path: _digest(chunks) for path, chunks in _files(archive, verified)}
        unpacked = [*(installed / SITE).rglob("*"), *installed.glob(layout.MANIFEST)]
        there = {p.relative_to(installed).as_posix() for p in unpacked if p.is_symlink() or not p.is_dir()}
        for path in sorted(there ^ expected.keys()):
            return _altered(path, "is not from the package" if path in there else "is missing")
        for path, digest in expected.items():
            if (installed / path).is_symlink() or _digest(_read(installed / path)) != digest:
                return _altered(path, "was changed")
    except Refused as refused:
        return refused.refusal
    return verified


def _altered(path: str, what: str) -> Refusal:
    return Refusal(
        "INSTALLATION_ALTERED",
        f"{path} in the installed package {what}.",
        {"path": path},
        "Remove the installed package and install it again.",
    )


def _check_same(archive: Archive, verified: Verified) -> None:
    """Refuse an archive that is not, to the last file, the one that was verified."""
    check_structure(archive)
    raw = archive.read(layout.DIGESTS, limits.PACKAGE_META_BYTES)
    if layout.package_digest(raw) != verified.package_digest:
        name = verified.archive.name
        sentence = f"{name} is another package than when it was verified."
        raise Refused(Refusal("DIGEST_MISMATCH", sentence, {"path": name}, "Verify it again."))
    check_digests(archive, raw)


def _files(archive: Archive, verified: Verified) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Every file that is unpacked, with its content, each to be read to its end before the next is asked for."""
    yield layout.MANIFEST, archive.chunks(layout.MANIFEST)
    code = sorted(n.removeprefix(layout.CODE) for n in archive.entries if n.startswith(layout.CODE))
    plan = site_plan(code, verified.chosen)
    for path in code:
        yield f"{SITE}/{path}", archive.chunks(f"{layout.CODE}{path}")
    for wheel in verified.chosen:
        with wheel_file(archive, f"{layout.WHEELS}{wheel.file_name}") as file:
            members = (path for path in wheel.members if plan[path] is wheel)
            for path, chunks in read_members(wheel, file, members):
                yield f"{SITE}/{path}", chunks


def _digest(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for data in chunks:
        digest.update(data)
    return digest.hexdigest()


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(1 << 18):
            yield data


def _write(path: Path, chunks: Iterable[bytes]) -> None:
    path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _FILE_MODE)
    with os.fdopen(fd, "wb") as file:
        for data in chunks:
            file.write(data)
        file.flush()
        os.fsync(fd)


def _sync(top: Path) -> None:
    with archive_in(top).open("rb") as file:
        os.fsync(file.fileno())
    for folder, _, _ in os.walk(top):
        _sync_folder(Path(folder))


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
