"""How the AMF and the SMF of the basic part register at the NRF: ordinary instances, found by ordinary discovery."""

from collections.abc import Sequence
from typing import Any

from outrider.core.ids import NetworkId
from outrider.functions.basic import amf, smf

HEARTBEAT_S = 10


def _service(name: str, host: str, port: int) -> dict[str, Any]:
    return {
        "serviceInstanceId": name,
        "serviceName": name,
        "versions": [{"apiVersionInUri": "v1", "apiFullVersion": "1.0.0"}],
        "scheme": "http",
        "nfServiceStatus": "REGISTERED",
        "ipEndPoints": [{"ipv4Address": host, "port": port}],
    }


def nf_profile(
    nf_type: str, instance_id: str, network: NetworkId, host: str, port: int, services: Sequence[str]
) -> dict[str, Any]:
    """The `NFProfile` of a function of this node with these services, all on one listener."""
    where: dict[str, Any] = {"plmnList": [{"mcc": network.mcc, "mnc": network.mnc}]}
    if network.nid is not None:
        where["snpnList"] = [network.plmn_id()]
    return {
        "nfInstanceId": instance_id,
        "nfType": nf_type,
        "nfStatus": "REGISTERED",
        "heartBeatTimer": HEARTBEAT_S,
        **where,
        "ipv4Addresses": [host],
        "nfServices": [_service(name, host, port) for name in services],
    }


def amf_profile(instance_id: str, network: NetworkId, host: str, port: int) -> dict[str, Any]:
    """The AMF's `NFProfile`; its GUAMI is what makes basic consumers select it and no migrated instance."""
    guami = {"plmnId": network.plmn_id(), "amfId": "010041"}
    info = {"amfSetId": "001", "amfRegionId": "01", "guamiList": [guami]}
    return nf_profile("AMF", instance_id, network, host, port, [amf.EVENTS, amf.BASIC]) | {"amfInfo": info}


def smf_profile(instance_id: str, network: NetworkId, host: str, port: int) -> dict[str, Any]:
    """The SMF's `NFProfile`."""
    info = {"sNssaiSmfInfoList": [{"sNssai": {"sst": 1}, "dnnSmfInfoList": [{"dnn": "internet"}]}]}
    return nf_profile("SMF", instance_id, network, host, port, [smf.EVENTS, smf.BASIC]) | {"smfInfo": info}
