"""The record that each of the three NF services keeps of a UE: what differs from UE to UE is derived from a seed."""

import hashlib
from typing import Any

RECORD = "context"
"""Name of the one record of each NF service."""


def make(nf: str, seed: int) -> dict[str, Any]:
    """The record that a new UE has at an NF service: some 400 bytes, 50 of them random."""
    own = hashlib.shake_256(b"%s %d" % (nf.encode(), seed)).digest(50)
    return {
        "count": 0,
        "lastSeq": 0,
        "contextId": own[:16].hex(),
        "subscription": {"dnn": "bench", "sNssai": {"sst": 1, "sd": "00be7c"}, "profile": "default", "roaming": False},
        "peers": [
            {"nf": other, "ref": own[16 + 8 * i : 24 + 8 * i].hex(), "state": "ACTIVE"}
            for i, other in enumerate(("AMF", "SMF", "PCF"))
        ],
        "area": {"tac": "000001", "cell": own[40:45].hex()},
        "chargingId": own[45:50].hex(),
    }
