"""The border (SEPP, N32): the only function that faces other networks.

`Border(network, tls, keepers=…, local=…)` opens, for each partner, two mTLS listeners that trust that partner's CA
alone (the TLS server does not show certificates to the application, so the listener *is* the identity), and sends to
partners with the border's own certificate.

======== ==========================================================
module   reason
======== ==========================================================
paths    which requests may cross the border, on which channel
checks   what a request must prove before anything looks at its body
meter    how much one partner may ask
inbound  from a partner to the own functions and keepers
outbound from the own functions and keepers to a partner
border   both, for all partners, opened and closed as partners change
======== ==========================================================
"""

from outrider.functions.n32.border import Border, BorderTls, Peer

__all__ = ["Border", "BorderTls", "Peer"]
