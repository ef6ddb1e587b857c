"""Building: the same bytes every time, everything inside, nothing that must not be there."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from outrider.core.refusal import Refusal
from outrider.package import layout, repack
from outrider.package.build import Built, build


def code_of(result: Built | Refusal) -> str:
    return result.code if isinstance(result, Refusal) else "built"


def test_the_same_inputs_give_the_same_bytes(sample, service, tmp_path, vendor_key):
    again = build(service(), tmp_path / "again", vendor_key)
    assert isinstance(again, Built)
    assert Path(again.file).read_bytes() == sample.path.read_bytes()


def test_times_modes_caches_and_order_of_files_do_not_matter(sample, service, tmp_path, vendor_key):
    folder = service()
    for cache in (
        "rollcall/__pycache__/app.cpython-311.pyc",
        ".git/HEAD",
        "tests/test_app.py",
        "old.lms",
        ".venv/x.py",
    ):
        (folder / cache).parent.mkdir(parents=True, exist_ok=True)
        (folder / cache).write_text("import no_such_module\n")
    (folder / "rollcall/names.py").chmod(0o755)
    os.utime(folder / "rollcall/app.py", (1, 1))
    again = build(folder, tmp_path / "again", vendor_key)
    assert isinstance(again, Built)
    assert Path(again.file).read_bytes() == sample.path.read_bytes()


@pytest.mark.slow
def test_another_process_with_another_hash_seed_builds_the_same_bytes(sample, service, tmp_path, vendor_key):
    key = tmp_path / "vendor.key"
    from outrider.package import signing

    signing.write_private(key, vendor_key)
    script = (
        "import sys\nfrom pathlib import Path\nfrom outrider.package import signing\n"
        "from outrider.package.build import build\n"
        "print(build(Path(sys.argv[1]), Path(sys.argv[2]), signing.load_private(Path(sys.argv[3]))).file)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, service(), tmp_path / "other", key],
        env=os.environ
        | {"PYTHONHASHSEED": "4711", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "TZ": "Asia/Tokyo"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).read_bytes() == sample.path.read_bytes()


def test_the_package_has_code_every_wheel_and_their_licences(sample):
    names = sample.members().keys()
    assert {"code/LICENSE", "code/rollcall/app.py", "code/rollcall/names.py"} <= names
    brought = {n.removeprefix("wheels/").partition("-")[0] for n in names if n.startswith("wheels/")}
    assert brought == {"starlette", "msgspec", "anyio", "idna", "typing_extensions", "outrider_sdk"}
    for library in sample.built.libraries:
        assert any(n.startswith(f"licences/{library.name}-{library.version}/") for n in names), library
    assert "licences/roll-call/LICENSE" in names
    assert sample.built.without_licence_text == []


def test_the_manifest_is_canonical_and_filled_in(sample):
    raw = sample.members()[layout.MANIFEST]
    value = json.loads(raw)
    assert raw == json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert value["architectures"] == [os.uname().machine]
    assert value["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert value["nfServices"][0]["nfType"] == "SMF"


def test_any_unzip_reads_the_archive(sample):
    with zipfile.ZipFile(sample.path) as source:
        assert source.testzip() is None
        assert source.namelist() == sorted(source.namelist())
        assert {(i.date_time, i.external_attr >> 16) for i in source.infolist()} == {((1980, 1, 1, 0, 0, 0), 0o100644)}


def test_repacked_wheels_are_wheels_whose_record_holds(sample, tmp_path):
    from outrider.package.wheels import check_record, read_wheel

    for name, data in sample.members().items():
        if name.startswith("wheels/"):
            import io

            check_record(name.rpartition("/")[2], io.BytesIO(data))
            wheel = read_wheel(name.rpartition("/")[2], io.BytesIO(data))
            assert not any(".pyc" in m or "__pycache__" in m or m.endswith("INSTALLER") for m in wheel.members)


def test_the_sdk_wheel_has_the_sdk_and_nothing_else_of_outrider():
    import io

    _, data = repack.sdk()
    with zipfile.ZipFile(io.BytesIO(data)) as wheel:
        code = [n for n in wheel.namelist() if ".dist-info/" not in n]
    assert "outrider/sdk/wire.py" in code
    assert all(n == "outrider/__init__.py" or (n.startswith("outrider/sdk/") and n.endswith(".py")) for n in code)


@pytest.mark.parametrize(
    ("files", "module"),
    [
        ({"rollcall__more": "import granian\n"}, "granian"),
        ({"rollcall__more": "def f():\n    from yaml import safe_load\n"}, "yaml"),
        ({"rollcall__more": "import importlib\nimportlib.import_module('rich.table')\n"}, "rich.table"),
        ({"rollcall__more": "from rollcall.gone import x\n"}, "rollcall.gone"),
        ({"rollcall__more": "from outrider.core import ids\n"}, "outrider.core"),
        ({"rollcall__more": "try:\n    x = 1\nexcept ValueError:\n    import attrs\n"}, "attrs"),
        ({"rollcall__more": "try:\n    x = 1\nexcept ImportError:\n    import attr\n"}, "attr"),
    ],
)
def test_a_module_that_is_not_packaged_is_named(service, tmp_path, vendor_key, files, module):
    result = build(service(**files), tmp_path, vendor_key)
    assert isinstance(result, Refusal)
    assert (result.code, result.facts["module"], result.facts["file"]) == ("MODULE_MISSING", module, "rollcall/more.py")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"rollcall__broken": "def f(:\n"}, "CODE_INVALID"),
        ({"rollcall__deep": "(" * 500 + ")" * 500}, "CODE_INVALID"),
        ({"json": "x = 1\n"}, "MODULE_SHADOWED"),
        ({"msgspec": "x = 1\n"}, "MODULE_SHADOWED"),
        ({"rollcall__key": 'K = """-----BEGIN PRIVATE KEY-----\nMC4C"""\n'}, "SECRET_IN_CODE"),
        ({"naïve": "x = 1\n"}, "PATH_NOT_ALLOWED"),
        ({"back\\slash": "x = 1\n"}, "PATH_NOT_ALLOWED"),
    ],
)
def test_code_that_cannot_be_packaged_is_refused(service, tmp_path, vendor_key, change, cause):
    assert code_of(build(service(**change), tmp_path / "out", vendor_key)) == cause
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "cause", "says"),
    [
        ('"msgspec"]', '"msgspec", "not-installed-anywhere"]', "WHEEL_MISSING", "not-installed-anywhere"),
        ('"msgspec"]', '"msgspec<0.1"]', "WHEEL_VERSION", "<0.1"),
        ('"msgspec"]', '"msg spec ???"]', "MANIFEST_INVALID", "msg spec"),
        ("rollcall.app:app", "rollcall.nothing:app", "APP_MISSING", "rollcall.nothing"),
        ('nf_type = "SMF"', 'nf_typ = "SMF"', "MANIFEST_INVALID", "nf_typ"),
        ('at = "path:supi"', 'at = "path:gpsi"', "MANIFEST_INVALID", "gpsi"),
        ('service = "roll-call"', 'service = "../evil"', "MANIFEST_INVALID", "service"),
        ('version = "1.2.0"', 'version = "1/2"', "MANIFEST_INVALID", "version"),
        ("/nsmf-rollcall/v1/ues", "/other/v1/ues", "MANIFEST_INVALID", "/nsmf-rollcall/v1/"),
        ("nsmf-rollcall =", "nsmf-other =", "MANIFEST_INVALID", "nsmf-other"),
        ("requirements", "architectures = ['riscv64']\nrequirements", "WHEEL_MISSING", "msgspec"),
        ("[state_schema", "[[[", "MANIFEST_INVALID", "TOML"),
    ],
)
def test_a_wrong_manifest_is_refused_and_says_where(service, tmp_path, vendor_key, old, new, cause, says):
    folder = service()
    text = (folder / "outrider.toml").read_text()
    assert old in text
    (folder / "outrider.toml").write_text(text.replace(old, new))
    result = build(folder, tmp_path, vendor_key)
    assert isinstance(result, Refusal)
    assert result.code == cause
    assert says in result.sentence


def test_a_folder_without_manifest_and_one_with_a_link_are_refused(service, tmp_path, vendor_key):
    assert code_of(build(tmp_path, tmp_path / "out", vendor_key)) == "MANIFEST_MISSING"
    folder = service()
    (folder / "rollcall/passwords").symlink_to("/etc/passwd")
    assert code_of(build(folder, tmp_path / "out", vendor_key)) == "PATH_NOT_ALLOWED"


def test_a_distribution_that_was_changed_after_it_was_installed_is_refused(service, tmp_path, vendor_key, monkeypatch):
    site = tmp_path / "site"
    import starlette

    real = Path(starlette.__file__).parents[1]
    for name in ("starlette", *(p.name for p in real.glob("starlette-*.dist-info"))):
        shutil.copytree(real / name, site / name)
    with (site / "starlette/routing.py").open("a") as file:
        file.write("# mine\n")
    monkeypatch.syspath_prepend(str(site))
    result = build(service(), tmp_path, vendor_key)
    assert isinstance(result, Refusal)
    assert result.code == "DISTRIBUTION_UNUSABLE"
    assert "starlette/routing.py" in result.sentence


def test_the_time_in_the_sbom_is_the_one_that_is_given(service, tmp_path, vendor_key):
    built = build(service(), tmp_path / "out", vendor_key, timestamp_s=1_700_000_000)
    assert isinstance(built, Built)
    with zipfile.ZipFile(built.file) as source:
        assert json.loads(source.read(layout.SBOM))["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


class TestWheelFolder:
    """`--wheels`: given wheels, of several architectures."""

    @pytest.fixture
    def folder(self, sample, tmp_path: Path) -> Path:
        wheels = tmp_path / "wheels"
        wheels.mkdir()
        for name, data in sample.members().items():
            if name.startswith("wheels/") and "outrider_sdk" not in name:
                (wheels / name.removeprefix("wheels/")).write_bytes(data)
        return wheels

    @staticmethod
    def wheel(folder: Path, prefix: str) -> Path:
        return next(folder.glob(f"{prefix}*.whl"))

    def test_the_same_wheels_give_the_same_package(self, sample, service, tmp_path, vendor_key, folder):
        built = build(service(), tmp_path / "out", vendor_key, wheel_dir=folder)
        assert isinstance(built, Built)
        assert built.package_digest == sample.built.package_digest

    def test_wheels_of_two_architectures_make_a_package_for_both(self, service, tmp_path, vendor_key, folder):
        here = self.wheel(folder, "msgspec")
        other = here.with_name(f"{'-'.join(here.name.split('-')[:4])}-manylinux_2_17_riscv64.whl")
        shutil.copy(here, other)
        built = build(service(), tmp_path / "out", vendor_key, wheel_dir=folder)
        assert isinstance(built, Built)
        assert built.architectures == sorted(["riscv64", os.uname().machine])
        assert sum(w.name == "msgspec" for w in built.libraries) == 2

    def test_a_wheel_that_is_not_in_the_folder_is_not_taken_from_elsewhere(self, service, tmp_path, vendor_key, folder):
        self.wheel(folder, "idna").unlink()
        result = build(service(), tmp_path, vendor_key, wheel_dir=folder)
        assert isinstance(result, Refusal)
        assert (result.code, result.facts["distribution"]) == ("WHEEL_MISSING", "idna")
        assert "anyio" in result.sentence

    def test_two_versions_of_one_distribution_are_refused(
        self, service, tmp_path, vendor_key, folder, renamed: Callable
    ):
        renamed(self.wheel(folder, "idna"), "idna-3.0-py3-none-any.whl")
        assert code_of(build(service(), tmp_path, vendor_key, wheel_dir=folder)) == "WHEEL_AMBIGUOUS"

    def test_a_wheel_whose_record_lies_is_refused(self, service, tmp_path, vendor_key, folder):
        path = self.wheel(folder, "idna")
        with zipfile.ZipFile(path) as source:
            members = {n: source.read(n) for n in source.namelist()}
        members["idna/core.py"] += b"# mine\n"
        with zipfile.ZipFile(path, "w") as target:
            for name, data in members.items():
                target.writestr(name, data)
        result = build(service(), tmp_path, vendor_key, wheel_dir=folder)
        assert isinstance(result, Refusal)
        assert result.code == "WHEEL_INVALID"
        assert "idna/core.py" in result.sentence

    @pytest.fixture
    def renamed(self) -> Callable[[Path, str], None]:
        from outrider.package.repack import _wheel

        def write(path: Path, name: str) -> None:
            version = name.split("-")[1]
            with zipfile.ZipFile(path) as source:
                members = {n: source.read(n) for n in source.namelist() if not n.endswith("RECORD")}
            info = next(n.partition("/")[0] for n in members if ".dist-info/" in n)
            new = f"{info.split('-')[0]}-{version}.dist-info"
            old = info.removesuffix(".dist-info").split("-")[1]
            members = {
                n.replace(info, new): d.replace(f"Version: {old}\n".encode(), f"Version: {version}\n".encode())
                if n.endswith("METADATA")
                else d
                for n, d in members.items()
            }
            path.with_name(name).write_bytes(_wheel(new, members))

        return write


def test_a_second_vendor_makes_the_same_package_with_another_signature(sample, service, tmp_path):
    built = build(service(), tmp_path / "out", Ed25519PrivateKey.generate())
    assert isinstance(built, Built)
    assert built.package_digest == sample.built.package_digest
    assert Path(built.file).read_bytes() != sample.path.read_bytes()
