"""Identities: networks and the keys of everything that has an owner.

A key is a short byte string whose first byte says what it is, so that the store scans one partition as one
range and no table needs a second column for it:

========  ==============================  ===================================================
prefix    rest                            meaning
========  ==============================  ===================================================
``u``     16 random bytes                 one UE of one communication service, over all its NF services
``p``     1 byte, the partition           ``*p``: every UE of the partition that has no row of its own
``p``     ``s``                           every shared object that has no row of its own (its creation right)
``s``     name in UTF-8                   one shared object (a group's roster, its subscriptions)
========  ==============================  ===================================================

The 16 bytes of a UE key are issued by home and carry no trace of a SUPI or GPSI. Their first byte is the
partition.
"""

import re
from dataclasses import dataclass

PARTITIONS = 256
"""How many partitions a service's UEs are spread over; `*p` work is O(this), and a flip holds 1/this of them."""

SHARED_STAR = b"ps\x00"
"""Row that shared objects follow until they have one of their own; it stays at home."""

_NETWORK = re.compile(r"^(\d{3})-(\d{2,3})(?:-([0-9A-Fa-f]{11}))?$")


@dataclass(frozen=True, slots=True, order=True)
class NetworkId:
    """A PLMN (MCC, MNC) or an SNPN (MCC, MNC, NID), written as TS 29.500's Originating-Network-Id: ``999-70[-NID]``."""

    mcc: str
    mnc: str
    nid: str | None = None

    @classmethod
    def parse(cls, text: str) -> "NetworkId":
        """Read ``MCC-MNC`` or ``MCC-MNC-NID`` (NID: 11 hexadecimal digits); `ValueError` says what is wrong."""
        match = _NETWORK.match(text)
        if match is None:
            raise ValueError(f"{text!r} is not a network: write MCC-MNC or MCC-MNC-NID (NID has 11 hex digits)")
        mcc, mnc, nid = match.groups()
        return cls(mcc, mnc, nid.lower() if nid else None)

    def __str__(self) -> str:
        return f"{self.mcc}-{self.mnc}" + (f"-{self.nid}" if self.nid else "")

    @property
    def domain(self) -> str:
        """The network's home domain (TS 23.003 §28.2, §28.7), MNC padded to three digits."""
        nid = f"nid{self.nid}." if self.nid else ""
        return f"5gc.{nid}mnc{self.mnc:0>3}.mcc{self.mcc}.3gppnetwork.org"

    def plmn_id(self) -> dict[str, str]:
        """`PlmnId` or `PlmnIdNid` of TS 29.571, as JSON."""
        return {"mcc": self.mcc, "mnc": self.mnc} | ({"nid": self.nid} if self.nid else {})


def ue_key(uid: bytes) -> bytes:
    """The key of the UE with this 16-byte random identifier."""
    if len(uid) != 16:
        raise ValueError("a UE identifier has 16 bytes")
    return b"u" + uid


def partition_key(partition: int) -> bytes:
    """The key `*p` of a partition."""
    return b"p" + bytes([partition])


def shared_key(name: str) -> bytes:
    """The key of the shared object with this name."""
    return b"s" + name.encode()


def partition_of(key: bytes) -> int | None:
    """The partition of a UE key or of `*p`; None for a shared object, which stands alone."""
    return None if key[:1] == b"s" else key[1]


def star_of(key: bytes) -> bytes | None:
    """The row that a key follows until it has one of its own; None for such a row itself."""
    match key[:1]:
        case b"u":
            return b"p" + key[1:2]
        case b"s":
            return SHARED_STAR
        case _:
            return None


def partition_range(partition: int) -> tuple[bytes, bytes]:
    """The half-open range of the UE keys of a partition."""
    return b"u" + bytes([partition]), b"u" + bytes([partition + 1]) if partition < 255 else b"v"


def key_text(key: bytes) -> str:
    """A key for people and logs: ``ue:9f…``, ``*17``, ``shared:NAME``."""
    match key[:1]:
        case b"u":
            return f"ue:{key[1:].hex()}"
        case b"p":
            return f"*{key[1]}"
        case _:
            return f"shared:{key[1:].decode(errors='replace')}"


def key_from_text(text: str) -> bytes:
    """The inverse of `key_text`; `ValueError` on anything else."""
    if text.startswith("ue:"):
        return ue_key(bytes.fromhex(text[3:]))
    if text.startswith("*"):
        return partition_key(int(text[1:]))
    if text.startswith("shared:"):
        return shared_key(text[7:])
    raise ValueError(f"{text!r} is not a key: write ue:HEX, *PARTITION or shared:NAME")
