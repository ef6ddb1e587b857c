"""The basic part: a small AMF and a small SMF, so that every network of a scenario has UEs, sessions and their events.

Registration and PDU session are what each network has without any package. They run beside a migration so that "no
influence on basic communication" is measured. State is in memory: a real core keeps it, and beside one this is off.

======== ==================================================================================
module   reason
======== ==================================================================================
amf      registrations (`namf-basic`, in place of N1/N2) and Namf_EventExposure (TS 29.518)
smf      PDU sessions (`nsmf-basic`, in place of N1/N4) and Nsmf_EventExposure (TS 29.508)
nf       what both have in common: routes behind tokens, subscriptions
model    types that both use
events   who is told what: subscriptions, and notifications in order for each
profiles how the two register at the NRF
======== ==================================================================================
"""

from outrider.functions.basic.amf import Amf
from outrider.functions.basic.smf import Smf

__all__ = ["Amf", "Smf"]
