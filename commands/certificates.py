"""`hilserl certificates`: make and show what learner and robot hosts prove themselves with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Make and show the certificates with which the learner and the robot hosts prove themselves (`link.tls: true`).",
)

Folder = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="By default $HILSERL_CERTIFICATES, or HILSERL_HOME/certificates."),
]


@app.command()
def create(
    learner: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME_OR_IP", help="Name or address under which robot hosts reach the learner; may be repeated."),
    ] = None,
    robot_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Name of a robot host, as in `robot.host`; may be repeated.")
    ] = None,
    console: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME_OR_IP",
            help="Name or address under which browsers reach the operator's console; may be repeated. It goes to the one `--robot-host` "
            "that is named, else it is for this machine.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make new ones for the learner and these robot hosts.")] = False,
    new_ca: Annotated[
        bool, typer.Option("--new-ca", help="Begin anew: every certificate made before is refused, such as that of a lost host.")
    ] = False,
    folder: Folder = None,
) -> None:
    """Make what is missing; what is there stays. Run it on the learner's host, then copy each robot host's folder to that host."""
    from hilserl.files import CERTIFICATES_VARIABLE, certificates_folder
    from hilserl.link.certificates import create_certificates, create_console_certificate

    where = (folder or certificates_folder()).expanduser().resolve()
    issued = []
    if console and len(robot_host or []) > 1:
        raise typer.BadParameter("`--console` goes with one `--robot-host`: call this once for each.")
    if learner or robot_host or not console:
        issued += create_certificates(where, learner or [], robot_host or [], force=force, new_authority=new_ca)
    if console:
        issued.append(create_console_certificate(where, console, robot_host[0] if robot_host else None, force=force))
    for certificate in issued:
        print(f"{certificate.done:8}  {certificate.what:20}  {certificate.file}")
    hosts = [certificate for certificate in issued if certificate.file.name == "actor.pem" and certificate.done != "kept"]
    if hosts:
        print(f"\nCopy these folders to their hosts, as `certificates` under HILSERL_HOME there or where {CERTIFICATES_VARIABLE} points:")
        for certificate in hosts:
            print(f"  scp -rp {certificate.file.parent}/. {certificate.what}:<HILSERL_HOME>/certificates/")
    if console:
        print(f"\nGive {where / 'ca.pem'} to the browsers that open the console, as an authority for web sites, once.")
        print("Then set `console.host`. docs/console.md says more.")
    if any(certificate.done != "kept" for certificate in issued if certificate.file.name != "console.pem"):
        print("A learner that is running takes new certificates when it is started again.")
    if learner or robot_host or not console:
        print("Then set `link.tls: true`, `link.host` and `link.advertise` in the configuration. docs/link.md says what each means.")


@app.command()
def show(folder: Folder = None) -> None:
    """Print whose certificates are here, their names, fingerprints and last days. Exit code 1: one of them is of no use."""
    import datetime as dt

    from hilserl.files import certificates_folder
    from hilserl.link.certificates import describe_certificates

    described = describe_certificates((folder or certificates_folder()).expanduser().resolve())
    now = dt.datetime.now(dt.UTC)
    for certificate in described:
        names = f", for {', '.join(certificate.names)}" if certificate.names else ""
        print(f"{certificate.what}{names}")
        print(f"  {certificate.file}")
        print(f"  SHA-256 {certificate.fingerprint}")
        print(f"  expires {certificate.expires:%Y-%m-%d}, in {(certificate.expires - now).days} days")
        if certificate.problem:
            print(f"  OF NO USE: {certificate.problem}")
    if any(certificate.problem for certificate in described):
        raise typer.Exit(1)
