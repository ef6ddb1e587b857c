"""The context of a UE, as a session of an SMF keeps it: what differs from UE to UE is derived from a seed.

About 1.1 KB of canonical JSON. Some 130 bytes of entropy are each UE's own (identifiers, addresses, keys), as they are
in a real session; names and policies repeat. So it compresses as real contexts do, neither like zeros nor like noise.
"""

import hashlib
from typing import Any

RECORD = "context"
"""Name of the one record."""

LARGE_BYTES = 64 * 1024
NOISE_BYTES = 1_100


def make(seed: int) -> dict[str, Any]:
    """The context that a new session has."""
    own = hashlib.shake_256(b"%d" % seed).digest(144)
    ref = own[:16].hex()
    return {
        "count": 0,
        "lastSeq": 0,
        "smContextRef": f"{ref[:8]}-{ref[8:12]}-{ref[12:16]}-{ref[16:20]}-{ref[20:]}",
        "pduSessionId": 1 + own[16] % 15,
        "pduSessionType": "IPV4V6",
        "sscMode": "SSC_MODE_1",
        "dnn": "bench",
        "sNssai": {"sst": 1, "sd": "00be7c"},
        "ueIpv4Address": f"10.{own[17]}.{own[18]}.{own[19]}",
        "ueIpv6Prefix": f"2001:db8:{own[20:22].hex()}:{own[22:24].hex()}::/64",
        "sessionAmbr": {"uplink": "200 Mbps", "downlink": "1 Gbps"},
        "upSecurity": {"integrityKey": own[24:56].hex(), "cipheringKey": own[56:88].hex(), "policy": "REQUIRED"},
        "upf": {
            "nodeId": f"10.{own[88]}.{own[89]}.{own[90]}",
            "seid": own[91:99].hex(),
            "n3Teid": own[99:103].hex(),
            "n9Teid": own[103:107].hex(),
            "networkInstance": "internet.bench",
        },
        "ran": {
            "gnbId": own[107:111].hex(),
            "nrCellId": own[111:116].hex(),
            "tac": "000001",
            "n3Teid": own[116:120].hex(),
            "address": f"10.{own[120]}.{own[121]}.{own[122]}",
        },
        "qosFlows": [
            {"qfi": 1, "5qi": 9, "arp": {"priorityLevel": 8, "preemptCap": "NOT_PREEMPT"}},
            {
                "qfi": 5,
                "5qi": 82,
                "arp": {"priorityLevel": 2, "preemptCap": "MAY_PREEMPT"},
                "gbr": {"gbrUl": "2 Mbps", "gbrDl": "2 Mbps", "maxbrUl": "5 Mbps", "maxbrDl": "5 Mbps"},
            },
        ],
        "charging": {"chargingId": own[123:127].hex(), "ratingGroup": 100, "invocation": own[127:144].hex()},
    }


def make_large(seed: int) -> dict[str, Any]:
    """A context of some 64 KB: with the measurements that a session has gathered, as much their own as the rest is."""
    count = LARGE_BYTES // 220
    own = hashlib.shake_256(b"large %d" % seed).digest(24 * count)
    return make(seed) | {
        "measurements": [
            {
                "cell": {
                    "plmn": "99970",
                    "tac": "000001",
                    "nrCellId": part[:5].hex(),
                    "technology": "NR",
                    "band": "n78",
                },
                "rsrpDbm": -44 - part[5] % 112,
                "rsrqDb": -3 - part[6] % 17,
                "sinrDb": part[7] % 40 - 10,
                "timingAdvance": part[8],
                "beam": {"index": part[9] % 64, "gain": part[10]},
                "flow": part[11:24].hex(),
            }
            for part in (own[at : at + 24] for at in range(0, len(own), 24))
        ]
    }


def noise(seed: int) -> bytes:
    """What no compression makes smaller: it follows a small context, after a line's end."""
    return hashlib.shake_256(b"noise %d" % seed).digest(NOISE_BYTES)
