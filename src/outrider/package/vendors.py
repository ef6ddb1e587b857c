"""Vendors whose packages a network takes: a public key, with the vendor's name in a line above it.

PEM allows text before the key, so the name and the key are one file that a vendor hands out and an operator keeps.
The name binds: a package that names another vendor than the key's is refused.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from outrider.core.refusal import Refusal, Refused
from outrider.package import signing

SUFFIX = ".pub"
FILE_BYTES = 16 * 1024

_NAME = re.compile(rb"\AVendor: ([^\x00-\x1f\x7f]{1,320})\r?\n")


@dataclass(frozen=True, slots=True)
class TrustedVendor:
    """A vendor and one of its keys."""

    name: str
    key: Ed25519PublicKey

    def encode(self) -> bytes:
        """The file that the vendor hands out."""
        return f"Vendor: {self.name}\n".encode() + signing.public_pem(self.key)


def read(path: Path) -> TrustedVendor:
    """Read a vendor's public key file; raises `Refused`."""
    with path.open("rb") as file:
        data = file.read(FILE_BYTES)
    match = _NAME.match(data)
    try:
        name = match[1].decode().strip() if match is not None else ""
    except UnicodeDecodeError:
        name = ""
    if match is None or not 1 <= len(name) <= 80:
        raise Refused(
            Refusal(
                "KEY_INVALID",
                f"{path} does not begin with a line `Vendor: NAME`.",
                {"file": str(path)},
                "Ask the vendor for the `.pub` file that `outrider package keygen` made.",
                status=400,
            )
        )
    return TrustedVendor(name, signing.load_public(data[match.end() :], str(path)))


def read_all(paths: Iterable[Path]) -> list[TrustedVendor]:
    """Read several; a folder stands for the `.pub` files in it. Raises `Refused`."""
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    return [read(file) for file in files]


def generate(path: Path, name: str) -> tuple[TrustedVendor, Path]:
    """Make a vendor's key pair: the private key in `path`, the public one beside it. Nothing is overwritten."""
    key = Ed25519PrivateKey.generate()
    vendor = TrustedVendor(name, key.public_key())
    public = path.with_suffix(SUFFIX)
    if not (1 <= len(name) <= 80 and name.isprintable() and name == name.strip()):
        raise Refused(Refusal("NAME_INVALID", "A vendor's name is one line of at most 80 characters.", status=400))
    for file in (path, public):
        if file.exists():
            raise Refused(
                Refusal(
                    "KEY_EXISTS",
                    f"{file} exists already, and keys are never overwritten.",
                    {"file": str(file)},
                    "Name another file.",
                    status=409,
                )
            )
    signing.write_private(path, key)
    public.write_bytes(vendor.encode())
    return vendor, public
