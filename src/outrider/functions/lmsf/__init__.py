"""The LMS Function: the control function that brings a communication service to another network and back.

`engine.Lmsf(config, partners=…, inner=…, hosts=…, signer=…)` is the function; `ports` says what it needs. The
composition root calls its `start()` and `stop()`, mounts `faces.Faces(lmsf, verifier).router` on the internal listener
(paths `/nlmsf-…` for the operator and for the own network) and `partner_router(partner)` on both of that partner's
border listeners. No module imports one above it in this list.

============= =====================================================================
module        reason
============= =====================================================================
faces         who may ask what: the own network and each partner, with tokens
guard         who may call
operator      APIs for the own network
partner       APIs for one partner
shown         how the operator's APIs show things
openapi       the OpenAPI files, served
engine        the parts put together; begins, finds and resumes migrations
images        services at rest: saved, and restored (`image`: the file)
acts          what each command of the phase machine does
talks         those of them that agree with the partner: offer and permissions
runner        one migration: journal, then act; recovery is the same
teller        tells the partner where this side stands
negotiation   offers and contracts
permissions   permissions and revocations, own and the partner's
deployments   services that run here: installed, hosted, registered, kept alive
catalogue     package archives: up, across and down in ranges, verified
impact        what deploying a package would do to the network
instances     NF instances of a deployed service, at the NRF
keepers       the hosts' control API
receipt       the signed word that everything is erased
journal       what must survive a crash, in one SQLite file
record        what is kept of migrations and services, and what goes to the partner
clocks        the clock, and how far the partner's is away
ports         what this function needs; signer, software and supply implement three of it
============= =====================================================================
"""
