"""The files of a policy as the node finds them, and a node whose policy is wrong."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outrider.cli import network
from outrider.core.refusal import Refused
from outrider.decide.policy.policy import FILE_BYTES
from outrider.network.node import Node
from outrider.network.policy import PolicyFolder

PERMIT = '[[permit]]\nid = "all"\n'


def test_a_folder_is_its_rules_and_nothing_else(tmp_path: Path) -> None:
    for name in ("rules.toml", "own.cedar", "README.md", ".own.cedar.swp", ".hidden.toml"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert PolicyFolder(tmp_path).read() == {"own.cedar": b"own.cedar", "rules.toml": b"rules.toml"}
    assert PolicyFolder(tmp_path / "own.cedar").read() == {"own.cedar": b"own.cedar"}


def test_a_file_that_is_too_large_is_read_so_far_that_it_shows(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_bytes(b"#" * (3 * FILE_BYTES))
    assert len(PolicyFolder(tmp_path).read()["rules.toml"]) == FILE_BYTES + 1


def test_what_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        PolicyFolder(tmp_path / "none").read()
    assert error.value.filename == str(tmp_path / "none")


@pytest.mark.parametrize("single", [False, True])
def test_every_change_of_the_files_is_seen(tmp_path: Path, single: bool) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(PERMIT, encoding="utf-8")
    files = PolicyFolder(file if single else tmp_path)
    stamps = [files.stamp()]
    assert files.stamp() == stamps[0]

    def seen() -> None:
        assert files.stamp() not in stamps
        stamps.append(files.stamp())

    file.write_text(PERMIT + "# more\n", encoding="utf-8")
    seen()
    os.utime(file, ns=(1, 1))
    seen()
    (tmp_path / "beside").write_text(PERMIT, encoding="utf-8")
    os.utime(tmp_path / "beside", ns=(1, 1))
    (tmp_path / "beside").rename(file)  # as an editor replaces a file, here to the same size as before
    seen()
    file.unlink()
    seen()


async def test_a_node_does_not_start_with_a_policy_that_is_wrong(tmp_path: Path) -> None:
    made = CliRunner().invoke(network.app, ["init", str(tmp_path / "b"), "--id", "999-71", "--sbi-port", "0"])
    assert made.exit_code == 0, made.output
    config = tmp_path / "b" / "network.toml"
    config.write_text(config.read_text(encoding="utf-8").replace('path = ""', 'path = "policy"'), encoding="utf-8")
    with pytest.raises(Refused, match="POLICY_INVALID") as missing:
        await Node(tmp_path / "b").start()
    assert str(tmp_path / "b" / "policy") in str(missing.value)
    (tmp_path / "b" / "policy").mkdir()
    (tmp_path / "b" / "policy" / "rules.toml").write_text(PERMIT + "max = 1\n", encoding="utf-8")
    with pytest.raises(Refused, match=r"rules.toml:3: max is no key here"):
        await Node(tmp_path / "b").start()
    (tmp_path / "b" / "policy" / "rules.toml").write_text(PERMIT, encoding="utf-8")
    node = Node(tmp_path / "b")
    await node.start()
    await node.reload()  # as SIGHUP does
    await node.stop()
