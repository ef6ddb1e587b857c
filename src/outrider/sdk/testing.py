"""The test kit: run an NF service's real code against a keeper in memory, and move it to another network in between.

    async with Harness({"nsmf-groupsession": "group_coordination.session:nf"}) as h:
        reply = await h.request("nsmf-groupsession", "POST", "/nsmf-groupsession/v1/…", ue="imsi-…", json={…})
        await h.relocate(to_network={"mcc": "999", "mnc": "71"})
        await h.advance(60_000)                      # timers fire, in virtual time

Name the services as `module:attribute`, as the manifest does (or give a function that makes new apps): a relocation
imports them again, so what was kept outside the SDK is gone, as it will be. `check_no_hidden_state` looks for exactly
that, by running a scenario with and without relocations.
"""

from outrider.sdk.harness import HandlerFailed, Harness, Notification, services_of
from outrider.sdk.hidden_state import check_no_hidden_state

__all__ = ["HandlerFailed", "Harness", "Notification", "check_no_hidden_state", "services_of"]
