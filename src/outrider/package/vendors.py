"""Vendors whose packages a network takes: a public key or a certificate authority, under the vendor's name.

PEM allows text before the key, so name, validity and key are one file that a vendor hands out and an operator keeps:

    Vendor: Acme Rail
    Not-After: 2027-06-30
    -----BEGIN PUBLIC KEY-----

The name binds: a package that names another vendor than the key's is refused. A vendor may have several files: while
it replaces a key, both count for a time. With a certificate in the place of the key, every key counts whose
certificate chain leads to it.
"""

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from outrider.core.refusal import Refusal, Refused
from outrider.package import signing

SUFFIX = ".pub"
FILE_BYTES = 16 * 1024

_HEAD = re.compile(rb"\A((?:[A-Za-z-]+: [^\x00-\x1f\x7f]{1,320}\r?\n)+)")
_DATE = re.compile(r"\A\d{4}-\d\d-\d\d\Z")


@dataclass(frozen=True, slots=True)
class TrustedVendor:
    """A vendor and one of its keys, or its certificate authority in the key's place."""

    name: str
    key: Ed25519PublicKey | None
    authority: x509.Certificate | None = None
    not_before: dt.date | None = None
    """First and last day (UTC) on which the key counts; None: without a bound."""
    not_after: dt.date | None = None

    def valid(self, on: dt.date) -> bool:
        """Whether the key counts on a day."""
        return (self.not_before is None or self.not_before <= on) and (self.not_after is None or on <= self.not_after)

    def encode(self) -> bytes:
        """The file that the vendor hands out."""
        lines = [f"Vendor: {self.name}"]
        lines += [f"Not-Before: {self.not_before}"] if self.not_before is not None else []
        lines += [f"Not-After: {self.not_after}"] if self.not_after is not None else []
        pem = b""
        if self.key is not None:
            pem = signing.public_pem(self.key)
        elif self.authority is not None:
            pem = self.authority.public_bytes(serialization.Encoding.PEM)
        return "".join(f"{line}\n" for line in lines).encode() + pem


def read(path: Path) -> TrustedVendor:
    """Read a vendor's public file; raises `Refused`."""
    with path.open("rb") as file:
        data = file.read(FILE_BYTES)
    match = _HEAD.match(data)
    try:
        lines = match[1].decode().splitlines() if match is not None else []
    except UnicodeDecodeError:
        lines = []
    said = {name: value.strip() for name, _, value in (line.partition(": ") for line in lines)}
    if len(said) < len(lines):
        raise _invalid(path, "says one thing twice above its key")
    name = said.pop("Vendor", "")
    if match is None or not lines[:1] or not lines[0].startswith("Vendor: ") or not 1 <= len(name) <= 80:
        raise _invalid(path, "does not begin with a line `Vendor: NAME`")
    not_before, not_after = (_date(path, said.pop(field, "")) for field in ("Not-Before", "Not-After"))
    if said:
        raise _invalid(path, f"has a line {min(said)[:40]!r}, which means nothing here")
    key, authority, pem = None, None, data[match.end() :]
    if b"BEGIN CERTIFICATE" in pem:
        try:
            authority = x509.load_pem_x509_certificate(pem)
        except ValueError as error:
            raise _invalid(path, f"has a certificate that cannot be read ({error})") from None
    else:
        key = signing.load_public(pem, str(path))
    return TrustedVendor(name, key, authority, not_before, not_after)


def _date(path: Path, text: str) -> dt.date | None:
    if not text:
        return None
    try:
        if not _DATE.match(text):
            raise ValueError
        return dt.date.fromisoformat(text)
    except ValueError:
        raise _invalid(path, f"has {text[:40]!r} where a date stands, as 2027-06-30") from None


def _invalid(path: Path, what: str) -> Refused:
    return Refused(
        Refusal(
            "KEY_INVALID",
            f"{path} {what}.",
            {"file": str(path)},
            "Ask the vendor for the `.pub` file that `outrider package keygen` made.",
            status=400,
        )
    )


def read_all(paths: Iterable[Path]) -> list[TrustedVendor]:
    """Read several; a folder stands for the `.pub` files in it. Raises `Refused`."""
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    return [read(file) for file in files]


def generate(
    path: Path, name: str, not_before: dt.date | None = None, not_after: dt.date | None = None
) -> tuple[TrustedVendor, Path]:
    """Make a vendor's key pair: the private key in `path`, the public one beside it. Nothing is overwritten."""
    key = Ed25519PrivateKey.generate()
    vendor = TrustedVendor(name, key.public_key(), None, not_before, not_after)
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
