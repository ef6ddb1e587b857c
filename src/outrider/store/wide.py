"""Statements over many rows at once.

Every step of SQLite gives up Python's lock and waits to get it back. Beside a busy event loop that wait is long: a
batch of sixty units took 0.6 s when it made five hundred small statements. A wide statement waits once for up to 256
rows. Their number is rounded up to a power of two with rows of NULL, so a few prepared statements serve any number.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

import apsw

_MOST = 256

Rows = Sequence[Sequence[Any]]
Run = Callable[[str, Sequence[Any]], list[Any]]
"""Runs one statement and returns its rows."""


def runner(db: apsw.Connection) -> Run:
    """Runs statements on this connection."""
    return lambda sql, bindings: db.execute(sql, bindings).fetchall()


def write(db: apsw.Connection, sql: str, rows: Rows) -> None:
    """Run `sql` over all rows, in order; `{rows}` in it stands for `(?, …), (?, …)`. Rows of NULL mean nothing."""
    for _, text, bindings in _parts(sql, rows, numbered=False):
        db.execute(text, bindings)


def read(run: Run, sql: str, rows: Rows) -> Iterator[tuple[Rows, Any]]:
    """Run `sql`, in which `{rows}` stands for `(0, ?, …), (1, ?, …)`; gives each part of the rows and the one row that
    the statement made of it.
    """
    for part, text, bindings in _parts(sql, rows, numbered=True):
        yield part, run(text, bindings)[0]


def _parts(sql: str, rows: Rows, *, numbered: bool) -> Iterator[tuple[Rows, str, tuple[Any, ...]]]:
    for at in range(0, len(rows), _MOST):
        part = rows[at : at + _MOST]
        count, width = 1 << (len(part) - 1).bit_length(), len(part[0])
        bindings = (*chain.from_iterable(part), *((None,) * (width * (count - len(part)))))
        yield part, _text(sql, count, width, numbered), bindings


@cache
def _text(sql: str, count: int, width: int, numbered: bool) -> str:
    marks = ", ".join("?" * width)
    return sql.format(rows=", ".join(f"({f'{i}, ' if numbered else ''}{marks})" for i in range(count)))
