"""Where the example service is, which the demo moves if it is given no other."""

from pathlib import Path

NAME = "group-coordination"


def example() -> Path:
    """Its folder: in the checkout, or in what was installed from a wheel."""
    here = Path(__file__).resolve()
    checkout = here.parents[3] / "examples" / NAME
    return checkout if checkout.is_dir() else here.parent / NAME
