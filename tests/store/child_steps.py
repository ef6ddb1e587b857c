"""Kills itself at every step of one action on a store, and looks each time at what is left.

`child_steps.py ACTION DIRECTORY`: a step is a call of a C function (so every system call is between two steps). For
each number n a forked process does the action and ends itself with SIGKILL when it comes to its n-th step; then the
store must be as it was before the action or as it is after it, whole. Prints what was found as JSON.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from outrider.core.ids import partition_key, ue_key
from outrider.core.record import Change, Head, Kind, Record, digest_of
from outrider.protocol.ownership import Ownership, Row
from outrider.store.port import BindIdentity, Failed, SetRow, SetValue, Take, Work
from outrider.store.sqlite import SqliteStore

KEY = b"key of the hashes in these tests"
NOTHING = Row(Ownership.FOREIGN, 0)
UES = [ue_key(bytes([0]) + bytes([n]) * 15) for n in range(30)]


def content(key, n, body):
    records = [Record(key, Kind.DATA, "nf", f"r{i}", body, n) for i in range(3)]
    return Head(1, n, digest_of(records, KEY)), records


def prepare(path):
    """A store with an early UE that is owned, one that was given away, a log, values and identities."""
    store = SqliteStore.open(path, digest_key=KEY)
    store.commit([SetRow(partition_key(0), NOTHING, Row(Ownership.FOREIGN, 0, "999-70"))])
    for key in UES[:2]:
        head, records = content(key, 4, b"early")
        store.commit([Take(key, store.row(key), Row(Ownership.OWNED, 2), head, records)])
    store.commit([Work(UES[0], 2, [Change(Kind.DATA, "nf", "own", b"x")]), SetValue("v", b"1")])
    store.commit([BindIdentity("imsi-1", UES[0])])
    store.commit([SetRow(UES[1], Row(Ownership.OWNED, 2), Row(Ownership.GRANTED, 3, "999-70"))])
    return store


def commit(store):
    yield
    outcomes = store.commit(
        [
            Work(UES[0], 2, [Change(Kind.DATA, "nf", f"r{i}", b"new" * 3000) for i in range(5)]),
            Work(UES[0], 2, [Change(Kind.DATA, "nf", "impossible", b"", 5)]),
            SetValue("v", b"2"),
        ]
    )
    assert isinstance(outcomes[1], Failed)


def adopt(store):
    staging = store.stage(1)
    parts = [content(key, 9, b"staged") for key in UES]
    staging.load([(k, *h) for k, (h, _) in zip(UES, parts, strict=True)], [r for _, rs in parts for r in rs])
    yield
    store.adopt(staging)


def trim(store):
    yield
    store.trim_log(store.last_lsn())


def commit_in_two(store):
    """A commit as it must not be: the store is torn between its transactions."""
    yield
    store.commit([SetValue("v", b"2")])
    store.commit([Work(UES[0], 2, [])])


ACTIONS = {
    "commit": commit,
    "adopt": adopt,
    "trim": trim,
    "commit in two": commit_in_two,
}


def seen(path):
    """Everything that is in a store, but for how often it was opened."""
    store = SqliteStore.open(path, digest_key=KEY)
    try:
        chunk = store.chunk(b"u", b"v", 10_000)
        rows = store.own_rows(b"", b"\xff")
        log, lsn = store.log(0, 1_000), store.last_lsn()
        files = sorted(p.name for p in path.parent.iterdir() if "staging" in p.name)
        state = (store.identity.store_id, chunk, rows, log, lsn, store.values(""), store.key_of("imsi-1"), files)
        return state, store.check()
    finally:
        store.close()


def in_child(work):
    """Run this in a forked process; returns whether it came to its end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def die_at(step):
    """From now on, in this thread, count the calls of C functions and die at one."""
    left = [step]

    def count(_frame, event, _argument):
        if event == "c_call":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def steps_of(action, template, directory):
    """All states that a death at some step leaves, against the states before and after the action."""

    def do(path, step):
        if action in ("create", "open"):
            die_at(step)
            SqliteStore.open(path, digest_key=KEY)
            return
        store = SqliteStore.open(path, digest_key=KEY)
        acting = ACTIONS[action](store)
        next(acting)
        die_at(step)
        for _ in acting:
            pass
        sys.setprofile(None)

    def fresh(name):
        target = directory / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(template, target)
        return target / "c.db"

    before, _ = seen(fresh("before"))
    whole = fresh("whole")
    assert in_child(lambda: do(whole, -1))
    after, wrong = seen(whole)
    assert wrong == []
    found = {"steps": 0, "before": 0, "after": 0, "wrong": []}
    path = directory / "killed" / "c.db"
    ended = False
    while not ended:
        found["steps"] += 1
        fresh("killed")
        ended = in_child(lambda: do(path, found["steps"]))
        state, wrong = seen(path)
        if action == "create":  # who it is, is drawn anew until it is durable
            state = before = after = state[1:]
        if wrong:
            found["wrong"].append([found["steps"], wrong])
        elif state == after:
            found["after"] += 1
        elif state == before:
            found["before"] += 1
        else:
            found["wrong"].append([found["steps"], "neither before nor after"])
    return found


def main(action, directory):
    template = directory / "template"
    template.mkdir()
    if action != "create":
        prepare(template / "c.db").close()
    print(json.dumps(steps_of(action, template, directory)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
