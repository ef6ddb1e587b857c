"""Runs without one of the mechanisms, to show what it is worth: `outrider bench relocation --without holds`.

Keepers have no switch for it. A folder with a `sitecustomize` stands first on the path of the two nodes of such a run;
Python imports it in each of their processes before anything else, and it changes what has to be changed there.
"""

import os
from pathlib import Path

WITHOUT = {
    "holds": "every partition is held at the same time, as a freeze of the whole service would",
    "compression": "nothing is compressed on its way",
    "log": "changes are not followed; the partitions that have changed are sent again, in rounds",
    "shadow": "the target sends home nothing of what it does until the way back begins",
}
"""What is left out, and what happens instead."""

VARIABLE = "OUTRIDER_BENCH_WITHOUT"


def environment(without: str | None) -> dict[str, str]:
    """What a node is given for it."""
    if without is None:
        return {}
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent / "without"), os.environ.get("PYTHONPATH"))))
    return {VARIABLE: without, "PYTHONPATH": path}
