"""The log that a visited network sends home, across crashes of its keeper."""

import functools

import pytest

from outrider.store.port import SetValue

A, B = "999-70", "999-71"


@pytest.mark.timeout(30)
async def test_a_log_that_was_trimmed_before_its_acknowledgement_was_noted_does_not_stop_the_owner(net):
    await net.create("imsi-1")
    await net.begin("m", A, B)
    await net.add(B, "imsi-1")
    host = net.hosts[B]
    await net.until(lambda: host.followers.shadow is not None and host.followers.shadow.pending.lag == 0, "home")
    last = host.store.last_lsn()
    assert last > 0
    await host.committer.run(functools.partial(host.store.trim_log, last))
    await host.committer.submit(SetValue("shadow-acked", b"0"))  # the crash came before it was noted
    host = await net.restart(B)
    count = await net.add(B, "imsi-1")
    shadow = host.followers.shadow
    assert shadow is not None
    await net.until(lambda: shadow.pending.lag == 0, "home again")
    assert count == 3
