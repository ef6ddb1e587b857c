"""What a package's code imports, found without running it, and whether all of it is in the package.

A worker sees the standard library, the package's code and its wheels, and nothing of the node it runs on. So a module
that is not in the package is missed at build time, not in another operator's network.
"""

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from outrider.core.refusal import Refusal, Refused
from outrider.package.wheels import top_module


class Import(NamedTuple):
    """A module that a line of code imports."""

    module: str
    file: str
    line: int


def imports(code: Mapping[str, bytes]) -> Iterator[Import]:
    """Every absolute import that runs unconditionally: not those of `TYPE_CHECKING`, nor those that may fail."""
    for file in sorted(code):
        if file.endswith(".py"):
            yield from _walk(_parse(file, code[file]), file)


def _parse(file: str, source: bytes) -> ast.Module:
    try:
        return ast.parse(source, file)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        where = f"{file}, line {line}" if line else file
        raise Refused(
            Refusal("CODE_INVALID", f"{where} is no Python: {error}.", {"file": file}, "Correct the file.", status=400)
        ) from None


def _walk(node: ast.AST, file: str) -> Iterator[Import]:
    match node:
        case ast.Import(names=names):
            for name in names:
                yield Import(name.name, file, node.lineno)
        case ast.ImportFrom(level=0, module=str(module), names=names):
            yield Import(module, file, node.lineno)
        case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")) if (
            node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
        ):
            if not node.args[0].value.startswith("."):
                yield Import(node.args[0].value, file, node.lineno)
        case ast.Try() if any(_tolerates(handler) for handler in node.handlers):
            parts: Iterable[ast.AST] = [*node.handlers, *node.orelse, *node.finalbody]
            for part in parts:
                yield from _walk(part, file)
            return
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            for part in node.orelse:
                yield from _walk(part, file)
            return
        case _:
            pass
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, file)


def _tolerates(handler: ast.ExceptHandler) -> bool:
    """Whether a handler takes an ImportError: then the import before it is optional by the author's own word."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(k is None or (isinstance(k, ast.Name) and k.id in _IMPORT_ERRORS) for k in kinds)


_IMPORT_ERRORS = ("ImportError", "ModuleNotFoundError", "Exception", "BaseException")


def check(code: Mapping[str, bytes], apps: Iterable[str], wheel_members: Mapping[str, Iterable[str]]) -> None:
    """Refuse code that imports, or an `app` that names, what the package does not have; raises `Refused`.

    `code` is the package's code by path in `site`, `wheel_members` the paths that each wheel brings, by its name.
    """
    own = {module for path in code if (module := top_module(path))}
    brought: dict[str, str] = {}
    for wheel, members in wheel_members.items():
        brought |= dict.fromkeys(filter(None, map(top_module, members)), wheel)
    for module in sorted(own & brought.keys()):
        raise _shadows(module, f"the wheel {brought[module]}")
    for module in sorted(own & sys.stdlib_module_names):
        raise _shadows(module, "the standard library")
    there = set(code) | {m for wheel in wheel_members.values() for m in wheel}
    # Modules of these are files here; elsewhere a module may come into being at run time (as in `six.moves`).
    whole = own | {"outrider"}
    for found in imports(code):
        top = found.module.partition(".")[0]
        known = top in own or top in brought or top in sys.stdlib_module_names
        if not known or (top in whole and not _exists(found.module, there)):
            raise _missing(found)
    for app in apps:
        module = app.partition(":")[0]
        if not _exists(module, set(code)):
            raise Refused(
                Refusal(
                    "APP_MISSING",
                    f"The manifest names the app {app}, but the code has no module {module}.",
                    {"app": app},
                    "Correct `app`, or add the module.",
                )
            )


def _exists(module: str, files: set[str]) -> bool:
    path = module.replace(".", "/")
    return (
        f"{path}.py" in files
        or f"{path}/__init__.py" in files
        or any(f.startswith(f"{path}/") or (f.startswith(f"{path}.") and f.endswith(".so")) for f in files)
    )


def _shadows(module: str, what: str) -> Refused:
    return Refused(
        Refusal(
            "MODULE_SHADOWED",
            f"The code's module {module} has the name of one of {what}.",
            {"module": module},
            "Rename it.",
        )
    )


def _missing(found: Import) -> Refused:
    top = found.module.partition(".")[0]
    remedy = (
        "Workers get only `outrider.sdk` of Outrider."
        if top == "outrider"
        else f"Add the distribution that brings {top} to `requirements`."
    )
    return Refused(
        Refusal(
            "MODULE_MISSING",
            f"{found.file}, line {found.line}, imports {found.module}, which is not in the package.",
            {"module": found.module, "file": found.file, "line": str(found.line)},
            remedy,
        )
    )
