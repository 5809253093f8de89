"""`fastrnn example`: models trained on data that every machine has."""

import time

import click

import fastrnn
from fastrnn.cli.program import Bar, help_without_command
from fastrnn.examples import EXAMPLES
from fastrnn.examples.shared import Run


@click.group(invoke_without_command=True)
@click.pass_context
def example(context):
    """Train a model on data that every machine has, and look at what it learnt.

    Each example takes a minute or less on two cores. A further one, a model that writes source code of the standard
    library, is `fastrnn charlm train`.
    """
    help_without_command(context)


def _command(name, module):
    """The command that runs an example."""

    @example.command(name, help=module.__doc__)
    @click.option("--epochs", type=click.IntRange(1), help="Passes over the data.  [default: enough for the goal]")
    @click.option(
        "--samples", type=click.IntRange(1), help="Learn from so many at most, and test on no more: a quick look."
    )
    @click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of data, weights and order.")
    @click.option("--quiet", is_flag=True, help="Print the last line alone.")
    def command(epochs, samples, seed, quiet):
        start = time.perf_counter()
        with Bar(quiet) as bar:
            progress = lambda share, loss: bar.show(share, f"loss {loss:.3f}")
            result = module.run(Run(seed, epochs, samples, progress))
        seconds, threads = time.perf_counter() - start, fastrnn.get_num_threads()
        if not quiet:
            click.echo(f"{result.shown}\n")
        click.echo(
            f"{name}: {result.quality:.1%} of {result.tested} (goal: {result.goal:.0%}), in {seconds:.0f} s on "
            f"{threads} thread{'s' * (threads > 1)}"
        )


for _name, _module in EXAMPLES.items():
    _command(_name, _module)
