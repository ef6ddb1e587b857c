"""Hostile archives: refused by structure and bounds before anything in them is used."""

import contextlib
import io
import json
import os
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outrider.core import limits
from outrider.core.canonical import NotCanonical, canonical, decode_canonical
from outrider.core.manifest import Manifest, from_toml, problems
from outrider.core.refusal import Refusal, Refused
from outrider.package import archive, layout
from outrider.package.archive import Archive
from outrider.package.inspect import Description, inspect
from outrider.package.verify import Verified, verify
from outrider.package.wheels import read_wheel


def entry(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def zipped(path: Path, *members: tuple[zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        for info, data in members:
            target.writestr(info, data)
    return path


def refusal(path: Path) -> Refusal:
    result = verify(path, [])
    assert isinstance(result, Refusal)
    looked = inspect(path)
    assert isinstance(looked, Refusal)
    assert looked.code == result.code
    return result


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "code/../../x",
        "..",
        "code/./x",
        "code//x",
        "code/",
        "code\\x",
        "C:\\x",
        "code/a\nb",
        "code/a\x7f",
        "code/é",
        "x" * (limits.PACKAGE_PATH_BYTES + 1),
    ],
)
def test_a_path_that_would_do_harm_is_not_allowed(tmp_path, name):
    info = entry("placeholder")
    info.filename = name
    assert refusal(zipped(tmp_path / "x.lms", (info, b""))).code == "PATH_NOT_ALLOWED"


def test_a_name_with_a_zero_byte_is_not_allowed(tmp_path):
    path = zipped(tmp_path / "x.lms", (entry("code/a_b"), b""))
    path.write_bytes(path.read_bytes().replace(b"code/a_b", b"code/a\x00b"))
    assert refusal(path).code == "PATH_NOT_ALLOWED"


@pytest.mark.parametrize("mode", [0o120777, 0o120644])
def test_a_link_is_not_allowed(tmp_path, mode):
    assert refusal(zipped(tmp_path / "x.lms", (entry("code/x", mode), b"/etc"))).code == "PATH_NOT_ALLOWED"


@pytest.mark.parametrize("mode", [0o040755, 0o060600, 0o104755, 0o100755, 0])
def test_whatever_is_no_plain_file_is_malformed(tmp_path, mode):
    assert refusal(zipped(tmp_path / "x.lms", (entry("code/x", mode), b"x"))).code == "PACKAGE_MALFORMED"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_not_allowed(tmp_path):
    path = zipped(tmp_path / "x.lms", (entry("code/x"), b"good"), (entry("code/x"), b"bad"))
    assert refusal(path).code == "PATH_NOT_ALLOWED"


def test_a_file_that_is_also_a_folder_is_not_allowed(tmp_path):
    path = zipped(tmp_path / "x.lms", (entry("code/x"), b""), (entry("code/x/y"), b""))
    assert refusal(path).code == "PATH_NOT_ALLOWED"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"PK",
        lambda data: b"#!/bin/sh\n" + data,
        lambda data: data + b"x",
        lambda data: data[:-1],
        lambda data: data[:-2] + struct.pack("<H", 3) + b"abc",
        lambda data: data[: len(data) // 2],
        lambda data: os.urandom(1000),
    ],
    ids=["empty", "short", "something before", "something behind", "cut", "comment", "half", "noise"],
)
def test_what_is_not_exactly_an_archive_is_malformed(sample, tmp_path, spoil):
    path = tmp_path / "x.lms"
    path.write_bytes(spoil(sample.path.read_bytes()))
    assert refusal(path).code == "PACKAGE_MALFORMED"


def test_entries_out_of_order_are_malformed(tmp_path):
    assert (
        refusal(zipped(tmp_path / "x.lms", (entry("code/b"), b""), (entry("code/a"), b""))).code == "PACKAGE_MALFORMED"
    )


def test_an_archive_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "x.lms"
    with path.open("wb") as file:
        file.truncate(limits.PACKAGE_BYTES + 1)
    assert refusal(path).code == "PACKAGE_TOO_LARGE"


def test_too_many_files_are_refused(tmp_path):
    many = [(entry(f"code/{i:05}"), b"") for i in range(limits.PACKAGE_ENTRIES + 1)]
    assert refusal(zipped(tmp_path / "x.lms", *many)).code == "PACKAGE_TOO_LARGE"


def packed(name: bytes, raw: bytes, size: int, crc: int) -> bytes:
    """A single deflated entry, as `write_zip` writes it, that announces what it likes."""
    fields = (0, 8, 0, 33, crc, len(raw), size, len(name))
    local = b"PK\x03\x04" + struct.pack("<5H3L2H", 20, *fields, 0) + name + raw
    central = b"PK\x01\x02" + struct.pack("<6H3L5H2L", 788, 20, *fields, 0, 0, 0, 0, 0o100644 << 16, 0) + name
    return local + central + b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 1, 1, len(central), len(local), 0)


def deflated(data: bytes) -> bytes:
    squeeze = zlib.compressobj(9, wbits=-15)
    return squeeze.compress(data) + squeeze.flush()


def test_a_bomb_that_says_so_is_not_opened(tmp_path):
    zeros = bytes(10_000_000)
    path = tmp_path / "x.lms"
    path.write_bytes(packed(b"digests.json", deflated(zeros), len(zeros), zlib.crc32(zeros)))
    assert refusal(path).code == "PACKAGE_TOO_LARGE"


def test_announced_sizes_count_together(tmp_path):
    path = tmp_path / "x.lms"
    size = limits.PACKAGE_UNPACKED_BYTES + 1
    path.write_bytes(packed(b"digests.json", os.urandom(100), size, 0))
    assert refusal(path).code == "PACKAGE_TOO_LARGE"


def test_a_bomb_that_hides_its_size_is_never_decompressed_beyond_it(tmp_path):
    raw = deflated(bytes(200_000_000))
    path = tmp_path / "x.lms"
    path.write_bytes(packed(b"digests.json", raw, 1000, 0))
    tracemalloc.start()
    try:
        with Archive(path) as opened, pytest.raises(Refused) as refused:
            opened.read("digests.json", limits.PACKAGE_META_BYTES)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.value.refusal.code == "PACKAGE_MALFORMED"
    assert peak < 5_000_000


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        (deflated(b"hello"), 6),
        (deflated(b"hello"), 4),
        (deflated(b"hello") + b"tail", 5),
        (deflated(b"hello")[:-1], 5),
        (b"\xff\xff\xff\xff\xff", 5),
        (b"", 0),
    ],
)
def test_content_that_is_not_what_is_announced_is_malformed(tmp_path, raw, size):
    path = tmp_path / "x.lms"
    path.write_bytes(packed(b"digests.json", raw, size, zlib.crc32(b"hello")))
    with Archive(path) as opened, pytest.raises(Refused) as refused:
        opened.read("digests.json", 100)
    assert refused.value.refusal.code == "PACKAGE_MALFORMED"


def test_parts_that_are_parsed_in_memory_are_bounded(sample, resign, monkeypatch):
    monkeypatch.setattr(limits, "PACKAGE_META_BYTES", 500)
    result = verify(resign(sample.members(), sample.key), [sample.vendor])
    assert isinstance(result, Refusal)
    assert result.code == "PACKAGE_TOO_LARGE"


def test_what_a_package_unpacks_to_is_bounded(sample, monkeypatch):
    monkeypatch.setattr(limits, "PACKAGE_UNPACKED_BYTES", 2_500_000)
    assert isinstance(verify(sample.path, [sample.vendor]), Verified)
    monkeypatch.setattr(limits, "PACKAGE_SITE_FILES", 20)
    result = verify(sample.path, [sample.vendor])
    assert isinstance(result, Refusal)
    assert result.code == "PACKAGE_TOO_LARGE"


def test_every_changed_byte_is_noticed_or_changes_nothing(tmp_path):
    """Headers are compared to the byte, contents by checksum: there is no slack to hide anything in."""
    members = {"a/one": b"hello" * 40, "b": b"", "c": os.urandom(30)}
    buffer = io.BytesIO()
    archive.write_zip(buffer, sorted(members.items()), compress=True)
    good = buffer.getvalue()
    path = tmp_path / "x.lms"
    unnoticed = []
    for at in range(len(good)):
        for flip in (0x01, 0x20, 0x80, 0xFF):
            spoilt = bytearray(good)
            spoilt[at] ^= flip
            path.write_bytes(spoilt)
            try:
                with Archive(path) as opened:
                    found = {n: opened.read(n, 10_000) for n in opened.entries}
            except Refused:
                continue
            assert found == members, at
            unnoticed.append(at)
    # Only the padding after the last bits of the one compressed stream is free.
    assert len(set(unnoticed)) <= 1


class TestWheels:
    """A wheel is somebody else's zip, read by the standard library behind bounds."""

    @staticmethod
    def read(*members: tuple[zipfile.ZipInfo, bytes], name: str = "a-1-py3-none-any.whl") -> str:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as target:
            for info, data in members:
                target.writestr(info, data)
        try:
            read_wheel(name, buffer)
        except Refused as refused:
            return refused.refusal.code
        return "read"

    METADATA = (entry("a-1.dist-info/METADATA"), b"Metadata-Version: 2.1\nName: a\nVersion: 1\n")

    def test_a_plain_one_is_read(self):
        assert self.read(self.METADATA) == "read"

    @pytest.mark.parametrize("name", ["../x", "/x", "a\\b", "a/./b"])
    def test_a_path_that_would_do_harm(self, name):
        assert self.read(self.METADATA, (entry(name), b"")) == "PATH_NOT_ALLOWED"

    def test_a_path_that_would_do_harm_once_unpacked(self):
        assert self.read(self.METADATA, (entry("a-1.data/purelib/../../x"), b"")) == "PATH_NOT_ALLOWED"

    def test_a_link(self):
        assert self.read(self.METADATA, (entry("a/b", 0o120777), b"/etc")) == "PATH_NOT_ALLOWED"

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_a_name_twice(self):
        assert self.read(self.METADATA, (entry("a/b"), b"1"), (entry("a/b"), b"2")) == "PATH_NOT_ALLOWED"

    def test_a_name_that_is_cut_at_a_zero_byte(self):
        info = entry("a/b")
        info.filename = "a/b\x00.py"
        assert self.read(self.METADATA, (info, b"")) == "PATH_NOT_ALLOWED"

    def test_a_purelib_file_over_another(self):
        members = (entry("a.py"), b"1"), (entry("a-1.data/purelib/a.py"), b"2")
        assert self.read(self.METADATA, *members) == "PATH_NOT_ALLOWED"

    def test_another_compression(self):
        info = entry("a/b")
        info.compress_type = zipfile.ZIP_BZIP2
        assert self.read(self.METADATA, (info, b"x" * 100)) == "WHEEL_INVALID"

    def test_announced_sizes_count_together(self, monkeypatch):
        monkeypatch.setattr(limits, "PACKAGE_UNPACKED_BYTES", 1000)
        assert self.read(self.METADATA, (entry("a/b"), bytes(1001))) == "PACKAGE_TOO_LARGE"

    @pytest.mark.parametrize("name", ["a.whl", "a-1-py3-none-any.zip", "b-1-py3-none-any.whl", "a-2-py3-none-any.whl"])
    def test_a_name_that_does_not_fit(self, name):
        assert self.read(self.METADATA, name=name) == "WHEEL_INVALID"

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"\xff\xfe",
            b"Name: a\nVersion: one\n",
            b"Name: a\nVersion: 1\nRequires-Dist: ???\n",
            b"Name: \xff\nVersion: 1\n",
        ],
    )
    def test_metadata_that_cannot_be_used(self, text):
        assert self.read((entry("a-1.dist-info/METADATA"), text)) == "WHEEL_INVALID"

    def test_two_dist_info_folders(self):
        assert self.read(self.METADATA, (entry("b-1.dist-info/METADATA"), b"")) == "WHEEL_INVALID"


QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@QUICK
@given(data=st.data())
def test_no_bytes_crash_the_reader(sample, tmp_path_factory, data):
    """Spoil a real package at a few places: it is verified unchanged, or refused with a cause; nothing else."""
    good = sample.path.read_bytes()
    spoilt = bytearray(good)
    # Most of an archive is compressed wheels; the ends have the structure.
    place = st.one_of(st.integers(0, 4000), st.integers(len(good) - 4000, len(good) - 1), st.integers(0, len(good) - 1))
    for at, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=4)):
        spoilt[at] = value
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(good))))
    path = tmp_path_factory.getbasetemp() / "spoilt.lms"
    path.write_bytes(bytes(spoilt[:cut]))
    result = verify(path, [sample.vendor])
    if isinstance(result, Refusal):
        assert result.code.isupper()
        assert result.sentence
    else:
        assert result.package_digest == sample.built.package_digest
    assert isinstance(inspect(path), (Refusal, Description))


@QUICK
@given(raw=st.binary(max_size=400))
def test_no_bytes_crash_the_reader_of_small_files(sample, tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "noise.lms"
    path.write_bytes(raw)
    assert isinstance(verify(path, [sample.vendor]), Refusal)


@pytest.mark.slow
@QUICK
@given(data=st.data())
def test_no_bytes_crash_the_reader_of_wheels(sample, data):
    name = next(n for n in sample.members() if n.startswith("wheels/idna"))
    good = sample.members()[name]
    spoilt = bytearray(good)
    place = st.one_of(st.integers(len(good) - 3000, len(good) - 1), st.integers(0, len(good) - 1))
    for at, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=6)):
        spoilt[at] = value
    with contextlib.suppress(Refused):
        read_wheel(name.removeprefix("wheels/"), io.BytesIO(bytes(spoilt)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@QUICK
@given(data=st.data())
def test_no_manifest_crashes_the_package(sample, resign, data):
    """A vendor's signature makes no manifest safe: any value in any place is refused, or means something."""
    members = sample.members()
    value = json.loads(members[layout.MANIFEST])
    field = data.draw(st.sampled_from(sorted(value)))
    spot = data.draw(st.sampled_from(["value", "inside", "bytes"]))
    new = data.draw(JSON)
    if spot == "inside" and isinstance(value[field], list) and value[field] and isinstance(value[field][0], dict):
        value[field][0][data.draw(st.sampled_from(sorted(value[field][0])))] = new
    else:
        value[field] = new
    raw = data.draw(st.binary(max_size=60)) if spot == "bytes" else canonical(value)
    members[layout.MANIFEST] = raw
    try:
        path = resign(members, sample.key)
    except (ValueError, TypeError):  # the test's own forgery cannot name such a package
        return
    assert isinstance(verify(path, [sample.vendor]), (Refusal, Verified))


@QUICK
@given(text=st.one_of(st.text(max_size=80), st.binary(max_size=80).map(lambda b: b.decode("latin-1"))))
def test_no_toml_crashes_the_builder(toml, text):
    for whole in (text, toml + text, toml.replace("roll-call", text)):
        try:
            manifest = from_toml(whole)
        except ValueError:
            continue
        assert problems(manifest) == []


@QUICK
@given(raw=st.binary(max_size=200))
def test_no_bytes_crash_the_canonical_reader(raw):
    with contextlib.suppress(NotCanonical):
        decode_canonical(raw, Manifest)
