"""Looks for state that an author keeps outside the SDK, by what a relocation does to it."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from outrider.sdk.harness import NETWORK, Harness, Step, network_name
from outrider.sdk.instances import Services, rebuilds
from outrider.sdk.unit import Reply

Scenario = Callable[[Harness], Awaitable[None]]


async def check_no_hidden_state(
    services: Services,
    scenario: Scenario,
    *,
    code: Path | None = None,
    same: Callable[[Reply], object] | None = None,
) -> list[str]:
    """Run a scenario without and with a relocation after every step; a sentence for each step that differs.

    Two kinds of relocation are tried: into new memory each time (finds what is lost), and to and fro between two
    workers that live on (finds what is remembered there and has become old). Both "networks" have the same identity,
    so an answer may say who serves. `same` reduces a reply to what must be equal, for answers with random parts.
    """
    if not rebuilds(services):
        raise TypeError("name the services as 'module:attribute' or give a function that makes them")

    async def play(relocation: str) -> list[Step]:
        harness = Harness(services, code=code, same=same)
        if relocation:
            harness.after_step = lambda: _relocate(harness, fresh=relocation == "new")
        async with harness:
            try:
                await scenario(harness)
            except Exception as error:
                # The scenario's own checks may fail once state is lost; the steps before say why.
                harness.note("the scenario", f"{type(error).__name__}: {error}")
        return harness.steps

    stayed, again = await play(""), await play("")
    findings = [
        f"Step {number}, {step.what}: the outcome differs between two runs without any relocation "
        f"({_short(step.outcome)}; {_short(other.outcome)}). Let it depend on the request and the SDK alone, or say "
        "with `same` what must be equal."
        for number, (step, other) in enumerate(zip(stayed, again, strict=False), 1)
        if step.outcome != other.outcome
    ]
    varying = {at for step, other in zip(stayed, again, strict=False) for at in _differing(step, other)}
    if not findings:
        findings += _compare(
            stayed, await play("new"), varying, "where the UE had moved, {}: it is kept outside the SDK and was lost"
        )
        findings += _compare(
            stayed,
            await play("return"),
            varying,
            "where the UE had moved away and come back, {}: a copy of it is kept outside the SDK and has become old",
        )
    return findings


async def _relocate(harness: Harness, *, fresh: bool) -> None:
    twin = "twin" if harness.home != "twin" else network_name(NETWORK)
    harness.networks[twin] = harness.networks[harness.home]
    if fresh:
        await harness.drop(twin)
    await harness.move(harness.keys(), twin)


def _compare(stayed: list[Step], moved: list[Step], varying: set[tuple[str, str, str]], how: str) -> list[str]:
    findings = []
    for number, (step, other) in enumerate(zip(stayed, moved, strict=False), 1):
        if step.outcome != other.outcome:
            there = how.format(_short(other.outcome))
            findings.append(f"Step {number}, {step.what}: {_short(step.outcome)} where the UE stayed; {there}.")
        elif differing := sorted(_differing(step, other) - varying):
            at = differing[0]
            there = how.format(_short(other.records.get(at)))
            here = f"record {at[2]!r} of {at[1]} is {_short(step.records.get(at))}"
            findings.append(f"Step {number}, {step.what}: {here} where the UE stayed; {there}.")
    if not findings and len(stayed) != len(moved):
        findings.append(f"There were {len(stayed)} steps where the UE stayed; " + how.format(len(moved)) + ".")
    return findings


def _differing(step: Step, other: Step) -> set[tuple[str, str, str]]:
    return {at for at in step.records.keys() | other.records.keys() if step.records.get(at) != other.records.get(at)}


def _short(value: object) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
