"""The LMS Function: the control function that brings a communication service to another network and back.

`engine.Lmsf(config, partners=…, inner=…, hosts=…, signer=…, verifier=…)` is the function; `ports` says what it needs.
The composition root calls `start()` and `stop()`, mounts `router` on the internal listener (paths `/nlmsf-…` for the
operator and for the own network) and `partner_router(partner)` on both of that partner's border listeners.

============= =====================================================================
module        reason
============= =====================================================================
engine        the parts put together; begins, finds and resumes migrations
runner        one migration: journal, then act; recovery is the same
acts          what each command of the phase machine does
teller        tells the partner where this side stands
journal       what must survive a crash, in one SQLite file
record        what is kept of migrations and services, and what goes to the partner
negotiation   offers and contracts
permissions   permissions and revocations, own and the partner's
catalogue     package archives: up, across and down in ranges, verified
deployments   services that run here: installed, hosted, registered, kept alive
instances     their NF instances at the NRF
keepers       the hosts' control API
clocks        the clock, and how far the partner's is away
receipt       the signed word that everything is erased
guard         who may call
operator      APIs for the own network
partner       APIs for one partner
shown         how the operator's APIs show things
openapi       the OpenAPI files, served
ports         what this function needs; signer and software implement two of it
============= =====================================================================
"""
