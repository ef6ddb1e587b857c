"""Installing: complete or not at all, only what was verified, and nothing of the node in reach."""

import errno
import io
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from outrider.core.refusal import Refusal
from outrider.package import layout
from outrider.package.build import Built, build
from outrider.package.install import SITE, archive_in, check_installed, install
from outrider.package.verify import Verified, verify


@pytest.fixture
def verified(sample) -> Verified:
    result = verify(sample.path, [sample.vendor])
    assert isinstance(result, Verified)
    return result


@pytest.fixture
def installed(verified, tmp_path: Path) -> Path:
    result = install(verified, tmp_path / "packages")
    assert isinstance(result, Path)
    return result


def run(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    """As a worker runs: no environment, no user site, no site-packages; `site` alone is on the path."""
    start = f"import sys; sys.path.insert(0, {str(site)!r}); "
    return subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", start + code], capture_output=True, text=True, env={}
    )


def test_an_installed_package_has_the_archive_and_its_content(sample, installed):
    assert archive_in(installed).read_bytes() == sample.path.read_bytes()
    assert (installed / SITE / "rollcall/names.py").read_text() == 'NAME = "Ada"\n'
    for file in ("starlette/routing.py", "msgspec/__init__.py", "outrider/sdk/wire.py", "typing_extensions.py"):
        assert (installed / SITE / file).is_file(), file


def test_installed_files_are_those_of_the_wheels(sample, installed):
    for name, data in sample.members().items():
        if name.startswith("wheels/"):
            with zipfile.ZipFile(io.BytesIO(data)) as wheel:
                for member in wheel.namelist():
                    assert (installed / SITE / member).read_bytes() == wheel.read(member)


def test_the_app_runs_with_nothing_but_the_package(installed):
    done = run(installed / SITE, "import rollcall.app as a, outrider.sdk.wire, msgspec; print(type(a.app).__name__)")
    assert (done.returncode, done.stdout) == (0, "Starlette\n"), done.stderr


@pytest.mark.parametrize("module", ["granian", "pytest", "outrider.core", "outrider.package"])
def test_what_the_node_has_is_not_in_reach(installed, module):
    __import__(module)
    done = run(installed / SITE, f"import {module}")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_a_wheel_that_is_missing_is_missed_although_the_node_has_it(sample, installed):
    """Why building refuses it: at the worker it could only fail."""
    shutil.rmtree(installed / SITE / "starlette")
    done = run(installed / SITE, "import rollcall.app")
    assert "No module named 'starlette'" in done.stderr


def test_installing_twice_is_installing_once(sample, service, tmp_path, installed, verified, vendor_key):
    assert installed.name == sample.built.package_digest
    assert install(verified, installed.parent) == installed
    newer = build(service(rollcall__names='NAME = "Bob"\n'), tmp_path / "newer", vendor_key)
    assert isinstance(newer, Built)
    result = verify(Path(newer.file), [sample.vendor])
    assert isinstance(result, Verified)
    other = install(result, installed.parent)
    assert isinstance(other, Path)
    assert (other / SITE / "rollcall/names.py").read_text() == 'NAME = "Bob"\n'
    assert {p.name for p in installed.parent.iterdir()} == {installed.name, other.name}


def test_two_that_install_at_once_both_have_it(verified, tmp_path):
    folder = tmp_path / "packages"
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: install(verified, folder), range(8)))
    assert set(results) == {folder / verified.package_digest}
    assert [p.name for p in folder.iterdir()] == [verified.package_digest]


@pytest.mark.parametrize("member", ["code/rollcall/app.py", "wheels/idna", layout.MANIFEST])
def test_an_archive_that_changes_after_verifying_is_noticed(sample, resign, tmp_path, member):
    """Even if the vendor signed what it changed to: what was permitted is what was verified."""
    path = tmp_path / "here.lms"
    path.write_bytes(sample.path.read_bytes())
    result = verify(path, [sample.vendor])
    assert isinstance(result, Verified)
    members = sample.members()
    name = next(n for n in members if n.startswith(member))
    members[name] += b" "
    path.write_bytes(resign(members, sample.key).read_bytes())
    refused = install(result, tmp_path / "packages")
    assert isinstance(refused, Refusal)
    assert refused.code == "DIGEST_MISMATCH"
    assert list((tmp_path / "packages").iterdir()) == []


def test_an_archive_with_a_file_more_than_was_verified_is_noticed(sample, pack, tmp_path):
    path = tmp_path / "here.lms"
    path.write_bytes(sample.path.read_bytes())
    result = verify(path, [sample.vendor])
    assert isinstance(result, Verified)
    path.write_bytes(pack(sample.members() | {"code/more.py": b""}).read_bytes())
    refused = install(result, tmp_path / "packages")
    assert isinstance(refused, Refusal)
    assert refused.code == "DIGEST_MISMATCH"


def test_a_failed_installation_leaves_nothing(tmp_path, verified, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("outrider.package.install._sync", full)
    with pytest.raises(OSError, match="No space"):
        install(verified, tmp_path / "packages")
    assert list((tmp_path / "packages").iterdir()) == []


def test_a_package_verified_for_no_machine_is_not_installed(sample, tmp_path):
    result = verify(sample.path, [sample.vendor], to_run=False)
    assert isinstance(result, Verified)
    with pytest.raises(ValueError, match="machine"):
        install(result, tmp_path / "x")


class TestBeforeItRuns:
    """An installed package is verified again before each start."""

    def test_an_untouched_one_is_verified(self, sample, installed):
        assert isinstance(check_installed(installed, [sample.vendor]), Verified)

    def test_a_vendor_that_lost_trust_stops_it(self, installed):
        result = check_installed(installed, [])
        assert isinstance(result, Refusal)
        assert result.code == "VENDOR_UNKNOWN"

    def altered(self, sample, installed) -> tuple[str, str]:
        result = check_installed(installed, [sample.vendor])
        assert isinstance(result, Refusal)
        return result.code, result.facts["path"]

    def test_a_changed_file(self, sample, installed):
        file = installed / SITE / "rollcall/names.py"
        file.chmod(0o644)
        file.write_text('NAME = "Eve"\n')
        assert self.altered(sample, installed) == ("INSTALLATION_ALTERED", "site/rollcall/names.py")

    def test_a_changed_manifest(self, sample, installed):
        file = installed / "manifest.json"
        file.chmod(0o644)
        file.write_bytes(b"{}")
        assert self.altered(sample, installed) == ("INSTALLATION_ALTERED", "manifest.json")

    def test_a_removed_file(self, sample, installed):
        (installed / SITE / "starlette/routing.py").unlink()
        assert self.altered(sample, installed) == ("INSTALLATION_ALTERED", "site/starlette/routing.py")

    @pytest.mark.parametrize("name", ["sitecustomize.py", "rollcall/__pycache__/app.cpython-311.pyc"])
    def test_an_added_file(self, sample, installed, name):
        (installed / SITE / name).parent.mkdir(exist_ok=True)
        (installed / SITE / name).write_bytes(b"")
        assert self.altered(sample, installed) == ("INSTALLATION_ALTERED", f"site/{name}")

    def test_a_link_in_the_place_of_a_file(self, sample, installed, tmp_path):
        file = installed / SITE / "rollcall/names.py"
        (tmp_path / "same.py").write_bytes(file.read_bytes())
        file.unlink()
        file.symlink_to(tmp_path / "same.py")
        assert self.altered(sample, installed) == ("INSTALLATION_ALTERED", "site/rollcall/names.py")

    def test_a_link_to_a_folder(self, sample, installed, tmp_path):
        (installed / SITE / "more").symlink_to(tmp_path)
        assert self.altered(sample, installed) == ("INSTALLATION_ALTERED", "site/more")

    def test_a_changed_archive(self, sample, installed, pack):
        changed = pack(sample.members() | {"code/rollcall/names.py": b""})
        archive_in(installed).write_bytes(changed.read_bytes())
        assert self.altered(sample, installed) == ("DIGEST_MISMATCH", "code/rollcall/names.py")
