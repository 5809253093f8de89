"""The kernels' mathematics as textbook NumPy: one file per kernel file, under the same names.

The code says what a kernel computes and is checked by the complex step: inputs may be complex128, so every function
is holomorphic wherever it is differentiable. Branches look at real parts, and nothing takes a modulus or a conjugate.
Results have the dtype of the inputs.
"""
