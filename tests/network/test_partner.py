import base64
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal, Refused
from outrider.network import card as cards
from outrider.network import config as configs
from outrider.network.card import Card, fingerprint, same_fingerprint
from outrider.network.config import BorderSection, NetworkConfig, NetworkSection
from outrider.network.create import create
from outrider.network.keys import Keys, load_private, private_pem, public_pem
from outrider.network.partner import Partner, Partners

A, B, C = (NetworkId.parse(t) for t in ("999-70", "999-71-000007ed9d5", "999-72"))


def network(root: Path, id_: NetworkId, kind: str = "plmn", port: int = 7780) -> Partners:
    directory = root / str(id_)
    create(directory, NetworkConfig(NetworkSection(str(id_), kind, f"Net {id_}"), border=BorderSection(port=port)))  # type: ignore[arg-type]
    return Partners(directory / "partners", configs.load(directory / "network.toml"), Keys(directory / "keys"))


@pytest.fixture
def a(tmp_path: Path) -> Partners:
    return network(tmp_path, A)


@pytest.fixture
def b(tmp_path: Path) -> Partners:
    return network(tmp_path, B, "snpn", 8880)


def ok(value: Card | Partner | Refusal | None) -> Any:
    assert not isinstance(value, Refusal), value
    return value


def refused(value: object) -> str:
    assert isinstance(value, Refusal)
    return value.code


def test_one_file_each_way_and_the_link_is_ready_at_both_ends(a: Partners, b: Partners) -> None:
    for_b, for_a = cards.encode(ok(a.invite(B))), cards.encode(ok(b.invite(A)))
    assert [p.state for p in a.all()] == ["invited"]
    added = ok(b.add(ok(b.read_card(for_b))))
    assert (added.network, added.state, added.waiting_for) == (str(A), "ready", "")
    assert (added.address.control_port, added.address.bulk_port) == (7780, 7781)
    added = ok(a.add(ok(a.read_card(for_a))))
    assert (added.address.control_port, added.address.bulk_port) == (8880, 8881)
    assert added.card.kind == "snpn"


def test_partner_that_was_not_invited_yet_is_added_but_not_ready(a: Partners, b: Partners) -> None:
    added = ok(b.add(ok(b.read_card(cards.encode(ok(a.invite(B)))))))
    assert added.state == "added"
    assert f"outrider partner invite {A}" in added.waiting_for
    ok(b.invite(A))
    assert b.get(A).state == "ready"  # type: ignore[union-attr]


def test_fingerprint_is_the_same_on_both_ends_and_however_people_write_it(a: Partners, b: Partners) -> None:
    ours = ok(a.invite(B))
    theirs = ok(b.read_card(cards.encode(ours)))
    assert fingerprint(ours) == fingerprint(theirs)
    assert len(fingerprint(ours).split()) == 8
    assert same_fingerprint(fingerprint(ours), fingerprint(ours).lower().replace(" ", "-"))
    assert not same_fingerprint(fingerprint(ours), fingerprint(ours)[:-1])
    assert not same_fingerprint("", "")


def test_invitation_gives_each_partner_ports_of_its_own_and_the_same_again(a: Partners) -> None:
    assert ok(a.invite(B)).border == ok(a.invite(B)).border
    ports = [ok(a.invite(n)).border for n in (B, C)]
    assert [(p.control_port, p.bulk_port) for p in ports] == [(7780, 7781), (7782, 7783)]
    assert fingerprint(ok(a.invite(B))) == fingerprint(ok(a.invite(B)))


def test_invitation_takes_named_ports_unless_they_are_taken(a: Partners) -> None:
    assert ok(a.invite(B, 9000, 9001)).border.bulk_port == 9001
    assert ok(a.invite(C, control=7780)).border.bulk_port == 7781
    assert refused(a.invite(C, 9000, 9005)) == "PORT_TAKEN"
    assert refused(a.invite(C, 9007, 9007)) == "PORT_TAKEN"
    assert refused(a.invite(C, 0, 9007)) == "PORT_TAKEN"
    assert refused(a.invite(C, 7770, 9007)) == "PORT_TAKEN"  # the internal listener's
    assert refused(a.invite(A)) == "PARTNER_SELF"


def test_address_that_the_operator_knows_better_is_kept(a: Partners, b: Partners) -> None:
    card = ok(b.read_card(cards.encode(ok(a.invite(B)))))
    added = ok(b.add(card, address="192.0.2.7", control_port=1))
    assert (added.address.host, added.address.control_port, added.address.bulk_port) == ("192.0.2.7", 1, 7781)
    assert refused(b.add(card, address="not a host")) == "PARTNER_ADDRESS"


def test_own_card_and_somebody_elses_are_refused(a: Partners, b: Partners, tmp_path: Path) -> None:
    own = cards.encode(ok(a.invite(B)))
    assert refused(a.read_card(own)) == "CARD_OWN"
    c = network(tmp_path, C)
    assert refused(c.read_card(own)) == "CARD_NOT_FOR_US"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "CARD_FORMAT"),
        (b"PK\x03\x04", "CARD_FORMAT"),
        (b"\xff\xfe\x00", "CARD_FORMAT"),
        (b"[]", "CARD_FORMAT"),
        (b'{"format": "something else", "version": 1}', "CARD_FORMAT"),
        (b'{"format": "outrider-partner-card", "version": 2}', "CARD_VERSION"),
        (b'{"format": "outrider-partner-card", "version": 1}', "CARD_SCHEMA"),
        (b" " * (cards.CARD_BYTES + 1), "CARD_SIZE"),
        (b"[" * 60_000, "CARD_FORMAT"),
    ],
)
def test_file_that_is_no_card_is_refused(a: Partners, data: bytes, code: str) -> None:
    assert refused(a.read_card(data)) == code


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda c: c.update(name="Somebody else"), "CARD_SIGNATURE"),
        (lambda c: c["border"].update(host="192.0.2.66"), "CARD_SIGNATURE"),
        (lambda c: c["border"].update(controlPort=1), "CARD_SIGNATURE"),
        (lambda c: c.update(kind="local"), "CARD_SIGNATURE"),
        (lambda c: c.update(signature=""), "CARD_SIGNATURE"),
        (lambda c: c.update(signature="!!!"), "CARD_SIGNATURE"),
        (lambda c: c.update(nrfId="not-a-uuid"), "CARD_SCHEMA"),
        (lambda c: c.update(network="99"), "CARD_SCHEMA"),
        (lambda c: c.update(kind="wlan"), "CARD_SCHEMA"),
        (lambda c: c.update(extra=1), "CARD_SCHEMA"),
        (lambda c: c["border"].update(controlPort=70000), "CARD_SCHEMA"),
        (lambda c: c.update(name="\x1b[2J"), "CARD_SCHEMA"),
        (lambda c: c["border"].update(host="a b"), "CARD_SCHEMA"),
        (lambda c: c["border"].update(bulkPort=c["border"]["controlPort"]), "CARD_SCHEMA"),
        (lambda c: c.update(ca="junk"), "CARD_CA"),
        (lambda c: c.update(ca=c["ca"] + c["ca"]), "CARD_CA"),
        (lambda c: c.update(operatorKey="junk"), "CARD_KEY"),
        (lambda c: c.update(operatorKey=c["nrfKey"]), "CARD_KEY"),
        (lambda c: c.update(nrfKey=c["operatorKey"]), "CARD_KEY"),
    ],
)
def test_card_that_was_tampered_with_is_refused(a: Partners, b: Partners, change: Change, code: str) -> None:
    card = json.loads(cards.encode(ok(b.invite(A))))
    change(card)
    assert refused(a.read_card(json.dumps(card).encode())) == code


def forged(b: Partners, tmp_path: Path, **fields: str) -> bytes:
    """A card of B's with other fields, signed anew: what an operator with its own key could send."""
    card = msgspec.structs.replace(ok(b.invite(A)), **fields)
    operator = load_private(tmp_path / str(B) / "keys" / "operator.key")
    assert isinstance(operator, ed25519.Ed25519PrivateKey)
    return cards.encode(cards.sign(card, operator))


def test_certificate_that_is_no_ca_or_not_valid_now_is_refused(a: Partners, b: Partners, tmp_path: Path) -> None:
    leaf = (tmp_path / str(B) / "keys" / "border.pem").read_text()
    assert refused(a.read_card(forged(b, tmp_path, ca=leaf))) == "CARD_CA"
    good = cards.encode(ok(b.invite(A)))
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=365 * 11)
    assert refused(cards.read(good, A, later)) == "CARD_CA"


def test_nrf_key_of_another_curve_is_refused(a: Partners, b: Partners, tmp_path: Path) -> None:
    other = public_pem(ec.generate_private_key(ec.SECP384R1())).decode()
    assert refused(a.read_card(forged(b, tmp_path, nrf_key=other))) == "CARD_KEY"


def test_private_key_in_a_card_is_refused(a: Partners, b: Partners, tmp_path: Path) -> None:
    secret = private_pem(ed25519.Ed25519PrivateKey.generate()).decode()
    assert refused(a.read_card(forged(b, tmp_path, operator_key=secret))) == "CARD_KEY"


def test_keys_of_another_network_are_refused(a: Partners, b: Partners, tmp_path: Path) -> None:
    own = (tmp_path / str(A) / "keys" / "ca.pem").read_text()
    stolen = ok(a.read_card(forged(b, tmp_path, ca=own)))
    assert refused(a.add(stolen)) == "PARTNER_KEY_SHARED"
    ok(a.add(ok(a.read_card(cards.encode(ok(b.invite(A)))))))
    as_c = ok(a.read_card(forged(b, tmp_path, network=str(C), kind="plmn")))
    assert refused(a.add(as_c)) == "PARTNER_KEY_SHARED"


def test_known_partner_with_new_keys_is_refused_until_it_is_removed(a: Partners, b: Partners, tmp_path: Path) -> None:
    ok(a.add(ok(a.read_card(cards.encode(ok(b.invite(A)))))))
    ok(a.add(ok(a.read_card(cards.encode(ok(b.invite(A)))))))  # the same card again is no change
    renewed = network(tmp_path / "again", B, "snpn", 8880)
    card = ok(a.read_card(cards.encode(ok(renewed.invite(A)))))
    assert refused(a.add(card)) == "PARTNER_KNOWN"
    assert a.remove(B) is None
    assert refused(a.remove(B)) == "PARTNER_UNKNOWN"
    assert ok(a.add(card)).card == card


def test_change_of_a_partner_can_be_noticed(a: Partners, b: Partners) -> None:
    seen = [a.stamp()]
    ok(a.invite(B))
    seen.append(a.stamp())
    ok(a.add(ok(a.read_card(cards.encode(ok(b.invite(A)))))))
    seen.append(a.stamp())
    a.remove(B)
    assert len({*seen}) == 3
    assert a.stamp() == seen[0]


def test_partner_file_that_is_damaged_is_told(a: Partners, tmp_path: Path) -> None:
    ok(a.invite(B))
    (tmp_path / str(A) / "partners" / f"{B}.json").write_text("{")
    with pytest.raises(Refused, match="PARTNER_FILE"):
        a.all()


def test_card_has_no_secret(a: Partners, tmp_path: Path) -> None:
    card = cards.encode(ok(a.invite(B)))
    assert b"PRIVATE" not in card
    assert len(base64.b64decode(json.loads(card)["signature"])) == 64
    for file in (tmp_path / str(A) / "partners").glob("*.json"):
        assert file.stat().st_mode & 0o777 == 0o600
