"""Which wheels a package needs: everything that its requirements require, for each architecture.

Dependencies are resolved among the wheels that are there, without a choice of versions: a pool has one version of each
distribution, so the answer does not depend on an algorithm.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import NormalizedName, canonicalize_name

from outrider.core import limits
from outrider.core.refusal import Refusal, Refused
from outrider.package import repack, wheels
from outrider.package.archive import check_tree, too_large
from outrider.package.wheels import Machine, Wheel, read_wheel

ANY = "any"
"""The architecture of a package that has nothing compiled in it."""

Find = Callable[[NormalizedName], Sequence[Wheel]]
Fits = Callable[[Wheel], int | None]


def requirements_of(texts: Iterable[str]) -> list[Requirement]:
    """The manifest's requirements, and always the SDK."""
    found = [Requirement(repack.SDK_NAME)]
    for text in texts:
        try:
            found.append(Requirement(text))
        except InvalidRequirement as error:
            sentence = f"The requirement {text[:200]!r} cannot be read: {error}."
            raise Refused(Refusal("MANIFEST_INVALID", sentence, status=400)) from None
    return found


def environment(architecture: str, python: str) -> dict[str, str]:
    """What markers are evaluated against: CPython on Linux. Nothing of this machine, so all machines agree."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": architecture,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }


@dataclass(frozen=True, slots=True)
class Closure:
    """The wheels needed by name, and who needs whom: by name of the one that requires, `""` for the package's code."""

    wheels: dict[NormalizedName, Wheel]
    edges: frozenset[tuple[str, NormalizedName]]


def resolve(wanted: Iterable[Requirement], find: Find, fits: Fits, architecture: str, python: str) -> Closure:
    """The wheel of each distribution needed on an architecture; raises `Refused` for the first that is not there.

    `fits` ranks a wheel for where it is to run, 0 best, or says None.
    """
    base = environment(architecture, python)
    chosen: dict[NormalizedName, Wheel] = {}
    edges: set[tuple[str, NormalizedName]] = set()
    done: set[tuple[NormalizedName, str]] = set()
    todo: list[tuple[Requirement, str, str]] = [(r, "", "") for r in wanted]
    while todo:
        requirement, extra, by = todo.pop()
        if not _holds(requirement, {**base, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        who = f"{by} {chosen[canonicalize_name(by)].version}" if by else "the package"
        edges.add((by, name))
        if name not in chosen:
            chosen[name] = _choose(name, find(name), fits, who, architecture)
        wheel = chosen[name]
        if not requirement.specifier.contains(wheel.version, prereleases=True):
            raise Refused(
                Refusal(
                    "WHEEL_VERSION",
                    f"{who} needs {requirement.name}{requirement.specifier}, but there is {wheel.version}.",
                    {"distribution": name, "version": str(wheel.version)},
                    "Install or give a version that fits, or change the requirement.",
                )
            )
        for more in ("", *sorted(requirement.extras)):
            if (name, more) not in done:
                done.add((name, more))
                todo += [(r, more, name) for r in wheel.requires]
    return Closure(chosen, frozenset(edges))


def _holds(requirement: Requirement, environment: dict[str, str]) -> bool:
    try:
        return requirement.marker is None or requirement.marker.evaluate(environment)
    except (ValueError, TypeError, KeyError) as error:
        sentence = f"The requirement {str(requirement)[:200]!r} has a marker that cannot be evaluated: {error}."
        raise Refused(Refusal("WHEEL_INVALID", sentence, status=400)) from None


def _choose(name: NormalizedName, candidates: Sequence[Wheel], fits: Fits, who: str, architecture: str) -> Wheel:
    versions = sorted({w.version for w in candidates})
    if len(versions) > 1:
        raise Refused(
            Refusal(
                "WHEEL_AMBIGUOUS",
                f"There are several versions of {name}: {', '.join(map(str, versions))}.",
                {"distribution": name},
                "Leave one version of each distribution.",
            )
        )
    ranked = sorted((rank, w.file_name, w) for w in candidates if (rank := fits(w)) is not None)
    if ranked:
        return ranked[0][2]
    if candidates:
        sentence = f"No wheel of {name}, which {who} needs, runs here: {architecture}, and the package's Python."
    else:
        sentence = f"There is no wheel of {name}, which {who} needs."
    raise Refused(
        Refusal(
            "WHEEL_MISSING",
            sentence,
            {
                "distribution": name,
                "architecture": architecture,
                "wheels": ", ".join(w.file_name for w in candidates),
            },
            "Add the wheel and build again.",
        )
    )


class Needed(NamedTuple):
    """What a package holds over all its architectures: its wheels, and whose file needs whose (`""` is the code)."""

    wheels: dict[str, Wheel]
    needs: dict[str, set[str]]


def over_architectures(wanted: Sequence[Requirement], find: Find, architectures: Iterable[str], python: str) -> Needed:
    """Resolve for each architecture that a package is for; raises `Refused` if one of them lacks something."""
    needed = Needed({}, {"": set()})
    for architecture in architectures:
        closure = resolve(wanted, find, for_architecture(architecture, python), architecture, python)
        needed.wheels.update({w.file_name: w for w in closure.wheels.values()})
        for by, name in closure.edges:
            who = closure.wheels[canonicalize_name(by)].file_name if by else ""
            needed.needs.setdefault(who, set()).add(closure.wheels[name].file_name)
    return needed


def site_plan(code: Iterable[str], chosen: Iterable[Wheel]) -> dict[str, Wheel | None]:
    """Which wheel (None: the code) each path in `site` comes from; raises `Refused` if two claim one path."""
    plan: dict[str, Wheel | None] = dict.fromkeys(code)
    for wheel in chosen:
        for path in wheel.members:
            if path in plan:
                first = plan[path]
                other = first.file_name if first is not None else "the code"
                sentence = f"Both {wheel.file_name} and {other} bring {path}."
                raise Refused(Refusal("PATH_CONFLICT", sentence, {"path": path}, "Remove one of them."))
            plan[path] = wheel
    check_tree(plan)
    if len(plan) > limits.PACKAGE_SITE_FILES:
        raise too_large(f"it unpacks to more than {limits.PACKAGE_SITE_FILES} files")
    return plan


class Pool:
    """Wheels to build from, by distribution: read from a folder, or made of what is installed here."""

    def __init__(self, folder: Path | None) -> None:
        self._found: dict[NormalizedName, list[Wheel]] = {}
        self._content: dict[str, bytes | Path] = {}
        self._folder = folder
        self._add(*repack.sdk())
        for path in sorted(folder.glob("*.whl")) if folder is not None else ():
            with path.open("rb") as file:
                wheels.check_record(path.name, file)
                wheel = read_wheel(path.name, file)
            self._found.setdefault(canonicalize_name(wheel.name), []).append(wheel)
            self._content[path.name] = path

    def _add(self, file_name: str, data: bytes) -> None:
        wheel = read_wheel(file_name, io.BytesIO(data))
        self._found[canonicalize_name(wheel.name)] = [wheel]
        self._content[file_name] = data

    def find(self, name: NormalizedName) -> Sequence[Wheel]:
        """The wheels of a distribution."""
        if name not in self._found and self._folder is None:
            made = repack.repack(name)
            if made is not None:
                self._add(*made)
        return self._found.get(name, [])

    def content(self, wheel: Wheel) -> bytes:
        """A wheel's bytes."""
        held = self._content[wheel.file_name]
        return held if isinstance(held, bytes) else held.read_bytes()

    def texts(self, wheel: Wheel) -> dict[str, bytes]:
        """A wheel's licence texts."""
        return wheels.read_texts(wheel, io.BytesIO(self.content(wheel)))

    @property
    def architectures(self) -> frozenset[str]:
        """Every architecture that some wheel names."""
        return frozenset(a for found in self._found.values() for w in found for a in w.architectures)


def find_among(found: Iterable[Wheel]) -> Find:
    """Look wheels up in a fixed set."""
    table: dict[NormalizedName, list[Wheel]] = {}
    for wheel in found:
        table.setdefault(canonicalize_name(wheel.name), []).append(wheel)
    return lambda name: table.get(name, [])


def for_architecture(architecture: str, python: str) -> Fits:
    """Any wheel that runs under some Linux of that architecture."""
    return lambda wheel: 0 if wheel.serves(architecture, python) else None


def for_machine(machine: Machine) -> Fits:
    """The wheels that run on exactly this machine."""
    return lambda wheel: wheel.fits(machine)
