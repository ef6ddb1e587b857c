"""Revocation lists: a vendor, or an operator, takes back its word about software: keys, certificates, packages.

A list is whole each time and numbered; a reader that has seen one never takes an older one of the same issuer, so that
nobody can bring back what was revoked by bringing back a file. Its canonical bytes are signed in a DSSE envelope.
"""

from typing import Annotated, Literal

import msgspec

from outrider.core.canonical import canonical
from outrider.core.manifest import Line
from outrider.core.permission import Digest, Time

REVOKED_TYPE = "application/vnd.outrider.revoked.v1+json"

Kind = Literal["key", "certificate", "package"]


class Entry(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """One thing that does not count any more."""

    kind: Kind
    id: Digest
    """A key's fingerprint, a certificate's SHA-256, or a package digest."""
    revoked_at_ms: Time
    reason: Annotated[str, msgspec.Meta(max_length=100)] = ""


class RevocationList(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """Everything that an issuer has revoked."""

    issuer: Line
    """The vendor's name, or the operator's network."""
    sequence: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    issued_at_ms: Time
    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=1_000)] = ()

    def __post_init__(self) -> None:
        names = [(entry.kind, entry.id) for entry in self.entries]
        if names != sorted(set(names)):
            raise ValueError("its entries are not in order, each once")

    def encode(self) -> bytes:
        """The bytes that are signed."""
        return canonical(self)

    def with_entry(self, entry: Entry, issued_at_ms: int) -> "RevocationList":
        """The next list: with one more entry, which replaces a former one about the same thing."""
        kept = {(e.kind, e.id): e for e in (*self.entries, entry)}
        entries = tuple(kept[name] for name in sorted(kept))
        return RevocationList(
            issuer=self.issuer, sequence=self.sequence + 1, issued_at_ms=issued_at_ms, entries=entries
        )
