"""`outrider sim`: whole hosts in a simulated world, for as long as told; a failure again, and made smaller."""

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

if TYPE_CHECKING:
    from outrider.sim.whole.scenario import Name, Plan
    from outrider.sim.whole.world import Result

app = typer.Typer(no_args_is_help=True)

FAILED = 1

Fault = Annotated[str | None, typer.Option(help="With this planted fault in production code (see `sim faults`).")]
Scenario = Annotated[str | None, typer.Option(help="Only this scenario (see `sim scenarios`); by seed otherwise.")]
Lmsfs = Annotated[
    bool | None,
    typer.Option(
        "--lmsfs/--hosts", help="Only worlds with LMSFs, or with hosts only; as the fault needs, or by seed, otherwise."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def run(
    seeds: Annotated[int | None, typer.Option(help="How many; 100 unless --minutes is given.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="The first seed.", min=0)] = 0,
    scenario: Scenario = None,
    lmsfs: Lmsfs = None,
    minutes: Annotated[float | None, typer.Option(help="Go on for so long.", min=0.01)] = None,
    fault: Fault = None,
    as_json: AsJson = False,
) -> None:
    """Run worlds; each that fails is said with its seed. Exit code 1 if one has failed.

    Examples:

    outrider sim run --seeds 200

    outrider sim run --minutes 10 --scenario onward

    outrider sim run --fault grant-before-disk --seeds 20
    """
    from outrider.sim.whole.run import run as run_worlds

    def said(result: "Result") -> None:
        if result.violations and not as_json:
            typer.echo(f"seed {result.seed} ({result.title}): {result.violations[0]}")

    summary = run_worlds(
        first=seed,
        seeds=100 if seeds is None and minutes is None else seeds,
        minutes=minutes,
        scenario=_scenario(scenario),
        lmsfs=lmsfs,
        fault=_fault(fault),
        on_result=said,
    )
    typer.echo(msgspec.json.encode(summary).decode() if as_json else summary.sentence)
    raise typer.Exit(FAILED if summary.failed else 0)


@app.command()
def replay(
    seed: Annotated[list[int], typer.Argument(help="Seeds that `run` has named.")],
    scenario: Scenario = None,
    lmsfs: Lmsfs = None,
    fault: Fault = None,
    as_json: AsJson = False,
) -> None:
    """Run a world again and tell its story. Exit code 1 if it fails.

    Example: outrider sim replay 640
    """
    from outrider.sim.whole.run import replay as again

    failed = False
    for number in seed:
        result = again(_plan(number, scenario, lmsfs, fault), fault)
        failed = failed or bool(result.violations)
        typer.echo(msgspec.json.encode(result).decode() if as_json else _story(result))
    raise typer.Exit(FAILED if failed else 0)


@app.command()
def shrink(
    seed: Annotated[int, typer.Argument(help="A seed that fails.")],
    scenario: Scenario = None,
    lmsfs: Lmsfs = None,
    fault: Fault = None,
    runs: Annotated[int, typer.Option(help="Try so many at most.", min=1)] = 200,
    as_json: AsJson = False,
) -> None:
    """Find a smaller scenario that fails by the same rule: fewer UEs, faults and operations; then tell its story.

    Example: outrider sim shrink 5 --fault source-decides-alone
    """
    from outrider.sim.whole.shrink import shrink as smaller

    shrunk = smaller(_plan(seed, scenario, lmsfs, fault), fault, runs=runs)
    if shrunk is None:
        typer.echo(f"seed {seed} does not fail")
        return
    if as_json:
        typer.echo(msgspec.json.encode(shrunk).decode())
    else:
        typer.echo(_story(shrunk.result))
        typer.echo(f"\nAfter {shrunk.runs} runs, this is left of the scenario:\n")
        typer.echo(msgspec.json.format(msgspec.json.encode(shrunk.plan), indent=2).decode())
    raise typer.Exit(FAILED)


@app.command()
def faults(
    seeds: Annotated[
        int | None, typer.Option(help="Run each until it is caught, with so many seeds at most; print a table.", min=1)
    ] = None,
) -> None:
    """The faults that can be planted, each a rule of safety taken out of production code.

    Example: outrider sim faults --seeds 500
    """
    from outrider.sim.whole.planted import PLANTED
    from outrider.sim.whole.run import run as run_worlds

    if seeds is not None:
        typer.echo("| fault | what it does wrong | clause | what breaks | seeds |\n| --- | --- | --- | --- | --- |")
    for name, fault in PLANTED.items():
        if seeds is None:
            typer.echo(f"{name:28} {fault.clause:14} {fault.sentence}")
            continue
        summary = run_worlds(seeds=seeds, fault=name, stop_at_first=True)
        found = summary.failed[0].violations[0].rule if summary.failed else "nothing"
        typer.echo(f"| `{name}` | {fault.sentence} | {fault.clause} | {found} | {summary.seeds} |")


@app.command()
def scenarios() -> None:
    """The scenarios that a seed is drawn for.

    Example: outrider sim scenarios
    """
    from outrider.sim.whole.scenario import SENTENCES

    for name, sentence in SENTENCES.items():
        typer.echo(f"{name:14} {sentence}")


def _plan(seed: int, scenario: str | None, lmsfs: bool | None, fault: str | None) -> "Plan":
    from outrider.sim.whole.planted import needs_lmsfs
    from outrider.sim.whole.scenario import draw

    needed = needs_lmsfs(_fault(fault)) if lmsfs is None else lmsfs
    return draw(str(seed), _scenario(scenario), lmsfs=needed)


def _scenario(name: str | None) -> "Name | None":
    from outrider.sim.whole.scenario import NAMES

    if name is None:
        return None
    for known in NAMES:
        if known == name:
            return known
    raise typer.BadParameter(f"{name} is none of {', '.join(NAMES)}", param_hint="--scenario")


def _fault(name: str | None) -> str | None:
    from outrider.sim.whole.planted import PLANTED

    if name is not None and name not in PLANTED:
        raise typer.BadParameter(f"{name} is none of {', '.join(PLANTED)}", param_hint="--fault")
    return name


def _story(result: "Result") -> str:
    """A run for people: all that happened, and what was wrong."""
    head = f"seed {result.seed}, scenario {result.title}, trace {result.hash}"
    end = [f"WRONG {violation}" for violation in result.violations] or ["Nothing was wrong."]
    return "\n".join([head, *map(str, result.events), *end])
