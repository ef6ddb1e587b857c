"""The keys of one network: made once at init, never overwritten, never leaving the folder `keys`.

============== ============ ==========================================================
file           kind         signs or proves
============== ============ ==========================================================
operator.key   Ed25519      permissions, contracts, the partner card
nrf.key        ES256        access tokens of this network's NRF
internal.key   ES256        client credentials of this network's own functions at the NRF
ca.key, ca.pem ES256, X.509 the border certificate; partners trust this CA and no other for this network
border.*       ES256, X.509 the border itself, as server and as client
============== ============ ==========================================================

Private keys are PKCS#8 PEM (the TLS server takes nothing else), mode 0600.
"""

import datetime as dt
import ipaddress
import uuid
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from outrider.core.ids import NetworkId
from outrider.core.refusal import Refusal, Refused
from outrider.network.files import PRIVATE, PUBLIC, sync_dir, write_atomic

CA_DAYS = 3650
BORDER_DAYS = 397
RENEW_DAYS = 60
"""A border certificate with fewer days left is renewed when the node starts."""

SKEW = dt.timedelta(hours=1)
"""Certificates are valid from so long ago, so that a partner's slow clock does not refuse a new one."""

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Instances(msgspec.Struct, frozen=True, rename="camel"):
    """NF instance ids of the functions that every node has; stable, because tokens and partners name them."""

    nrf: str
    lmsf: str
    sepp: str
    amf: str
    smf: str


class Keys(NamedTuple):
    """A network's key folder, by name; contents are read where they are needed."""

    dir: Path

    @property
    def operator_key(self) -> Path:
        """Ed25519: permissions, contracts, the partner card."""
        return self.dir / "operator.key"

    @property
    def nrf_key(self) -> Path:
        """ES256: access tokens."""
        return self.dir / "nrf.key"

    @property
    def internal_key(self) -> Path:
        """ES256: client credentials of the network's own functions."""
        return self.dir / "internal.key"

    @property
    def ca_key(self) -> Path:
        """ES256: the network's CA."""
        return self.dir / "ca.key"

    @property
    def ca_cert(self) -> Path:
        """The CA's certificate."""
        return self.dir / "ca.pem"

    @property
    def border_key(self) -> Path:
        """ES256: the border's TLS key."""
        return self.dir / "border.key"

    @property
    def border_cert(self) -> Path:
        """The border's certificate, for server and client use."""
        return self.dir / "border.pem"

    @property
    def instances_file(self) -> Path:
        """The ids of the node's NF instances (no secret)."""
        return self.dir / "instances.json"

    def instances(self) -> Instances:
        """The ids of the node's NF instances."""
        return msgspec.json.decode(self.instances_file.read_bytes(), type=Instances)


def private_pem(key: PrivateKey) -> bytes:
    """PKCS#8 PEM without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: PrivateKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> bytes:
    """SubjectPublicKeyInfo PEM."""
    public = key.public_key() if isinstance(key, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)) else key
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def load_private(path: Path) -> PrivateKey:
    """Read a private key; a file that others can read is refused."""
    mode = path.stat().st_mode & 0o077
    if mode:
        raise Refused(
            Refusal(
                "KEY_EXPOSED",
                f"{path} can be read or written by others (mode {path.stat().st_mode & 0o777:04o}).",
                {"file": str(path)},
                f"Run `chmod 600 {path}`, and replace the key if anybody may have read it.",
            )
        )
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)):
        raise Refused(Refusal("KEY_KIND", f"{path} holds no EC or Ed25519 key.", {"file": str(path)}))
    return key


def border_name(network: NetworkId) -> str:
    """The DNS name in the border's certificate, by which partners verify it whatever address they reach it at."""
    return f"sepp.{network.domain}"


def _ca(network: NetworkId, key: ec.EllipticCurvePrivateKey, now: dt.datetime) -> x509.Certificate:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, str(network)),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Border CA of {network}"),
        ]
    )
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + dt.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _border(
    network: NetworkId,
    host: str,
    sepp: str,
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
) -> x509.Certificate:
    names: list[x509.GeneralName] = [
        x509.DNSName(border_name(network)),
        x509.UniformResourceIdentifier(f"urn:uuid:{sepp}"),
    ]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Border of {network}")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(min(now + dt.timedelta(days=BORDER_DAYS), ca.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def create(directory: Path, network: NetworkId, border_host: str, now: dt.datetime | None = None) -> Keys:
    """Make all keys of a network in a folder that must not exist yet."""
    now = now or dt.datetime.now(dt.UTC)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        raise Refused(
            Refusal(
                "KEYS_EXIST",
                f"{directory} exists already, and keys are never overwritten.",
                {"folder": str(directory)},
                "Take another folder, or move the old keys away yourself if they are really to be lost.",
                status=409,
            )
        ) from None
    keys = Keys(directory)
    instances = Instances(*(str(uuid.uuid4()) for _ in Instances.__struct_fields__))
    ca_key, border_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _ca(network, ca_key, now)
    border = _border(network, border_host, instances.sepp, border_key, ca, ca_key, now)
    secrets: dict[Path, PrivateKey] = {
        keys.operator_key: ed25519.Ed25519PrivateKey.generate(),
        keys.nrf_key: ec.generate_private_key(ec.SECP256R1()),
        keys.internal_key: ec.generate_private_key(ec.SECP256R1()),
        keys.ca_key: ca_key,
        keys.border_key: border_key,
    }
    for path, key in secrets.items():
        write_atomic(path, private_pem(key), PRIVATE)
    write_atomic(keys.ca_cert, ca.public_bytes(serialization.Encoding.PEM), PUBLIC)
    write_atomic(keys.border_cert, border.public_bytes(serialization.Encoding.PEM), PUBLIC)
    write_atomic(keys.instances_file, msgspec.json.encode(instances), PUBLIC)
    sync_dir(directory.parent)
    return keys


def renew_border(keys: Keys, network: NetworkId, border_host: str, now: dt.datetime | None = None) -> bool:
    """Issue a new border certificate if the present one ends soon or names another host; True if it did."""
    now = now or dt.datetime.now(dt.UTC)
    current = x509.load_pem_x509_certificate(keys.border_cert.read_bytes())
    names = current.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    known = {str(v) for v in names.get_values_for_type(x509.IPAddress)} | set(names.get_values_for_type(x509.DNSName))
    if current.not_valid_after_utc - now > dt.timedelta(days=RENEW_DAYS) and border_host in known:
        return False
    key, ca_key = load_private(keys.border_key), load_private(keys.ca_key)
    ca = x509.load_pem_x509_certificate(keys.ca_cert.read_bytes())
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise Refused(Refusal("KEY_KIND", f"{keys.border_key} and {keys.ca_key} must be EC keys."))
    fresh = _border(network, border_host, keys.instances().sepp, key, ca, ca_key, now)
    write_atomic(keys.border_cert, fresh.public_bytes(serialization.Encoding.PEM), PUBLIC)
    return True
