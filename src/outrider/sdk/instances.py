"""Fresh instances of an author's NF services in one process, for the test kit.

A relocation means other memory and other files. So each instance has modules of its own: the author's code is
imported again for it, and while one instance runs, its modules are those in `sys.modules` (also for imports inside
functions) and its directory is that for temporary files, the only one that a worker may write to.
"""

import contextlib
import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from outrider.sdk.engine import Engine
from outrider.sdk.service import as_service

Services = Mapping[str, object] | Callable[[], Mapping[str, object]]
"""NF services by name: each `module:attribute` as in the manifest, or an app; or a function that makes new apps."""

_DIRECTORIES = ("HOME", "TMPDIR")
_INSTALLED = frozenset(("site-packages", "dist-packages"))


class Instance:
    """All NF services of a package as one worker would have them."""

    def __init__(self, services: Services, code: Path | None) -> None:
        self._own = _own_modules(services, code)
        self._code = code
        self._modules: dict[str, ModuleType] = {}
        self._directory = tempfile.TemporaryDirectory(prefix="outrider-instance-")
        with self.active():
            apps = services() if callable(services) else services
            self.engine = Engine({name: as_service(_resolve(app)) for name, app in apps.items()}, _log)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """While it runs, the author's modules are this instance's."""
        others = {name: module for name, module in sys.modules.items() if self._own(name, module)}
        for name in others:
            del sys.modules[name]
        sys.modules.update(self._modules)
        if self._code is not None:
            sys.path.insert(0, str(self._code))
        kept = {name: os.environ.get(name) for name in _DIRECTORIES}, tempfile.tempdir
        os.environ.update(dict.fromkeys(_DIRECTORIES, self._directory.name))
        tempfile.tempdir = self._directory.name
        try:
            yield
        finally:
            environment, tempfile.tempdir = kept
            for name, value in environment.items():
                os.environ.pop(name)
                os.environ.update({name: value} if value is not None else {})
            if self._code is not None:
                sys.path.remove(str(self._code))
            self._modules = {name: module for name, module in sys.modules.items() if self._own(name, module)}
            for name in self._modules:
                del sys.modules[name]
            sys.modules.update(others)

    def discard(self) -> None:
        """Delete its files."""
        self._directory.cleanup()


def rebuilds(services: Services) -> bool:
    """Whether a new instance has new memory: not if the apps themselves were given."""
    return callable(services) or all(isinstance(app, str) for app in services.values())


def _resolve(app: object) -> object:
    if not isinstance(app, str):
        return app
    module, _, path = app.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _own_modules(services: Services, code: Path | None) -> Callable[[str, ModuleType], bool]:
    """Which modules are the author's: those named, and what lies in the same directories."""
    if callable(services):
        return lambda name, module: False
    tops = {app.partition(":")[0].partition(".")[0] for app in services.values() if isinstance(app, str)}
    roots = {code.resolve()} if code is not None else {root for top in tops if (root := _directory(top)) is not None}

    known: dict[tuple[str, object], bool] = {}

    def own(name: str, module: ModuleType) -> bool:
        file = getattr(module, "__file__", None)
        if (answer := known.get((name, file))) is None:
            answer = known[name, file] = decide(name, file)
        return answer

    def decide(name: str, file: object) -> bool:
        top = name.partition(".")[0]
        if top in tops:
            return True
        if top == "outrider" or not isinstance(file, str) or _INSTALLED & set(Path(file).parts):
            return False
        return top not in sys.stdlib_module_names and any(root in Path(file).resolve().parents for root in roots)

    return own


def _directory(top: str) -> Path | None:
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None or _INSTALLED & set(Path(spec.origin).parts):
        return None
    origin = Path(spec.origin).resolve()
    return origin.parent.parent if spec.submodule_search_locations else origin.parent


def _log(level: str, text: str) -> None:
    print(f"{level}: {text}", file=sys.stderr)
