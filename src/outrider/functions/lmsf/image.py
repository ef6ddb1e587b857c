"""The file of a service at rest: a zip of what it is (`image.dsse.json`), its package and its contexts.

What it is names the digests of the other two and is signed by the operator who saved it, so nobody else can change
anything of it. It is not encrypted: whoever reads the file reads the identity and the state of every UE in it. So it is
kept as the network's own folder is, and its mode is 0600.
"""

import hashlib
import os
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

import msgspec

from outrider.core import limits
from outrider.core.canonical import canonical
from outrider.core.refusal import Refusal, Refused
from outrider.functions.lmsf.ports import Signer
from outrider.package import signing
from outrider.store.image import StoreFacts

META, PACKAGE, STORE = "image.dsse.json", "package.lms", "contexts.db"
TYPE = "application/vnd.outrider.image+json"
_CHUNK = 1 << 20
_MODE = 0o100600 << 16


class Part(msgspec.Struct, frozen=True, rename="camel"):
    """A file in the image."""

    sha256: str
    size_bytes: int


class Meta(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What an image says of itself."""

    format: Literal[1] = 1
    service: str
    version: str
    home: str
    """The network whose operator offers the service; it is restored there only."""
    package_digest: str
    architectures: list[str]
    python: str
    store: StoreFacts
    parts: dict[str, Part]
    saved_ms: int
    operator_key: str
    """Public key (PEM) of the operator who saved it, with which this is signed."""

    @property
    def signer(self) -> str:
        """The fingerprint of that key."""
        return key_id(self.operator_key.encode())


def key_id(pem: bytes) -> str:
    """The fingerprint of an operator's public key."""
    return signing.key_id(signing.load_public(pem, "the key in the image"))


def part_of(path: Path) -> Part:
    """Digest and size of a file."""
    with path.open("rb") as file:
        return Part(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def write(into: Path, meta: Meta, package: Path, store: Path, signer: Signer, advance: Callable[[int], None]) -> None:
    """Write the file; durable when this returns."""
    descriptor = os.open(into, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w+b") as file:
        with zipfile.ZipFile(file, "w") as image:
            image.writestr(_info(META, zipfile.ZIP_STORED), signer.sign(canonical(meta), TYPE))
            for name, path, method in ((PACKAGE, package, zipfile.ZIP_STORED), (STORE, store, zipfile.ZIP_DEFLATED)):
                info = _info(name, method)
                info.file_size = path.stat().st_size
                with image.open(info, "w") as member, path.open("rb") as source:
                    while data := source.read(_CHUNK):
                        member.write(data)
                        advance(len(data))
        file.flush()
        os.fsync(file.fileno())


def _info(name: str, method: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.compress_type = method
    info.external_attr = _MODE
    return info


class Image:
    """An image that is read; everything that it says is doubted until it is compared."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise malformed(str(error)) from None
        try:
            self.meta = self._read_meta()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> "Image":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def _read_meta(self) -> Meta:
        names = self._zip.namelist()
        if sorted(names) != sorted((META, PACKAGE, STORE)):
            raise malformed("it has other files than an image has")
        if self._zip.getinfo(META).file_size > limits.ENVELOPE_BYTES:
            raise malformed(f"its {META} is too large")
        try:
            self._envelope = self._zip.read(META)
            opened = signing.open_envelope(self._envelope, TYPE)
            if isinstance(opened, Refusal):
                raise malformed(f"{META}: {opened.sentence}")
            meta = msgspec.json.decode(opened.payload, type=Meta)
        except (msgspec.MsgspecError, zipfile.BadZipFile) as error:
            raise malformed(f"{META}: {error}") from None
        if meta.parts.keys() != {PACKAGE, STORE}:
            raise malformed(f"its {META} describes other files")
        for name, part in meta.parts.items():
            if self._zip.getinfo(name).file_size != part.size_bytes:
                raise malformed(f"{name} is not as long as {META} says")
        return meta

    def check_signer(self, trusted: Collection[str]) -> None:
        """Refuse what none of these keys, given by their fingerprints, has signed."""
        name = self.meta.signer
        if name not in trusted:
            raise Refused(
                Refusal(
                    "IMAGE_SIGNER_UNKNOWN",
                    f"The image is signed with key {name}, which is not that of this network.",
                    {"signedBy": name},
                    "Compare it with what `outrider service save` said when the image was made; if it is that key, "
                    "name it with `--signer`.",
                )
            )
        signed = signing.verify(self._envelope, TYPE, [signing.load_public(self.meta.operator_key.encode())])
        if isinstance(signed, Refusal):
            raise Refused(signed)

    def extract(self, name: str, into: Path) -> None:
        """Write a part to a file, compared with its digest; nothing is left if it differs."""
        part, digest, left = self.meta.parts[name], hashlib.sha256(), self.meta.parts[name].size_bytes
        try:
            with (
                os.fdopen(os.open(into, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file,
                self._zip.open(name) as member,
            ):
                while data := member.read(min(_CHUNK, left + 1)):
                    left -= len(data)
                    if left < 0:
                        break
                    digest.update(data)
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if left or digest.hexdigest() != part.sha256:
                raise _mismatch(name)
        except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            into.unlink(missing_ok=True)
            raise _mismatch(name) from error
        except BaseException:
            into.unlink(missing_ok=True)
            raise


def _mismatch(name: str) -> Refused:
    return Refused(
        Refusal(
            "DIGEST_MISMATCH",
            f"{name} in the image was changed or damaged since it was saved.",
            {"path": name},
            "Use another copy of the image.",
        )
    )


def malformed(what: str) -> Refused:
    """The file is not what `outrider service save` writes."""
    sentence = f"The file is no image of a service: {what}."
    return Refused(Refusal("IMAGE_MALFORMED", sentence, remedy="Name a file of `outrider service save`.", status=400))
