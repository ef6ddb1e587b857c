import datetime as dt
import json
import os
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.verification import PolicyBuilder, Store

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refused
from outrider.network import config as configs
from outrider.network import keys
from outrider.network.config import BorderSection, NetworkConfig, NetworkSection
from outrider.network.create import create
from outrider.network.keys import Keys

A = NetworkId.parse("999-70")
SNPN = "999-71-000007ed9d5"
GOOD = '[network]\nid = "999-70"\nkind = "plmn"\n'


def config(network: str = "999-70", kind: str = "plmn", **border: object) -> NetworkConfig:
    return NetworkConfig(NetworkSection(network, kind, "Home"), border=BorderSection(**border))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("net") / "a"
    create(root, config())
    return root


def test_written_config_reads_back_as_it_was(tmp_path: Path) -> None:
    wanted = NetworkConfig(
        NetworkSection(SNPN, "snpn", 'A "port" \\ x', ("AMF",)),
        sbi=configs.SbiSection(port=7, nrf_root="http://192.0.2.1:7770"),
        border=BorderSection("192.0.2.1", "0.0.0.0", 9000),
        limits=configs.LimitsSection(3, 4),
        basic=configs.BasicSection(False),
    )
    file = tmp_path / "network.toml"
    file.write_text(configs.render(wanted))
    assert configs.load(file) == wanted


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        (GOOD + '[sbi]\nport = "x"\n', "sbi.port", "write port = 7770"),
        (GOOD + "[sbi]\nport = 70000\n", "sbi.port", "write port = 7770"),
        (GOOD + "[border]\nprot = 1\n", "border.prot", "known keys here: host, listen, port"),
        (GOOD + "[bordr]\n", "bordr", "known keys here: basic, border, limits, network, policy, sbi"),
        (GOOD + "[border]\nport = 0\n", "border.port", "partners get pairs"),
        (GOOD + '[border]\nhost = "not a host"\n', "border.host", "neither an ip address nor a dns name"),
        (GOOD + '[border]\nlisten = "eth0"\n', "border.listen", "no ip address"),
        ("[sbi]\nport = 1\n", "network", "is missing"),
        ('[network]\nkind = "plmn"\n', "network.id", "is missing"),
        ('[network]\nid = "99"\nkind = "plmn"\n', "network.id", "write id ="),
        ('[network]\nid = "999-70"\nkind = "wlan"\n', "network.kind", "snpn, pni-npn"),
        ('[network]\nid = "999-70"\nkind = "snpn"\n', "network.id", "plmn id and nid"),
        (f'[network]\nid = "{SNPN}"\nkind = "plmn"\n', "network.id", "has no nid"),
        ('[network]\nid = "999-70"\nkind = "plmn"\nnf_types = ["amf"]\n', "network.nf_types", "in capitals"),
        ('[network]\nid = "999-70"\nkind = "plmn"\nnf_types = []\n', "network.nf_types", "must list"),
        ('[network]\nid = "999-70"\nkind = "plmn"\nnf_types = [1]\n', "network.nf_types", "expected `str`"),
        (GOOD + "[basic]\nenabled = 1\n", "basic.enabled", "expected `bool`"),
        (GOOD + "[limits]\nin_flight = 0\n", "limits.in_flight", "write in_flight"),
    ],
)
def test_config_error_names_file_and_key_and_what_to_write(tmp_path: Path, text: str, key: str, says: str) -> None:
    file = tmp_path / "network.toml"
    file.write_text(text)
    with pytest.raises(Refused) as caught:
        configs.load(file)
    refusal = caught.value.refusal
    assert refusal.code == "CONFIG_INVALID"
    assert refusal.facts == {"file": str(file), "key": key}
    assert f"{file}: {key}: " in refusal.sentence
    assert says in str(refusal).lower()


def test_config_that_is_no_toml_or_missing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "network.toml"
    with pytest.raises(Refused, match=r"outrider network init"):
        configs.load(file)
    file.write_text("[network")
    with pytest.raises(Refused, match=r"not TOML"):
        configs.load(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(Refused, match=r"not UTF-8"):
        configs.load(file)


def test_folder_or_file_both_lead_to_the_network(tmp_path: Path) -> None:
    assert configs.locate(tmp_path) == (tmp_path, tmp_path / "network.toml")
    assert configs.locate(tmp_path / "a.toml") == (tmp_path, tmp_path / "a.toml")


def test_private_keys_are_readable_by_their_owner_only_and_in_pkcs8(made: Path) -> None:
    for file in (made / "keys").glob("*.key"):
        assert file.stat().st_mode & 0o777 == 0o600, file
        assert file.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----"), file
    assert (made / "keys").stat().st_mode & 0o777 == 0o700
    assert {f.name for f in (made / "keys").iterdir()} == {
        "operator.key",
        "nrf.key",
        "internal.key",
        "ca.key",
        "ca.pem",
        "border.key",
        "border.pem",
        "instances.json",
    }


def test_keys_have_their_kinds_and_are_all_different(made: Path) -> None:
    found = Keys(made / "keys")
    loaded = {f.name: keys.load_private(f) for f in (made / "keys").glob("*.key")}
    assert isinstance(loaded["operator.key"], ed25519.Ed25519PrivateKey)
    for name in ("nrf.key", "internal.key", "ca.key", "border.key"):
        key = loaded[name]
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert isinstance(key.curve, ec.SECP256R1)
    assert len({keys.public_pem(k) for k in loaded.values()}) == 5
    assert len(set(msgspec.structs.astuple(found.instances()))) == 5


def test_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    found = keys.create(tmp_path / "keys", A, "127.0.0.1")
    os.chmod(found.operator_key, 0o640)
    with pytest.raises(Refused, match=r"KEY_EXPOSED.*0640.*chmod 600"):
        keys.load_private(found.operator_key)


def test_keys_are_never_overwritten(made: Path) -> None:
    before = {f: f.read_bytes() for f in (made / "keys").iterdir()}
    with pytest.raises(Refused, match="NETWORK_EXISTS"):
        create(made, config())
    with pytest.raises(Refused, match="KEYS_EXIST"):
        keys.create(made / "keys", A, "127.0.0.1")
    assert {f: f.read_bytes() for f in (made / "keys").iterdir()} == before


def test_network_is_made_in_an_empty_folder_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    empty = tmp_path / "a"
    empty.mkdir()
    create(empty, config())
    assert configs.load(empty / "network.toml").network_id == A
    with pytest.raises(Refused):
        create(tmp_path / "b", config("999-70", "snpn"))
    assert [f.name for f in tmp_path.iterdir()] == ["a"]
    assert (empty / ".gitignore").read_text().endswith("\n*\n")


@pytest.mark.parametrize("use", ["server", "client"])
def test_border_certificate_is_valid_under_its_ca_for_both_uses(made: Path, use: str) -> None:
    found = Keys(made / "keys")
    ca = x509.load_pem_x509_certificate(found.ca_cert.read_bytes())
    border = x509.load_pem_x509_certificate(found.border_cert.read_bytes())
    builder = PolicyBuilder().store(Store([ca]))
    if use == "server":
        builder.build_server_verifier(x509.DNSName(f"sepp.{A.domain}")).verify(border, [])
    else:
        verified = builder.build_client_verifier().verify(border, [])
        names = {n.value for n in verified.subjects or ()}
        assert f"urn:uuid:{found.instances().sepp}" in names
        assert f"sepp.{A.domain}" in names


def test_border_certificate_is_renewed_only_near_its_end_or_for_another_host(tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    found = keys.create(tmp_path / "keys", A, "127.0.0.1", now)
    first = found.border_cert.read_bytes()
    assert not keys.renew_border(found, A, "127.0.0.1", now + dt.timedelta(days=100))
    assert keys.renew_border(found, A, "127.0.0.1", now + dt.timedelta(days=350))
    second = found.border_cert.read_bytes()
    assert second != first
    assert keys.renew_border(found, A, "border.example", now + dt.timedelta(days=350))
    names = x509.load_pem_x509_certificate(found.border_cert.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert "border.example" in names.value.get_values_for_type(x509.DNSName)


def test_nothing_secret_is_in_the_files_that_may_be_shown(made: Path) -> None:
    for file in ("network.toml", "keys/instances.json", "keys/ca.pem", "keys/border.pem"):
        assert b"PRIVATE" not in (made / file).read_bytes()
    assert json.loads((made / "keys" / "instances.json").read_bytes()).keys() == {"nrf", "lmsf", "sepp", "amf", "smf"}
