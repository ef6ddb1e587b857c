"""The file of an exported audit log, which anybody can check offline who has the operators' public keys.

JSON lines, each canonical: `{"format":…}`; one `{"event":…,"hash":…}` for each event from the first on; one
`{"head":…}` for each counter-signed head, in the order of the events that record them, so that none can be left out;
and `{"end":…}`, the network's own signature over where the log ends.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from outrider.core import audit_check
from outrider.core.audit import Head, read_event
from outrider.core.audit_check import Line, Verdict, Vouched
from outrider.core.canonical import NotCanonical, canonical, decode_canonical, sha256_hex
from outrider.core.refusal import Refusal
from outrider.package import statements

Keys = Mapping[str, Sequence[Ed25519PublicKey]]

FORMAT: Literal["outrider-audit-log"] = "outrider-audit-log"


class _Title(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal["outrider-audit-log"]
    network: str
    version: Literal[1]


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    head: str


class _End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    end: str


@dataclass(slots=True)
class _File:
    """What is in an export, by kind; `findings` are lines that are none of these."""

    title: _Title | None = None
    events: list[Line] = field(default_factory=list)
    heads: list[tuple[int, str]] = field(default_factory=list)
    end: tuple[int, str] | None = None
    findings: list[Refusal] = field(default_factory=list)


def write(network: str, events: Iterable[tuple[bytes, str]], heads: Iterable[str], end: str) -> Iterator[bytes]:
    """The lines of an export: events with their digests, counter-signed heads, the signed end."""
    yield canonical(_Title(FORMAT, network, 1)) + b"\n"
    for body, stated in events:
        yield b'{"event":' + body + b',"hash":"' + stated.encode() + b'"}\n'
    for head in heads:
        yield canonical(_Head(head)) + b"\n"
    yield canonical(_End(end)) + b"\n"


def network_of(data: bytes) -> str | Refusal:
    """Whose log a file says that it is."""
    title = _title(data.partition(b"\n")[0])
    return title if isinstance(title, Refusal) else title.network


def heads_in(data: bytes) -> list[str]:
    """The counter-signed heads in an export, or in any file that has such lines; nothing is checked yet."""
    found = []
    for line in data.splitlines():
        try:
            found.append(decode_canonical(line, _Head).head)
        except NotCanonical:
            continue
    return found


def verify(data: bytes, keys: Keys, held: Iterable[str] = ()) -> Verdict | Refusal:
    """Check an export with the operators' keys and the heads of that log that others hold; a refusal if it is none."""
    file = _read(data)
    if file.title is None:
        return _title_refused("its first line is missing")
    network = file.title.network
    if not keys.get(network):
        return Refusal(
            "AUDIT_KEY_MISSING",
            f"No operator key of {network} is known, so nothing that it signed can be checked.",
            {"line": "1", "network": network},
            f"Give the partner card of {network} with `--card`, or a folder that has it as a partner with `--dir`.",
        )
    vouched = [v for head in file.heads if (v := _own(head, network, keys, file.findings)) is not None]
    for envelope in held:
        known = _held(envelope, network, keys, file.findings)
        if known is not None:
            vouched.append(known)
    end = _end(file, network, keys)
    verdict = audit_check.verify(network, file.events, vouched, end=end)
    findings = [*file.findings, *verdict.findings, *_unrecorded(file)]
    return msgspec.structs.replace(verdict, findings=findings[: audit_check.FINDINGS])


def _read(data: bytes) -> _File:
    file = _File()
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    else:
        file.findings.append(_edited(len(lines), "it does not end as a line does"))
    for number, line in enumerate(lines, 1):
        if number == 1:
            title = _title(line)
            if isinstance(title, Refusal):
                file.findings.append(title)
            else:
                file.title = title
            continue
        try:
            _sort(file, number, line)
        except NotCanonical as error:
            if file.heads or file.end:
                file.findings.append(_edited(number, str(error)))
            else:
                file.events.append(Line(number, line, ""))  # told when it is read as an event
    return file


def _sort(file: _File, number: int, line: bytes) -> None:
    value: Any = decode_canonical(line, dict)
    if file.end is not None:
        file.findings.append(_edited(number, "the log has ended before"))
    match sorted(value):
        case ["event", "hash"] if isinstance(value["hash"], str):
            if file.heads or file.end:
                file.findings.append(_edited(number, "events come before heads"))
            file.events.append(Line(number, canonical(value["event"]), value["hash"]))
        case ["head"]:
            file.heads.append((number, decode_canonical(line, _Head).head))
        case ["end"] if file.end is None:
            file.end = number, decode_canonical(line, _End).end
        case _:
            raise NotCanonical("it is neither an event nor a head nor the end")


def _title(line: bytes) -> _Title | Refusal:
    try:
        return decode_canonical(line, _Title)
    except NotCanonical as error:
        return _title_refused(str(error))


def _title_refused(why: str) -> Refusal:
    return Refusal(
        "AUDIT_MALFORMED",
        f"The file is no exported audit log: {why}.",
        {"line": "1"},
        "Make one with `outrider audit export`.",
        status=400,
    )


def _own(line: tuple[int, str], network: str, keys: Keys, findings: list[Refusal]) -> Vouched | None:
    """A head in the file: of this log, which then vouches for it, or of a partner's."""
    number, envelope = line
    head = _signed(envelope, keys)
    if isinstance(head, Refusal):
        findings.append(msgspec.structs.replace(head, facts={"line": str(number)} | head.facts))
        return None
    if head.network != network or head.given_to not in keys:
        return None
    return Vouched(head.sequence, head.hash, head.given_to)


def _held(envelope: str, network: str, keys: Keys, findings: list[Refusal]) -> Vouched | None:
    """A head that somebody else holds: it counts if the network itself has signed it."""
    head = statements.show_head(envelope.encode())
    if isinstance(head, Refusal):
        findings.append(head)
        return None
    if head.network != network:
        return None
    signed = statements.read_head(envelope.encode(), keys, [network])
    if isinstance(signed, Refusal):
        findings.append(signed)
        return None
    return Vouched(head.sequence, head.hash, f"{network} (held by {head.given_to})")


def _signed(envelope: str, keys: Keys) -> Head | Refusal:
    """A head with the signatures of both networks, as far as their keys are known."""
    head = statements.show_head(envelope.encode())
    if isinstance(head, Refusal):
        return head
    return statements.read_head(envelope.encode(), keys, [n for n in (head.network, head.given_to) if n in keys])


def _end(file: _File, network: str, keys: Keys) -> Vouched | None:
    if file.end is None:
        file.findings.append(
            Refusal("AUDIT_CUT", "The signed end of the log is missing.", {"until": "end"}, status=409)
        )
        return None
    number, envelope = file.end
    head = statements.read_head(envelope.encode(), keys, [network])
    if not isinstance(head, Refusal) and (head.network, head.given_to) != (network, ""):
        head = Refusal("AUDIT_HEAD_MISMATCH", f"Line {number} is not the end of the log of {network}.")
    if isinstance(head, Refusal):
        file.findings.append(msgspec.structs.replace(head, facts={"line": str(number)} | head.facts))
        return None
    return Vouched(head.sequence, head.hash, network)


def _unrecorded(file: _File) -> list[Refusal]:
    """Heads that the log records and the file lacks, and the reverse; both stand in the same order."""
    recorded: dict[str, int] = {}
    for line in file.events:
        try:
            event = read_event(line.data)
        except NotCanonical:
            continue
        if event.kind == "head" and "statement" in event.subject:
            recorded[event.subject["statement"]] = event.sequence
    findings, last = [], 0
    there = {sha256_hex(envelope.encode()): number for number, envelope in file.heads}
    for digest, sequence in recorded.items():
        if digest not in there:
            findings.append(
                Refusal(
                    "AUDIT_HEAD_MISSING",
                    f"The counter-signed head that event {sequence} records is not in the file as it was signed.",
                    {"sequence": str(sequence)},
                    status=409,
                )
            )
        elif there[digest] < last:
            findings.append(
                Refusal(
                    "AUDIT_REORDERED",
                    f"The head on line {there[digest]} stands before one that was signed earlier.",
                    {"line": str(there[digest]), "other": str(last)},
                    status=409,
                )
            )
        last = max(last, there.get(digest, 0))
    seen: set[str] = set()
    for number, envelope in file.heads:
        digest = sha256_hex(envelope.encode())
        if digest not in recorded or digest in seen:
            findings.append(
                Refusal(
                    "AUDIT_INSERTED",
                    f"The head on line {number} is recorded by no event of the log.",
                    {"line": str(number)},
                    status=409,
                )
            )
        seen.add(digest)
    return findings


def _edited(number: int, why: str) -> Refusal:
    return Refusal("AUDIT_EDITED", f"Line {number} is not as it was written: {why}.", {"line": str(number)}, status=409)
