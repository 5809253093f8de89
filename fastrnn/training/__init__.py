"""Training of character models: text and loop, without the command line."""
