"""The revocation lists that an operator has taken, in a folder beside its vendors: the newest of each issuer.

`seen.json` remembers the number of the newest list of each issuer. A list that has gone, or is older than that, is a
refusal (`REVOCATIONS_OLD`) of everything that would have to be judged by it: whoever can take a file away must not be
able to bring back what was revoked.
"""

import datetime as dt
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from outrider.core import limits
from outrider.core.canonical import NotCanonical, canonical, decode_canonical, sha256_hex
from outrider.core.refusal import Refusal, Refused
from outrider.core.revoked import REVOKED_TYPE, Entry, RevocationList
from outrider.package import signing, trust
from outrider.package.vendors import TrustedVendor

_SEEN = "seen.json"


class _Seen(msgspec.Struct, frozen=True):
    """The newest list of an issuer that was ever taken here."""

    sequence: int
    digest: str
    """SHA-256 of what was signed: two lists of one number are two lists."""


def sign(revocations: RevocationList, key: Ed25519PrivateKey, chain: Sequence[bytes] = ()) -> bytes:
    """The list in an envelope."""
    return signing.sign(revocations.encode(), REVOKED_TYPE, key, chain)


def show(envelope: bytes) -> RevocationList | Refusal:
    """What a list says, whoever signed it."""
    opened = signing.open_envelope(envelope, REVOKED_TYPE)
    if isinstance(opened, Refusal):
        return opened
    try:
        found = decode_canonical(opened.payload, RevocationList)
        if found.encode() != opened.payload:
            raise NotCanonical("it leaves out what it must say")
    except NotCanonical as error:
        return Refusal("REVOCATIONS_MALFORMED", f"The revocation list cannot be read: {error}.", status=400)
    return found


class Revocations:
    """The folder. `own` is this operator's network, whose key revokes anything; a vendor's revokes what is its own."""

    def __init__(self, folder: Path, own: str, own_key: Ed25519PublicKey) -> None:
        self._folder = folder
        self._own = TrustedVendor(own, own_key)
        self._stamp: object = None
        self._read = trust.Revoked(own=own)

    def all(self) -> list[RevocationList]:
        """The newest list of each issuer, whether or not its signer is trusted now."""
        lists = []
        for path in sorted(self._folder.glob("*.json")):
            if path.name != _SEEN:
                found = show(_read(path))
                if isinstance(found, Refusal):
                    raise Refused(found)
                lists.append(found)
        return lists

    def load(self) -> trust.Revoked:
        """What is revoked; raises `Refused` if a list that was seen is not there, or an older one is."""
        stamp = tuple(
            (p.name, (stat := p.stat()).st_mtime_ns, stat.st_size) for p in sorted(self._folder.glob("*.json"))
        )
        if stamp != self._stamp:
            lists = {found.issuer: found for found in self.all()}
            for issuer, seen in self._seen().items():
                there = lists.get(issuer)
                if there is None or there.sequence < seen.sequence:
                    raise Refused(_old(issuer, there.sequence if there is not None else 0, seen.sequence))
            self._read, self._stamp = self._revoked_by(lists), stamp
        return self._read

    def readable(self) -> trust.Revoked:
        """What can be read of what is revoked, also where a list has been lost."""
        try:
            return self._revoked_by({found.issuer: found for found in self.all()})
        except Refused:
            return self._read

    def _revoked_by(self, lists: Mapping[str, RevocationList]) -> trust.Revoked:
        entries: dict[tuple[str, str], dict[str, Entry]] = {}
        for issuer, found in lists.items():
            for entry in found.entries:
                entries.setdefault((entry.kind, entry.id), {})[issuer] = entry
        return trust.Revoked(entries, self._own.name)

    def add(self, envelope: bytes, vendors: Sequence[TrustedVendor], at: dt.datetime) -> RevocationList:
        """Take a list whose signer may speak for its issuer; raises `Refused`. The same list again is the same."""
        found = show(envelope)
        if isinstance(found, Refusal):
            raise Refused(found)
        before = self._revoked_by({there.issuer: there for there in self.all()})
        # The last list says who may sign the next one: a stolen key that was revoked cannot revoke the others.
        named = [v for v in (*vendors, self._own) if v.name == found.issuer]
        signed = trust.check(envelope, named, before, at, REVOKED_TYPE)
        if isinstance(signed, Refusal):
            raise Refused(signed)
        seen, mark = self._seen(), _Seen(found.sequence, sha256_hex(found.encode()))
        newest = seen.get(found.issuer)
        if newest is not None and newest != mark and found.sequence <= newest.sequence:
            raise Refused(_old(found.issuer, found.sequence, newest.sequence))
        path = self._folder / f"{sha256_hex(found.issuer.encode())[:16]}.json"
        self._folder.mkdir(parents=True, exist_ok=True)
        _write(path, envelope)  # before the number: a crash between leaves a newer list than was seen, which counts
        _write(self._folder / _SEEN, canonical(seen | {found.issuer: mark}))
        return found

    def _seen(self) -> dict[str, _Seen]:
        path = self._folder / _SEEN
        if not path.exists():
            return {found.issuer: _Seen(found.sequence, sha256_hex(found.encode())) for found in self.all()}
        try:
            return msgspec.json.decode(_read(path), type=dict[str, _Seen])
        except msgspec.DecodeError as error:
            sentence = f"{path} is damaged ({error}), so it is not known which lists were seen."
            raise Refused(Refusal("REVOCATIONS_OLD", sentence, {"file": str(path)}, "Restore the file.")) from None


def _old(issuer: str, sequence: int, seen: int) -> Refusal:
    what = f"Revocation list {sequence} of {issuer} is not newer than list {seen}, which was seen here already."
    gone = f"The revocation list of {issuer} is gone; list {seen} was seen here."
    return Refusal(
        "REVOCATIONS_OLD",
        what if sequence else gone,
        {"issuer": issuer, "sequence": str(sequence), "seen": str(seen)},
        f"Get the newest list from {issuer} and add it: `outrider catalogue revocations --add FILE --dir DIR`.",
        status=409,
    )


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(limits.ENVELOPE_BYTES + 1)


def _write(path: Path, data: bytes) -> None:
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.fchmod(fd, 0o644)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
