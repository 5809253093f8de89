"""fastrnn: recurrent networks trained on CPUs, in compiled kernels behind torch-shaped layers."""

__version__ = "0.1.0"
