"""What became of a run with faults."""

import msgspec


class Outcome(msgspec.Struct, rename="camel", kw_only=True):
    """What became of one run."""

    faults: list[str]
    phase: str
    route: str = "A → B → A"
    kinds: list[str] = []
    """What each fault is, wherever it is done."""
    fired: list[str] = []
    ended: str = "?"
    """The last phase of each migration, and its cause if it was aborted."""
    verdict: str = "FAIL"
    reasons: list[str] = []
    unavailable_s: float | None = None
    """Longest wait of a transaction that was answered."""
    failed: int = 0
    """Transactions that were given up, without or with a known fate."""
    sent: int = 0
    elapsed_s: float = 0.0
    files: str = ""
