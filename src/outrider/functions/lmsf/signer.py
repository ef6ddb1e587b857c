"""The operator's key as a `Signer`, for a node that holds it itself."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from outrider.core.refusal import Refusal
from outrider.functions.lmsf.ports import Partners
from outrider.functions.lmsf.ports import Signer as SignerPort
from outrider.package import signing


class KeySigner:
    """Signs with an Ed25519 key in memory."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def sign(self, payload: bytes, payload_type: str) -> bytes:
        """A DSSE envelope (JSON) over the payload."""
        return signing.sign(payload, payload_type, self._key)

    def countersign(self, envelope: bytes, payload_type: str) -> bytes | Refusal:
        """The envelope with this network's signature over the same bytes."""
        return signing.add_signature(envelope, payload_type, self._key)

    @property
    def public_pem(self) -> bytes:
        """The key's public half, as partners know it."""
        return signing.public_pem(self._key.public_key())


def operator_keys(network: str, signer: SignerPort, partners: Partners) -> dict[str, list[Ed25519PublicKey]]:
    """The operator keys that count here, by network: the own one and those of every partner."""
    keys = {network: [signing.load_public(signer.public_pem, "the operator's key")]}
    for partner in partners.list():
        keys[partner.network] = [
            signing.load_public(pem, f"the operator key of {partner.network}") for pem in partner.operator_keys
        ]
    return keys
