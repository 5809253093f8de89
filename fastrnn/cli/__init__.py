"""The command `fastrnn`."""

import click

import fastrnn
from fastrnn.cli import charlm, example, gradcheck, plot
from fastrnn.cli.program import Program, help_without_command


@click.group(cls=Program, invoke_without_command=True)
@click.version_option(fastrnn.__version__, prog_name="fastrnn", message="%(prog)s %(version)s")
@click.pass_context
def main(context):
    """Recurrent networks on CPUs."""
    help_without_command(context)


for command in (charlm.charlm, example.example, gradcheck.gradcheck, plot.plot):
    main.add_command(command)
