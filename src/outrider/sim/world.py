"""The states of the world of `sim.model`, what follows from each, and what must hold in each (PROTOCOL.md §11).

A state is a tuple of integers: one for each network's local state, one for what has been committed to each key, and
the set of messages as bits. I1, I3 and I4 are read off a state or a change; I2 asks, when something is decided about
an epoch, whether anything was decided about it before; I5 is checked where a unit is committed.

`settles` is liveness in the form that a search can decide: forget every message in flight, let nothing fail from here
on, let each network repeat its questions, and see that no key stays GRANTED and that each has one owner.
"""

from collections.abc import Iterator
from typing import NamedTuple

from outrider.protocol import ownership as o
from outrider.protocol.ownership import Ownership
from outrider.sim.model import Driver
from outrider.sim.space import Edge
from outrider.sim.values import HOME, NAMES, STAR, Bounds, Change, Content, Msg, Net, effective, key_name, net_text, put

State = tuple[int, ...]

SETTLE_ROUNDS = 6
"""Rounds of questions and answers after which every key must be settled; the longest chain seen needs three."""


class _Local(NamedTuple):
    """A change of one network, with everything interned."""

    net: int
    sent: int
    change: Change


class World:
    """All states that a driver can reach within its bounds."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.bounds: Bounds = driver.bounds
        self._begin: State = ()
        self._nets: list[Net] = []
        self._net_ids: dict[Net, int] = {}
        self._msgs: list[Msg] = []
        self._msg_ids: dict[Msg, int] = {}
        self._chains: list[tuple[Content, ...]] = []
        self._chain_ids: dict[tuple[Content, ...], int] = {}
        self._to = [0] * self.bounds.networks
        """For each network, the messages that are for it."""
        self._decided: dict[tuple[str, int, int], int] = {}
        """For each ("grant" or "answer", key, epoch), the messages that prove that it was decided before."""
        self._alone: dict[tuple[int, int], list[_Local]] = {}
        self._heard: dict[tuple[int, int], list[_Local]] = {}
        self._tried: dict[tuple[int, int], tuple[int, int]] = {}
        self._always = 0
        self._about: dict[tuple[int, int, int], int] = {}
        self._asked: dict[tuple[int, int, int], int] = {}
        self._live: dict[tuple[tuple[int, ...], int], int] = {}
        self._checked: dict[State, str | None] = {}
        self._settled: dict[State, str | None] = {}

    # ------------------------------------------------------------------------------------------- states

    def initial(self) -> State:
        """Home owns everything, nothing was ever sent."""
        n = self.bounds.networks
        empty: tuple[Content, ...] = ((),) * (self.bounds.ues + 1)
        self._begin = (*(self._net(self.driver.first(i)) for i in range(n)), self._chain(empty), 0)
        return self._begin

    def next(self, state: State) -> Iterator[Edge[State]]:
        """Every step that the world may take from here; those that change nothing are left out."""
        n, msgs = self.bounds.networks, state[-1]
        # While nobody but home has done anything, the others are alike: the first grant goes to B.
        alike = state[1:n] == self._begin[1:n] and not msgs and self._nets[state[0]].rows == self._nets[0].rows
        for i in range(n):
            for local in self._of_its_own(i, state[i]):
                if not (alike and any(m.target > 1 for m in local.change.sent)):
                    yield from self._edge(state, i, local)
            todo, known, useful = msgs & self._to[i], *self._tried.get((i, state[i]), (0, 0))
            if fresh := todo & ~known:
                useful |= sum(1 << m for m in _bits(fresh) if self._on(m, state[i]))
                self._tried[i, state[i]] = (known | fresh, useful)
            for m in _bits(todo & useful):
                for local in self._on(m, state[i]):
                    yield from self._edge(state, i, local)

    def _edge(self, state: State, i: int, local: _Local) -> Iterator[Edge[State]]:
        n, change = self.bounds.networks, local.change
        chain, msgs, fault = state[n], state[-1], change.fault
        if change.decides and msgs & self._decided.get(change.decides, 0):
            what, k, x = change.decides
            fault = fault or f"I2: a second {what} for {key_name(k)}@{x}"
        if change.commit:
            k, old = change.commit
            chains = self._chains[chain]
            if sum(map(len, chains)) >= self.bounds.writes:
                return
            lost = any(self._nets[net].store for net in state[:n])
            if (chains[k][: len(old)] if lost else chains[k]) != old:  # a lost disk takes the end of a history with it
                fault = fault or f"I3: a unit of {key_name(k)} follows {old}, but {chains[k]} was committed before"
            new = change.net.copies[k]
            if len(new) > 1 and new[-1] // len(NAMES) < new[-2] // len(NAMES):
                fault = fault or f"I3: epochs fall in the history of {key_name(k)}"
            chain = self._chain(put(chains, k, new))
        nets = (*state[:i], local.net, *state[i + 1 : n])
        msgs |= local.sent
        if self.bounds.forget:
            msgs &= self.alive(nets)
        after = (*nets, chain, msgs)
        if fault is not None and fault.startswith(self.driver.blind):
            fault = None
        if after != state or fault:
            yield Edge(after, change.label, fault)

    def alive(self, nets: tuple[int, ...]) -> int:
        """The messages that may still matter: questions not decided yet, and what belongs to a grant in doubt."""
        key = (nets, len(self._msgs))
        if key not in self._live:
            mask = self._always
            for i, net in enumerate(nets):
                rows = self._nets[net].rows
                for k in self.driver.keys:
                    row = rows[k]
                    if row is not None and row.state is Ownership.GRANTED:
                        mask |= self._about.get((i, k, row.epoch), 0)
                    epoch = effective(self._nets[net], k).epoch
                    for (j, of, x), asked in self._asked.items():
                        if j == i and of == k and x > epoch:
                            mask |= asked
            self._live[key] = mask
        return self._live[key]

    def old_news(self, state: State) -> str | None:
        """A message that `alive` gives up and that would still change something; None if there is none."""
        nets = state[: self.bounds.networks]
        alive = self.alive(nets)
        for m in _bits(state[-1] & ~alive):
            at = nets[self._msgs[m].target]
            for local in self._on(m, at):
                if local.net != at or local.sent & alive:
                    return f"{self._msgs[m]} still matters: {local.change.label}"
        return None

    # --------------------------------------------------------------------------------------- predicates

    def check(self, state: State) -> str | None:
        """I1 and I3 in this state; None if they hold."""
        seen = state[:-1]
        if seen not in self._checked:
            self._checked[seen] = self._check([self._nets[i] for i in state[:-2]], self._chains[state[-2]])
        return self._checked[seen]

    def _check(self, nets: list[Net], chains: tuple[Content, ...]) -> str | None:
        lost = any(net.store for net in nets)
        for k in self.driver.keys:
            rows = [effective(net, k) for net in nets]
            owners = [i for i, row in enumerate(rows) if row.state is Ownership.OWNED]
            if len(owners) > 1:
                return f"I1: {key_name(k)} has two owners, {' and '.join(NAMES[i] for i in owners)}"
            if lost:
                continue  # a lost disk takes keys with it; what must hold is that it brings no second owner
            if not owners and not any(row.state is Ownership.GRANTED for row in rows):
                return f"I1: {key_name(k)} has no owner, and nobody has granted it"
            if owners and k != STAR and nets[owners[0]].copies[k] != chains[k]:
                return f"I3: {NAMES[owners[0]]} owns {key_name(k)} but lacks units that were committed"
        return None

    def settles(self, state: State) -> str | None:
        """None if, without any further fault, every key comes to have an owner and nothing stays in doubt."""
        seen = state[: self.bounds.networks]
        if seen not in self._settled:
            ids = list(seen)
            fault = self._settle(ids, recalling=False)
            if fault is None and self.bounds.recalls:
                fault = self._settle(ids, recalling=True)
            self._settled[seen] = fault
        return self._settled[seen]

    def _settle(self, ids: list[int], *, recalling: bool) -> str | None:
        driver, nets = self.driver, [self.driver.restart(self._nets[i]) for i in ids]
        if nets[HOME].store:
            return None  # what others are in doubt about was home before, and home does not answer for it any more
        nets[HOME] = nets[HOME]._replace(down=False)
        if any(net.store for net in nets):
            if not nets[HOME].banned:
                return None  # without an operator's word nothing ends
            for k in (k for k in driver.keys if nets[HOME].rows[k] is not None):
                nets[HOME] = driver.act(HOME, nets[HOME], k, o.DeclaredLost(NAMES[1]), "").net
        for _ in range(SETTLE_ROUNDS):
            asked = False
            for i in range(len(nets)):
                for k in driver.keys:
                    row = nets[i].rows[k]
                    if row is None or row.state is not Ownership.GRANTED:
                        continue
                    asked = True
                    event = o.Resend(aborted=recalling or not driver.may_give(nets[i], row.mig or ""))
                    self._converse(nets, driver.act(i, nets[i], k, event, "").sent)
            if not asked:
                break
        for k in driver.keys:
            rows = [effective(net, k) for net in nets]
            if any(row.state is Ownership.GRANTED for row in rows):
                return f"I9: {key_name(k)} stays in doubt though nothing fails any more"
            if [row.state for row in rows].count(Ownership.OWNED) != 1:
                return f"I9: {key_name(k)} ends without one owner"
        return None

    def _converse(self, nets: list[Net], msgs: tuple[Msg, ...]) -> None:
        """Deliver messages and what answers them, each once, in order."""
        queue = list(msgs)
        for m in queue:
            change = next(self.driver.hear(nets[m.target], m), None)
            if change is not None:
                nets[m.target] = change.net
                queue += change.sent

    # ------------------------------------------------------------------------------------------- people

    def text(self, state: State) -> list[str]:
        """A state for people, a line for each network."""
        nets = [self._nets[i] for i in state[: self.bounds.networks]]
        return [f"{NAMES[i]}: {net_text(net, self.driver.keys)}" for i, net in enumerate(nets)]

    # ----------------------------------------------------------------------------------------- interning

    def _net(self, net: Net) -> int:
        found = self._net_ids.setdefault(net, len(self._nets))
        if found == len(self._nets):
            self._nets.append(net)
        return found

    def _chain(self, chains: tuple[Content, ...]) -> int:
        found = self._chain_ids.setdefault(chains, len(self._chains))
        if found == len(self._chains):
            self._chains.append(chains)
        return found

    def _mask(self, msgs: tuple[Msg, ...]) -> int:
        mask = 0
        for m in msgs:
            found = self._msg_ids.setdefault(m, len(self._msgs))
            if found == len(self._msgs):
                self._msgs.append(m)
                self._to[m.target] |= 1 << found
                self._index(m, 1 << found)
                what = {"GRANT": "grant", "ACCEPTED": "answer", "REFUSED": "answer"}.get(m.kind, m.kind)
                proof = (what, m.key, m.x)
                self._decided[proof] = self._decided.get(proof, 0) | 1 << found
            mask |= 1 << found
        return mask

    def _index(self, m: Msg, bit: int) -> None:
        if m.kind in ("GRANT", "RECALL"):
            self._about[m.source, m.key, m.x] = self._about.get((m.source, m.key, m.x), 0) | bit
            self._asked[m.target, m.key, m.x] = self._asked.get((m.target, m.key, m.x), 0) | bit
        elif m.kind in ("ACCEPTED", "REFUSED", "NEED"):
            self._about[m.target, m.key, m.x] = self._about.get((m.target, m.key, m.x), 0) | bit
        else:
            self._always |= bit

    def _locals(self, before: Net, changes: Iterator[Change]) -> list[_Local]:
        return [
            _Local(self._net(c.net), self._mask(c.sent), c)
            for change in changes
            for c in self.driver.persist(before, change)
            if c.net != before or c.sent or c.fault
        ]

    def _of_its_own(self, i: int, net: int) -> list[_Local]:
        if (i, net) not in self._alone:
            before = self._nets[net]
            self._alone[i, net] = self._locals(before, self.driver.alone(i, before))
        return self._alone[i, net]

    def _on(self, m: int, net: int) -> list[_Local]:
        if (m, net) not in self._heard:
            before = self._nets[net]
            self._heard[m, net] = self._locals(before, self.driver.hear(before, self._msgs[m]))
        return self._heard[m, net]


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
