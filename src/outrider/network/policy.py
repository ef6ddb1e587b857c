"""The files of an operator's policy: a folder with `*.toml` and `*.cedar`, or one such file."""

import stat
from pathlib import Path

from outrider.decide.policy.policy import FILE_BYTES

SUFFIXES = (".toml", ".cedar")


class PolicyFolder:
    """Implements the LMSF's port `PolicyFiles`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def path(self) -> str:
        """Where they are, for people."""
        return str(self._path)

    def stamp(self) -> object:
        """Another value whenever a file changes, comes or goes."""
        return [_stamp(file) for file in [self._path, *self._files()]]

    def read(self) -> dict[str, bytes]:
        """Every file by name; one that is too large is cut where that shows. `OSError` if they cannot be read."""
        if not self._path.exists():
            raise FileNotFoundError(2, "there is no such file or folder", str(self._path))
        found = {}
        for file in self._files():
            with file.open("rb") as opened:
                found[file.name] = opened.read(FILE_BYTES + 1)
        return found

    def _files(self) -> list[Path]:
        if not self._path.is_dir():
            return [self._path] if self._path.exists() else []
        return sorted(f for f in self._path.iterdir() if f.suffix in SUFFIXES and not f.name.startswith("."))


def _stamp(file: Path) -> tuple[str, int, int, int]:
    try:
        known = file.stat()
    except OSError:
        return str(file), 0, 0, 0
    size = 0 if stat.S_ISDIR(known.st_mode) else known.st_size
    return str(file), known.st_ino, known.st_mtime_ns, size
