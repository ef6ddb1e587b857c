"""When each UE changes network: a CSV file of `ue,time_s,network`, read, checked, and made up from a seed.

UEs are numbered from 1 and start in the home network; a UE without a row never leaves it. Times count from when the
group sets out.
"""

import csv
import random
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

COLUMNS = ["ue", "time_s", "network"]
ERRORS_SHOWN = 10


class Move(NamedTuple):
    """UE `ue` comes to `network` at `time_s`."""

    ue: int
    time_s: float
    network: str


class TrackError(ValueError):
    """A track file does not make sense; says where, line by line."""


def read_track(path: Path, *, ues: int, networks: Sequence[str], home: str) -> list[Move]:
    """The moves of a track file, in the order of time; `TrackError` names every line that is wrong."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return parse_track(file, name=str(path), ues=ues, networks=networks, home=home)


def parse_track(lines: Iterable[str], *, name: str, ues: int, networks: Sequence[str], home: str) -> list[Move]:
    """As `read_track`, from lines; `name` is what the errors call them."""
    rows = csv.reader(lines)
    header = [cell.strip() for cell in next(rows, [])]
    if header != COLUMNS:
        raise TrackError(f"{name}:1: the first line must be {','.join(COLUMNS)}")
    errors: list[str] = []
    moves: list[tuple[int, Move]] = []
    for row in rows:
        if not row or row[0].lstrip().startswith("#"):
            continue
        move = _move(row, ues, networks)
        if isinstance(move, str):
            errors.append(f"{name}:{rows.line_num}: {move}")
        else:
            moves.append((rows.line_num, move))
    moves.sort(key=lambda m: m[1].time_s)
    errors += [f"{name}:{line}: {text}" for line, text in _impossible(moves, home)]
    if errors:
        more = [f"and {len(errors) - ERRORS_SHOWN} more"] if len(errors) > ERRORS_SHOWN else []
        raise TrackError("\n".join(errors[:ERRORS_SHOWN] + more))
    return [move for _, move in moves]


def _move(row: list[str], ues: int, networks: Sequence[str]) -> Move | str:
    """The move in a row, or what is wrong with it."""
    if len(row) != len(COLUMNS):
        return f"{len(row)} columns instead of {len(COLUMNS)}"
    ue, time_s, network = (cell.strip() for cell in row)
    if not ue.isascii() or not ue.isdigit() or not 1 <= int(ue) <= ues:
        return f"ue {ue!r} is not a number from 1 to {ues}"
    try:
        seconds = float(time_s)
    except ValueError:
        return f"time_s {time_s!r} is not a number"
    if not 0 <= seconds < float("inf"):
        return f"time_s {time_s!r} is not a time from 0 on"
    if network not in networks:
        return f"network {network!r} is none of {', '.join(networks)}"
    return Move(int(ue), seconds, network)


def _impossible(moves: Iterable[tuple[int, Move]], home: str) -> Iterable[tuple[int, str]]:
    """Moves (in the order of time) to where the UE is already, or two at a time."""
    last: dict[int, Move] = {}
    for line, move in moves:
        before = last.get(move.ue, Move(move.ue, -1.0, home))
        if move.network == before.network:
            yield line, f"UE {move.ue} is in {move.network} already"
        elif move.time_s == before.time_s:
            yield line, f"UE {move.ue} moves twice at {move.time_s} s"
        last[move.ue] = move


def write_track(moves: Iterable[Move]) -> str:
    """The moves as the text of a track file."""
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows((move.ue, f"{move.time_s:.3f}", move.network) for move in moves)
    return text.getvalue()


def make_track(
    *,
    ues: int,
    home: str,
    target: str,
    seed: int,
    over_s: float = 6.0,
    stay_s: float = 6.0,
    early_share: float = 0.05,
    late_share: float = 0.05,
    never_share: float = 0.05,
) -> list[Move]:
    """A group that goes over in `over_s` seconds, one after the other as a train passes, stays, and comes back.

    A few are early (in the first tenth of the time), a few late (half as long again after all others), a few never
    leave. Those who are late come back late too.
    """
    chance = random.Random(seed)
    order = list(range(1, ues + 1))
    chance.shuffle(order)
    never = round(ues * never_share)
    early = round(ues * early_share)
    late = round(ues * late_share)
    moves: list[Move] = []
    for place, ue in enumerate(order[never:]):
        if place < early:
            out_s = chance.uniform(0.0, 0.1 * over_s)
            lag_s = out_s
        elif place < early + late:
            out_s = chance.uniform(over_s, 1.5 * over_s)
            lag_s = out_s
        else:
            out_s = chance.uniform(0.1 * over_s, over_s)
            lag_s = chance.uniform(0.1 * over_s, over_s)
        moves.append(Move(ue, round(out_s, 3), target))
        moves.append(Move(ue, round(1.5 * over_s + stay_s + lag_s, 3), home))
    return sorted(moves, key=lambda m: (m.time_s, m.ue))


class Onward(NamedTuple):
    """A track over three networks, and the instants at which the service has to be further."""

    moves: list[Move]
    onward_s: float
    """Nobody is in the third network before."""
    home_s: float
    """Nobody comes home from there before, and nobody is at the second after."""


def make_onward_track(
    *, ues: int, home: str, between: str, target: str, seed: int, over_s: float = 1.5, stay_s: float = 2.0
) -> Onward:
    """A group that goes from home to a network between, on to a target, and home, each in `over_s` seconds.

    Half of it goes that way. Of the others some turn back at the network between, at once or later, some go to the
    target straight from home, and a few never leave.
    """
    chance = random.Random(seed)
    leg_s = over_s + stay_s
    onward_s, home_s = leg_s, 2 * leg_s
    ways = [
        [(0.0, between), (onward_s, target), (home_s, home)],
        [(0.0, between), (onward_s, home)],
        [(onward_s, target), (home_s, home)],
        [(0.0, between), (onward_s + 0.5 * stay_s, home)],
        [],
    ]
    taken = [way for way, share in zip(ways, (10, 3, 3, 2, 2), strict=True) for _ in range(share)]
    taken = [taken[ue % len(taken)] for ue in range(ues)]
    chance.shuffle(taken)
    moves = []
    for ue, way in enumerate(taken, 1):
        for at_s, network in way:
            moves.append(Move(ue, round(at_s + chance.uniform(0.0, over_s), 3), network))
    return Onward(sorted(moves, key=lambda m: (m.time_s, m.ue)), onward_s, home_s)
