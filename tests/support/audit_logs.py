"""Audit logs of two operators as they are exported, made with real keys: to be tampered with."""

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from outrider.core.audit import AUDIT_HEAD_TYPE, LMSF, NOTHING, Actor, Entry, Head, follow, hash_of
from outrider.core.canonical import sha256_hex
from outrider.core.refusal import Refusal
from outrider.package import audit_export, signing

A, B = "999-70", "999-71-000007ed9d5"
MIGRATION = "m-0123456789abcdef"
PHASES = ("NEGOTIATING", "PERMITTING", "PREPARING", "COPYING", "RELOCATING", "SETTLED")


@dataclass
class Log:
    """The log of A, and the heads that B has counter-signed."""

    key_a: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    key_b: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    events: list[tuple[bytes, str]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)

    @property
    def keys(self) -> dict[str, list[signing.Ed25519PublicKey]]:
        return {A: [self.key_a.public_key()], B: [self.key_b.public_key()]}

    @property
    def last(self) -> tuple[int, str]:
        return (len(self.events), self.events[-1][1]) if self.events else (0, NOTHING)

    def add(self, entry: Entry) -> None:
        sequence, before = self.last
        data = follow(A, sequence + 1, before, 1_800_000_000_000 + sequence, entry)
        self.events.append((data, hash_of(data)))

    def countersigned(self, phase: str) -> None:
        """The head of the log as it is now, signed by both, and the event that says so."""
        sequence, digest = self.last
        head = Head(
            network=A, sequence=sequence, hash=digest, at_ms=1_800_000_000_000, given_to=B, migration=MIGRATION,
            phase=phase,
        )  # fmt: skip
        signed = signing.sign(head.encode(), AUDIT_HEAD_TYPE, self.key_a)
        envelope = signing.add_signature(signed, AUDIT_HEAD_TYPE, self.key_b)
        assert not isinstance(envelope, Refusal)
        self.heads.append(envelope.decode())
        subject = {"head": digest, "statement": sha256_hex(envelope)}
        self.add(Entry(Actor("partner", B), "head", f"{B} has counter-signed it.", "audit log", MIGRATION, subject))

    def end(self) -> str:
        sequence, digest = self.last
        head = Head(network=A, sequence=sequence, hash=digest, at_ms=1_800_000_000_000)
        return signing.sign(head.encode(), AUDIT_HEAD_TYPE, self.key_a).decode()

    def lines(self) -> list[bytes]:
        return list(audit_export.write(A, self.events, self.heads, self.end()))

    def export(self) -> bytes:
        return b"".join(self.lines())


def log(phases: int = 4, between: int = 2) -> Log:
    """A log of a migration that enters so many phases, with some events in each."""
    made = Log()
    for phase in PHASES[:phases]:
        for number in range(between):
            made.add(
                Entry(
                    LMSF, "decision", f"Decision {number} in {phase}.", "contract, deadlineMs", MIGRATION,
                    {"contract": "c" * 64}, {"reason": "as agreed"},
                )
            )  # fmt: skip
        made.add(Entry(LMSF, "phase", f"{phase} is entered.", "DESIGN.md §5", MIGRATION, facts={"phase": phase}))
        made.countersigned(phase)
    return made
