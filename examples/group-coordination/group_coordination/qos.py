"""npcf-groupqos, hosted in the PCF: how many transactions a UE may send, on terms that its group has in common.

Each UE has a token bucket, counted in thousandths of a token so that a rate per second and a clock in milliseconds need
no fractions. The grant behind it is renewed by a timer every `validity_ms`, wherever the UE is; a renewal takes over
the terms that the group has by then. The record lists the latest firings, so that a missed or doubled one can be seen.
"""

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

import outrider.sdk as sdk

from .sbi import GroupId, Problem, Supi, answer, body_of, service

MILLI = 1000
"""A token is this many units of the bucket."""
FIRINGS = 64
"""How many firings of the renewal timer a policy remembers."""

Rate = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Burst = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
ValidityMs = Annotated[int, msgspec.Meta(ge=100, le=86_400_000)]


class Terms(msgspec.Struct):
    """What a group has in common: tokens per second, and how many may be saved up."""

    rate: Rate = 20
    burst: Burst = 40


class WantedTerms(msgspec.Struct, rename="camel"):
    """Terms of a policy: the group's, unless it has none, and how long one grant is valid."""

    rate: Rate | None = None
    burst: Burst | None = None
    validity_ms: ValidityMs = 30_000


class PolicyCreate(msgspec.Struct, rename="camel"):
    """Body that opens a policy."""

    supi: Supi
    group_id: GroupId
    qos: WantedTerms = msgspec.field(default_factory=WantedTerms)


class Take(msgspec.Struct):
    """Body that takes tokens."""

    amount: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1


class Firing(msgspec.Struct, rename="camel"):
    """One firing of the renewal timer; `sequence` was given when it was armed."""

    sequence: int
    due_ms: int
    fired_ms: int


class Policy(msgspec.Struct, rename="camel"):
    """The record of a policy. Renewal number s is due `validity_ms` × s after `created_ms`."""

    group_id: str
    rate: int
    burst: int
    validity_ms: int
    created_ms: int
    level: int
    level_ms: int
    renewals: int = 0
    last_renewal_ms: int | None = None
    next_sequence: int = 1
    firings: list[Firing] = []

    def due_ms(self, sequence: int) -> int:
        """When a renewal is due."""
        return self.created_ms + sequence * self.validity_ms

    def fill(self, now_ms: int) -> None:
        """Add the tokens that have come since the last time. A clock that stands earlier adds none."""
        gained = max(0, now_ms - self.level_ms) * self.rate
        self.level = min(self.burst * MILLI, self.level + gained)
        self.level_ms = max(self.level_ms, now_ms)


class Armed(msgspec.Struct):
    """What the renewal timer carries."""

    sequence: int


def _policy() -> Policy:
    policy = sdk.unit().get("policy", type=Policy)
    if policy is None:
        raise Problem(404, "CONTEXT_NOT_FOUND", "This UE has no policy.")
    return policy


async def _group_terms(group_id: str) -> Terms | None:
    """The group's terms as this network knows them: a replica, perhaps a little old."""
    return (await sdk.unit().shared(f"group:{group_id}")).get("terms", type=Terms)


def _arm(policy: Policy) -> None:
    unit = sdk.unit()
    delay_ms = max(0, policy.due_ms(policy.next_sequence) - unit.now_ms)
    unit.arm("renew", after_ms=delay_ms, data=Armed(policy.next_sequence))


async def create(request: Request) -> Response:
    """`POST /ue-policies`: open a policy with a full bucket and arm its renewal."""
    wanted = await body_of(request, PolicyCreate)
    unit = sdk.unit()
    if unit.get("policy", type=Policy) is not None:
        raise Problem(409, "POLICY_EXISTS", "This UE has a policy already.")
    default = Terms()
    own = Terms(wanted.qos.rate or default.rate, wanted.qos.burst or default.burst)
    terms = await _group_terms(wanted.group_id) or own
    policy = Policy(
        group_id=wanted.group_id,
        rate=terms.rate,
        burst=terms.burst,
        validity_ms=wanted.qos.validity_ms,
        created_ms=unit.now_ms,
        level=terms.burst * MILLI,
        level_ms=unit.now_ms,
    )
    _arm(policy)
    unit.put("policy", policy)
    return answer(201, {"groupId": wanted.group_id, "rate": policy.rate, "burst": policy.burst})


async def take(request: Request) -> Response:
    """`POST /ue-policies/{supi}/tokens`: take tokens, all or none."""
    amount = (await body_of(request, Take)).amount * MILLI
    policy = _policy()
    unit = sdk.unit()
    policy.fill(unit.now_ms)
    if policy.level < amount:
        detail = f"The rate of {policy.rate} per second and the burst of {policy.burst} are used up."
        raise Problem(429, "GROUP_RATE_EXCEEDED", detail, headers={"retry-after": "1"})
    policy.level -= amount
    unit.put("policy", policy)
    return answer(200, {"remaining": policy.level // MILLI})


async def read(request: Request) -> Response:
    """`GET /ue-policies/{supi}`: terms, bucket, and how the renewals went."""
    policy = _policy()
    policy.fill(sdk.unit().now_ms)
    body = {
        "groupId": policy.group_id,
        "rate": policy.rate,
        "burst": policy.burst,
        "remaining": policy.level // MILLI,
        "validityMs": policy.validity_ms,
        "createdMs": policy.created_ms,
        "renewals": policy.renewals,
        "lastRenewalMs": policy.last_renewal_ms,
        "nextRenewal": {"sequence": policy.next_sequence, "dueMs": policy.due_ms(policy.next_sequence)},
        "firings": policy.firings,
        "nowMs": sdk.unit().now_ms,
    }
    return answer(200, body)


async def delete(request: Request) -> Response:
    """`DELETE /ue-policies/{supi}`: the policy ends, and its timer with it."""
    _policy()
    sdk.unit().disarm("renew")
    sdk.unit().delete("policy")
    return Response(status_code=204)


async def set_terms(request: Request) -> Response:
    """`PUT /groups/{groupId}`: the terms that the group's policies take over at their next renewal."""
    terms = await body_of(request, Terms)
    sdk.unit().put("terms", terms)
    return answer(200, terms)


async def read_terms(request: Request) -> Response:
    """`GET /groups/{groupId}`: the group's terms."""
    terms = sdk.unit().get("terms", type=Terms)
    if terms is None:
        raise Problem(404, "CONTEXT_NOT_FOUND", "This group has no terms of its own.")
    return answer(200, terms)


_UES = "/npcf-groupqos/v1/ue-policies"
app = service(
    {
        _UES: {"POST": create},
        f"{_UES}/{{supi}}": {"GET": read, "DELETE": delete},
        f"{_UES}/{{supi}}/tokens": {"POST": take},
        "/npcf-groupqos/v1/groups/{groupId}": {"GET": read_terms, "PUT": set_terms},
    }
)
nf = sdk.NfService(app)


@nf.on_timer("renew")
async def renew(timer: sdk.Timer) -> None:
    """Renew the grant, count the firing, and arm the next one on the same grid: lateness does not add up."""
    unit = sdk.unit()
    policy = unit.get("policy", type=Policy)
    if policy is None:
        return
    sequence = timer.json(type=Armed).sequence
    policy.fill(unit.now_ms)
    if terms := await _group_terms(policy.group_id):
        policy.rate, policy.burst = terms.rate, terms.burst
        policy.level = min(policy.level, terms.burst * MILLI)
    policy.renewals += 1
    policy.last_renewal_ms = unit.now_ms
    firing = Firing(sequence=sequence, due_ms=policy.due_ms(sequence), fired_ms=unit.now_ms)
    policy.firings = [*policy.firings, firing][-FIRINGS:]
    policy.next_sequence = sequence + 1
    _arm(policy)
    unit.put("policy", policy)
