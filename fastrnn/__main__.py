"""`python -m fastrnn` is the command `fastrnn`."""

from fastrnn.cli import main

main(prog_name="fastrnn")
