"""Making a network: its folder with `network.toml`, its keys and the folders of what will be there, all or nothing."""

import os
import shutil
import tempfile
from pathlib import Path

from outrider.core.refusal import Refusal, Refused
from outrider.network import config as configs
from outrider.network import keys
from outrider.network.config import NetworkConfig
from outrider.network.files import sync_dir, write_atomic

FOLDERS = ("partners", "vendors", "supply", "services", "lmsf", "log", "run")
"""What a network's folder holds beside its config and keys."""


def create(directory: Path, config: NetworkConfig) -> keys.Keys:
    """Make a network in a folder that does not exist yet, or is empty; raises `Refused` otherwise."""
    configs.check(config, directory / configs.FILE_NAME)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Refused(
            Refusal(
                "NETWORK_EXISTS",
                f"{directory} exists already, and a network's keys are never overwritten.",
                {"folder": str(directory)},
                "Take another folder.",
                status=409,
            )
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Built beside its place and moved there in one step, so that a crash leaves no half network.
    building = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        keys.create(building / "keys", config.network_id, config.border.host)
        write_atomic(building / configs.FILE_NAME, configs.render(config).encode())
        for folder in FOLDERS:
            (building / folder).mkdir(mode=0o700)
        write_atomic(building / ".gitignore", b"# keys and state of a network are never committed\n*\n")
        os.replace(building, directory)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    sync_dir(directory.parent)
    return keys.Keys(directory / "keys")
