"""`outrider policy`: what this operator allows: check it, test it, apply it, explain a decision, replay the past."""

import datetime as dt
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import msgspec
import typer

from outrider.cli.client import AsJson, NetworkDir, Operator, run, seconds
from outrider.cli.outcome import REFUSED, emit, ending, refuse
from outrider.core.refusal import Refusal, Refused

if TYPE_CHECKING:
    from outrider.decide.policy.policy import Policy
    from outrider.functions.lmsf.policies import Decided

app = typer.Typer(no_args_is_help=True, help="This operator's policy: typed rules (rules.toml) and Cedar (*.cedar).")

_ROOT = "/nlmsf-policy/v1"
PolicyPath = Annotated[Path, typer.Argument(help="A folder with rules, or one such file.", exists=True)]


@app.command()
def check(policy: PolicyPath, as_json: AsJson = False) -> None:
    """Say whether a policy can be used; if not, everything that is wrong, each with file, line and what helps.

    Example: outrider policy check b/policy
    """
    with ending(as_json):
        made = _load(policy)
        warnings = [] if made.permits else ["nothing in it permits anything, so it refuses everything"]
        counts = {
            "permit": len(made.rules.permit) + len(made.cedar.permits.statements),
            "require": len(made.rules.require),
            "approval": len(made.rules.approval),
            "forbid": len(made.cedar.forbids.statements),
        }
        value = {"policy": made.version, "digest": made.digest, "rules": counts, "warnings": warnings}
        told = ", ".join(f"{n} {kind}" for kind, n in counts.items())
        lines = [f"{policy} is a policy: {made.version} ({told})", *(f"  but {warning}" for warning in warnings)]
        emit(value, "\n".join(lines), as_json)


@app.command("test")
def try_cases(
    policy: PolicyPath,
    cases: Annotated[Path, typer.Argument(help="Cases, in TOML.", exists=True, dir_okay=False)],
    as_json: AsJson = False,
) -> None:
    """Put cases to a policy and compare each verdict with the expected one. Exit code 1 if one differs.

    Example: outrider policy test b/policy cases.toml
    """
    from outrider.decide.policy.cases import read_cases
    from outrider.decide.policy.policy import decide
    from outrider.decide.policy.words import explained

    with ending(as_json):
        made = _load(policy)
        results, lines = [], []
        for case in _readable(cases, lambda: read_cases(cases.read_bytes())):
            decision = decide(made, case.request)
            wrong = case.wrong(decision)
            results.append({"name": case.name, "ok": not wrong, "wrong": wrong, "decision": decision})
            lines.append(f"{'ok  ' if not wrong else 'FAIL'} {case.name}" + (f": {wrong}" if wrong else ""))
            lines += [f"     {line}" for line in explained(decision).splitlines()] if wrong else []
        failed = sum(not r["ok"] for r in results)
        lines.append(f"{len(results) - failed} of {len(results)} cases as expected by policy {made.version}")
        emit({"policy": made.version, "failed": failed, "cases": results}, "\n".join(lines), as_json)
        if failed:
            raise typer.Exit(REFUSED)


@app.command()
def schema() -> None:
    """Print the Cedar schema: what a statement may speak of.

    Example: outrider policy schema
    """
    from outrider.decide.policy.cedar import schema_text

    typer.echo(schema_text(), nl=False)


@app.command()
def show(directory: NetworkDir, as_json: AsJson = False) -> None:
    """Say which policy counts at a running network, and what is wrong with its files if they say something else.

    Example: outrider policy show --dir b
    """
    info = run(directory, as_json, lambda node: node.ask("GET", f"{_ROOT}/policy"))
    lines = [f"{info['version']}, in force since {_clock(info['sinceMs'])}", f"  files  {info['path'] or 'none'}"]
    if not info["permits"]:
        lines.append("  but nothing in it permits anything, so it refuses everything")
    lines += [f"  wrong  {p['file']}:{p['line']}: {p['what']}. {p['remedy']}" for p in info["problems"]]
    emit(info, "\n".join(lines), as_json)


@app.command()
def apply(directory: NetworkDir, as_json: AsJson = False) -> None:
    """Let a running network read its policy files now; migrations and stays are judged by it at once.

    Files that are changed count by themselves after at most five seconds; this says whether they are right. Files that
    are wrong are refused, with each line, and the policy before goes on counting.

    Example: outrider policy apply --dir b
    """
    done = run(directory, as_json, lambda node: node.ask("POST", f"{_ROOT}/apply"))
    same = done["before"] == done["after"]
    emit(done, f"{done['after']} counts" + (" as before" if same else f", no longer {done['before']}"), as_json)


@app.command()
def explain(
    migration: Annotated[str | None, typer.Argument(help="A migration's id: what was decided about it.")] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", envvar="OUTRIDER_DIR", help="The network's folder.", file_okay=False)
    ] = None,
    request: Annotated[
        Path | None, typer.Option(help="Judge this request (TOML, or JSON as kept).", exists=True, dir_okay=False)
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="By this policy, not the network's.", exists=True)] = None,
    as_json: AsJson = False,
) -> None:
    """Say in words why a migration was allowed or refused, or what a policy says to a request: all reasons.

    Example: outrider policy explain m-0f3a9c52e1b87d46 --dir b
    """
    from outrider.decide.policy.cases import read_request
    from outrider.decide.policy.policy import decide
    from outrider.decide.policy.words import explained

    if (migration is None) == (request is None):
        raise typer.BadParameter("give a migration's id, or --request with a file")
    if request is not None:
        with ending(as_json):
            made = _load(policy) if policy is not None else _configured(_needed(directory))
            data = request.read_bytes()
            asked = _readable(request, lambda: read_request(data, json=request.suffix == ".json"))
            decision = decide(made, asked)
            emit(decision, explained(decision), as_json)
        return
    found = _kept(_needed(directory), as_json, migration=migration or "")
    if not found:
        sentence = f"No decision about {migration} is kept at this network."
        refuse(Refusal("DECISION_UNKNOWN", sentence, {}, "`outrider migration list` shows the migrations."), as_json)
    texts = []
    with ending(as_json):
        for kept in found:
            if policy is not None:
                kept = msgspec.structs.replace(kept, decision=decide(_load(policy), kept.request))
            texts.append(f"{_clock(kept.at_ms)} {explained(kept.decision)}")
        emit(found, "\n".join(texts), as_json)


@app.command()
def replay(
    policy: PolicyPath,
    directory: NetworkDir,
    since: Annotated[str | None, typer.Option(help="Only requests of so long ago: 24h, 7d.", metavar="SPAN")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge the requests of the past, as a running network has kept them, by another policy: what would change?

    Example: outrider policy replay new-policy --dir b --since 7d
    """
    from outrider.decide.policy.policy import decide
    from outrider.decide.policy.words import explained

    span = seconds(since)
    since_ms = int((time.time() - span) * 1000) if span is not None else 0
    with ending(as_json):
        made = _load(policy)
        found = _kept(directory, as_json, since_ms=since_ms)
        changes, lines = [], []
        for kept in found:
            decision = decide(made, kept.request)
            if decision.verdict is kept.decision.verdict:
                continue
            changes.append({"seq": kept.seq, "atMs": kept.at_ms, "migrationId": kept.migration_id,
                            "action": kept.request.action, "before": kept.decision, "after": decision})  # fmt: skip
            lines.append(f"{_clock(kept.at_ms)} {kept.migration_id}: {kept.decision.verdict} → {decision.verdict}")
            lines += [f"  {line}" for line in explained(decision).splitlines()]
        lines.append(f"{len(changes)} of {len(found)} decisions would change under {made.version}")
        value = {"policy": made.version, "decisions": len(found), "changes": changes}
        emit(value, "\n".join(lines), as_json)


def _load(path: Path) -> "Policy":
    """A policy from its files; raises `Refused` with everything that is wrong."""
    from outrider.decide.policy.policy import parse
    from outrider.functions.lmsf.policies import invalid
    from outrider.network.policy import PolicyFolder

    made = parse(PolicyFolder(path).read())
    if isinstance(made, list):
        raise Refused(*invalid(made))
    return made


def _configured(directory: Path) -> "Policy":
    from outrider.decide.policy.policy import NO_POLICY
    from outrider.network import config

    path = config.load(directory / config.FILE_NAME).policy.path
    return _load(directory / path) if path else NO_POLICY


def _needed(directory: Path | None) -> Path:
    if directory is None:
        raise typer.BadParameter("give --dir with the network's folder")
    return directory


def _readable(file: Path, read: Any) -> Any:
    """What a file says; one that cannot be understood is refused with what is wrong."""
    try:
        return read()
    except (ValueError, msgspec.DecodeError) as error:
        raise Refused(
            Refusal(
                "POLICY_CASE_INVALID",
                f"{file}: {error}.",
                {"file": str(file)},
                "See docs/reference/policy.md.",
                status=400,
            )
        ) from None


def _kept(directory: Path, as_json: bool, *, since_ms: int = 0, migration: str = "") -> "Sequence[Decided]":
    """Every decision that a running network has kept."""
    from outrider.functions.lmsf.policies import Decided

    async def all_of_them(node: Operator) -> list[Decided]:
        found: list[Decided] = []
        while True:
            after = found[-1].seq if found else 0
            path = f"{_ROOT}/decisions?since-ms={since_ms}&after={after}&migration={quote(migration)}"
            more = msgspec.convert((await node.ask("GET", path))["decisions"], list[Decided])
            if not more:
                return found
            found += more

    return run(directory, as_json, all_of_them)


def _clock(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
