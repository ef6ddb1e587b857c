"""The OpenAPI files are valid, served, and say what the code does."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from openapi_spec_validator import validate

from outrider.core import audit, loss
from outrider.core.permission import Permission, Revocation
from outrider.core.refusal import Refusal
from outrider.core.supply import Finding
from outrider.decide.policy import decision, request
from outrider.decide.policy.invalid import Problem
from outrider.functions.lmsf import (
    approvals,
    audit_api,
    image,
    images,
    impact,
    openapi,
    operator,
    partner,
    policies,
    record,
    shown,
    witness,
)
from outrider.functions.lmsf.negotiation import Wanted
from outrider.functions.lmsf.permissions import PermissionView
from outrider.protocol import messages
from outrider.protocol.phase import Ending, Fact, Phase
from outrider.sbi.http import Request
from outrider.store.image import StoreFacts
from outrider.store.port import StoreMark

STRUCTS: dict[str, dict[str, Any]] = {
    "nlmsf-catalogue": {
        "PackageInfo": shown.PackageInfo, "PermittedBy": shown.PermittedBy, "RunsAt": shown.RunsAt, "Finding": Finding,
        "Impact": impact.Impact, "Consumed": impact.Consumed, "Subscription": impact.Subscription,
        "Entry": impact.Entry, "ResourceUse": impact.ResourceUse,
        "ServiceInfo": shown.ServiceInfo, "Instance": record.Instance, "Refusal": Refusal,
        "ImageInfo": images.ImageInfo, "Meta": image.Meta, "Part": image.Part, "StoreFacts": StoreFacts,
        "Restore": images.Restore, "BegunAnew": record.BegunAnew, "StoreMark": StoreMark,
    },
    "nlmsf-negotiation": {
        "Offer": record.Offer, "Agreed": record.Agreed, "View": record.View, "Progress": record.Progress,
        "Ending": Ending, "Refusal": Refusal,
    },
    "nlmsf-permission": {
        "Exchange": record.Exchange, "PermissionView": PermissionView, "Permission": Permission,
        "Revocation": Revocation, "Refusal": Refusal,
    },
    "nlmsf-migration": {
        "Wanted": Wanted, "MigrationInfo": shown.MigrationInfo, "PartnerInfo": shown.PartnerInfo,
        "Progress": record.Progress, "Ending": Ending, "Refusal": Refusal, "Loss": loss.Loss,
        "LostKey": loss.LostKey,
    },
    "nlmsf-policy": {
        "PolicyInfo": policies.PolicyInfo, "PolicyProblem": Problem, "Applied": policies.Applied,
        "Decided": policies.Decided, "PolicyRequest": request.Request, "Sbom": request.Sbom,
        "Approval": approvals.Approval, "Part": request.Part, "Decision": decision.Decision,
        "Reason": decision.Reason, "Refusal": Refusal,
    },
    "nlmsf-audit": {
        "Event": audit.Event, "Actor": audit.Actor, "RecordedEvent": audit_api.RecordedEvent,
        "KeptHead": audit_api.KeptHead, "SignedHead": witness.SignedHead,
    },
}  # fmt: skip


def _spec(api: str) -> Any:
    return yaml.safe_load(openapi.text(api))


def _documented(*audience: str) -> set[tuple[str, str]]:
    found = set()
    for api in openapi.APIS:
        for path, item in _spec(api)["paths"].items():
            for method, operation in item.items():
                if method != "parameters" and operation["x-for"] in audience:
                    found.add((method.upper(), f"/{api}/v1{path}"))
    return found


def _routed(routes: Any, *args: Any) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    routes(*args, lambda method, template, handler: found.add((method, template)))
    return found


@pytest.mark.parametrize("api", openapi.APIS)
def test_each_file_is_valid_openapi(api: str) -> None:
    validate(_spec(api))


def test_every_file_belongs_to_an_api() -> None:
    folder = Path(openapi.__file__).parent / "openapi"
    assert {p.stem for p in folder.iterdir()} == set(openapi.APIS)


def test_every_route_of_the_operator_is_documented_and_every_documented_one_routed() -> None:
    assert _routed(operator.routes, None) == _documented("operator", "both")


def test_every_route_of_a_partner_is_documented_and_every_documented_one_routed() -> None:
    assert _routed(partner.routes, None, "999-71") == _documented("partner", "both")


@pytest.mark.parametrize("api", openapi.APIS)
def test_path_variables_are_declared(api: str) -> None:
    spec = _spec(api)
    for path, item in spec["paths"].items():
        declared = set()
        for parameter in item.get("parameters", []):
            if "$ref" in parameter:
                parameter = spec["components"]["parameters"][parameter["$ref"].split("/")[-1]]
            if parameter["in"] == "path":
                declared.add(parameter["name"])
        assert declared == set(re.findall(r"{(\w+)}", path)), path


@pytest.mark.parametrize(
    ("api", "schema", "struct"), [(a, s, t) for a, schemas in STRUCTS.items() for s, t in schemas.items()]
)
def test_schemas_have_the_members_that_the_code_writes(api: str, schema: str, struct: Any) -> None:
    described = _spec(api)["components"]["schemas"][schema]
    fields = {f.encode_name: f for f in msgspec.structs.fields(struct)}
    assert set(described["properties"]) == set(fields)
    required = {name for name, f in fields.items() if f.required}
    if struct in (record.Offer, record.Agreed, Wanted, witness.SignedHead):  # what is sent to us: as strict as the code
        assert set(described["required"]) == required


@pytest.mark.parametrize("api", ["nlmsf-negotiation", "nlmsf-migration"])
def test_phases_and_facts_are_those_of_the_machine(api: str) -> None:
    schemas = _spec(api)["components"]["schemas"]
    assert schemas["Phase"]["enum"] == [p.value for p in Phase]
    if "Fact" in schemas:
        assert schemas["Fact"]["enum"] == [f.value for f in Fact]


def test_words_of_the_policy_are_those_of_the_code() -> None:
    schemas = _spec("nlmsf-policy")["components"]["schemas"]
    assert schemas["Action"]["enum"] == [a.value for a in request.Action]
    assert schemas["Decision"]["properties"]["verdict"]["enum"] == [v.value for v in decision.Verdict]
    assert set(schemas["Reason"]["properties"]["effect"]["enum"]) == {e.value for e in decision.Effect}


def test_relocation_names_the_messages_and_arrays_of_the_protocol() -> None:
    schemas = _spec("nlmsf-relocation")["components"]["schemas"]
    for name, kinds in (("LaneBatch", messages.LaneMessage), ("BulkBatch", messages.BulkMessage)):
        assert set(schemas[name]["x-messages"]) == {k.__struct_config__.tag for k in kinds.__args__}
    for name in ("LaneBatch", "BulkBatch", "LaneAck"):
        written = [re.sub(r"_(\w)", lambda m: m[1].upper(), f) for f in getattr(messages, name).__struct_fields__]
        assert schemas[name]["x-array"] == written


@pytest.mark.parametrize("api", openapi.APIS)
async def test_each_file_is_served_without_a_token(networks: Any, api: str) -> None:
    answer = await networks.a.faces.router(Request("GET", f"/{api}/v1/openapi.yaml"))
    assert (answer.status, answer.body) == (200, openapi.text(api))
