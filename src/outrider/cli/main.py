"""The `outrider` command: one module per noun. What a command needs is imported when it runs, so it starts fast."""

import typer

from outrider.cli import (
    approval,
    audit,
    bench,
    catalogue,
    demo,
    doctor,
    image,
    migration,
    network,
    package,
    partner,
    permission,
    policy,
    service,
    sim,
)

for command in (image.save, image.restore):
    service.app.command()(command)

app = typer.Typer(
    no_args_is_help=True,
    help="Move a running communication service of a 5G core into another operator's network, UE by UE, and back.",
    epilog="Exit codes: 0 done, 1 refused, 2 misuse, 3 unreachable, 4 fault.",
)
app.add_typer(network.app, name="network", help="Set a network up, run it, see how it is.")
app.add_typer(partner.app, name="partner", help="Exchange cards with a partner operator.")
app.add_typer(package.app, name="package", help="Build, inspect and verify packages.")
app.add_typer(catalogue.app, name="catalogue", help="Onboard, list, show and withdraw packages; revocation lists.")
app.add_typer(permission.app, name="permission", help="Sign, give, show and revoke software permissions.")
app.add_typer(policy.app, name="policy", help="Check, test, apply, explain and replay this operator's policy.")
app.add_typer(approval.app, name="approval", help="Decide what this operator's policy asks a human about.")
app.add_typer(service.app, name="service", help="Deploy, list, show, save, restore and remove services.")
app.add_typer(migration.app, name="migration", help="Start, watch, list, show, abort and return migrations.")
app.add_typer(audit.app, name="audit", help="Show, check and export what was decided, signed and refused here.")
app.add_typer(doctor.app, name="doctor", help="Look at this machine: can a network run here.")
app.add_typer(bench.app, name="bench", help="Measure what the design promises, on this machine.")
app.add_typer(sim.app, name="sim", help="Whole hosts in a simulated world with faults: run, replay, shrink.")
app.add_typer(demo.app, name="demo", help="Two networks, a service, a group of UEs on the move, and a verdict.")


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
