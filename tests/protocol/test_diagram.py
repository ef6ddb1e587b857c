"""The documented state tables are those that run."""

from pathlib import Path

import pytest

from outrider.protocol import diagram
from outrider.protocol.ownership import OWNERSHIP


def test_the_documentation_is_not_stale() -> None:
    stale = [page.name for page in diagram.stale()]
    assert not stale, "run `python -m outrider.protocol.diagram --write`"


def test_every_rule_state_and_event_is_in_the_page() -> None:
    text = diagram.render(OWNERSHIP)
    for rule in OWNERSHIP.rules:
        assert f"`{rule.id}`" in text
        assert f"`{rule.on.__name__}`" in text
    assert "OWNED --> GRANTED : Drained" in text


def test_what_is_written_by_hand_around_the_tables_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "ownership.md"
    path.write_text(f"# Mine\n\nBefore.\n\n{diagram.BEGIN}\nstale words\n{diagram.END}\n\nAfter.\n")
    assert diagram.main(["--write", "--docs", str(tmp_path)]) == 0
    text = path.read_text()
    assert text.startswith("# Mine\n\nBefore.\n")
    assert text.endswith("\n\nAfter.\n")
    assert "stale words" not in text
    assert diagram.main(["--check", "--docs", str(tmp_path)]) == 0


def test_a_stale_page_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert diagram.main(["--check", "--docs", str(tmp_path)]) == 1
    assert "ownership.md is stale" in capsys.readouterr().out
