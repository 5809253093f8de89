"""`fastrnn gradcheck`: the gradients of a layer against numerical ones."""

import re

import click

from fastrnn import kinds


@click.command(context_settings={"show_default": True})
@click.option("--cell", type=click.Choice(kinds.names()), default="lstm", help="Recurrent cell.")
@click.option("--hidden", type=click.IntRange(1), default=8, help="Units of a layer.")
@click.option("--input", "inputs", type=click.IntRange(0), default=5, help="Size of the input at a step.")
@click.option("--steps", type=click.IntRange(0), help="Length of the sequences.  [default: 5, or the longest]")
@click.option("--batch", type=click.IntRange(0), help="Number of sequences.  [default: 3, or that of the lengths]")
@click.option("--layers", type=click.IntRange(1), default=1, help="Recurrent layers.")
@click.option("--bidirectional", is_flag=True, help="In both directions of time.")
@click.option("--proj", type=click.IntRange(0), default=0, help="Size that lstm's h is projected to; 0: not projected.")
@click.option("--peepholes", is_flag=True, help="Let lstm's gates see c.")
@click.option("--reset-before", is_flag=True, help="Let gru's reset gate act before the product, as in the paper.")
@click.option("--lengths", help="Steps of each sequence, as 5,0,3.  [default: all]")
@click.option("--method", type=click.Choice(["auto", "central", "dot"]), default="auto", help="See fastrnn.gradcheck.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of weights, inputs and directions.")
@click.pass_context
def gradcheck(context, cell, hidden, inputs, layers, bidirectional, proj, peepholes, reset_before, lengths, **options):
    """Compare the gradients of a recurrent layer with derivatives taken numerically, in float64.

    Weights, inputs and initial states are random. The exit status is 0 if every gradient is right and 1 if not.
    """
    from fastrnn.gradcheck import check_layer

    kind = kinds.named(cell)
    if "proj_size" not in kind.own and (proj or peepholes):
        raise click.UsageError(f"--proj and --peepholes are lstm's, the cell is {cell}")
    if "reset_after" not in kind.options and reset_before:
        raise click.UsageError(f"--reset-before is gru's, the cell is {cell}")
    if lengths is not None and not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", lengths):
        raise click.UsageError(f"--lengths: expected integers, as 5,0,3, got {lengths}")
    own = dict(kind.options) | ({"reset_after": False} if reset_before else {})
    own |= {"proj_size": proj, "peepholes": peepholes} if proj or peepholes else {}
    try:
        layer = kind.layer_class(
            inputs, hidden, layers, bidirectional=bidirectional, dtype="float64", seed=options["seed"], **own
        )
        counts = None if lengths is None else [int(length) for length in lengths.split(",")]
        report = check_layer(layer, lengths=counts, **options)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(report)
    context.exit(0 if report.ok else 1)
