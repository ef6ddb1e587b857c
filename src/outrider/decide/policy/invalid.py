"""What is wrong with a policy: file, line, what, and what to do about it."""

import msgspec


class Problem(msgspec.Struct, frozen=True, rename="camel"):
    """One thing that makes a policy unusable."""

    file: str
    line: int
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}." + (f" {self.remedy}" if self.remedy else "")
