"""What an operator's folder says about software: rules, trusted vendors, advisories and revocation lists together.

============================ ==================================================================
below the network's folder   content
============================ ==================================================================
`vendors/`                   trusted vendors (`.pub`)
`vendors/revoked/`           the newest revocation list of each issuer
`supply/`                    advisories, VEX statements, known exploited vulnerabilities
============================ ==================================================================
"""

import functools
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from outrider.core.refusal import Refusal, Refused
from outrider.core.supply import SupplyRules
from outrider.functions.lmsf.supply import OperatorSupply
from outrider.network import config as configs
from outrider.network.keys import Keys, load_private
from outrider.package.revocations import Revocations
from outrider.package.vendors import TrustedVendor, read_all


def trusted_vendors(directory: Path) -> list[TrustedVendor]:
    """The vendors that a network's folder trusts now; raises `Refused` if a file cannot be read."""
    folder = directory / "vendors"
    return read_all([folder]) if folder.is_dir() else []


def operator_supply(
    directory: Path, rules: SupplyRules, network: str, operator_key: Ed25519PublicKey
) -> tuple[Revocations, OperatorSupply]:
    """Revocation lists and demands of a network's folder."""
    revocations = Revocations(directory / "vendors" / "revoked", network, operator_key)
    vendors = functools.partial(trusted_vendors, directory)
    return revocations, OperatorSupply(rules, directory / "supply", revocations, vendors)


def of_folder(directory: Path) -> tuple[Revocations, OperatorSupply]:
    """As `operator_supply`, with everything from the folder: for commands that need no running node."""
    config = configs.load(directory / configs.FILE_NAME)
    operator = load_private(Keys(directory / "keys").operator_key)
    if not isinstance(operator, Ed25519PrivateKey):
        raise Refused(Refusal("KEY_KIND", f"{directory / 'keys' / 'operator.key'} is no Ed25519 key."))
    return operator_supply(directory, config.supply, str(config.network_id), operator.public_key())
