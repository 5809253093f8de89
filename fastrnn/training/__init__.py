"""Training of character models: text, loop, checkpoints; without the command line."""
