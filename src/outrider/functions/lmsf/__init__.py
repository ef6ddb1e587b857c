"""The LMS Function: the control function that brings a communication service to another network and back.

`engine.Lmsf(config, partners=…, inner=…, hosts=…, signer=…, verifier=…)` is the function; `ports` says what it needs.
The composition root calls `start()` and `stop()`, mounts `router` on the internal listener (paths `/nlmsf-…` for the
operator and for the own network) and `partner_router(partner)` on both of that partner's border listeners.

============= =====================================================================
module        reason
============= =====================================================================
engine        one owner task per migration: journal, then act; recovery is the same
journal       what must survive a crash, in one SQLite file
acts          what each command of the phase machine does
deploy        services at home: install, host, NF instances, heartbeats
catalogue     package archives: upload and download by range, verify, install
negotiation   offers and contracts
permissions   permissions, own and the partner's
operator      APIs for the operator
partner       APIs for the partner
============= =====================================================================
"""
