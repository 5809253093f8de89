"""Gradient checks: are a layer's or a function's gradients the derivatives of what it computes?

The derivative of L = <u, f(x)>, u random, is taken in float64 in one of two ways:

- complex step, Im L(x + ih)/h with h = 1e-20: no cancellation, exact to rounding. f must be holomorphic.
- central differences D(h). With e the noise of L, which is measured, and Mk the size of its k-th derivative,
  |error| <= h^2 M3/6 + e/h, least at h = (3e/M3)^(1/3). A step of Richardson extrapolation, R(h) = (4 D(h) - D(2h))/3,
  has |error| <= h^4 M5/30 + 1.5 e/h, least at h = (11e/M5)^(1/5). For f of unit scale that is 2e-11 and 2e-13.

Gradients are compared entry by entry, or, where they are large, by the dot-product test <u, Jv> = <J^T u, v> for random
v. Both go block by block, v in one block of an input and u in one of an output: large blocks would hide small ones.

Sources: Martins, Sturdza, Alonso, The complex-step derivative approximation, ACM TOMS 29 (2003); Ridders, Accurate
computation of F'(x) and F'(x)F''(x), Adv. Eng. Software 4 (1982); More, Wild, Estimating computational noise, SIAM J.
Sci. Comput. 33 (2011).
"""

from fastrnn.gradcheck.compare import METHODS, check
from fastrnn.gradcheck.layer import check_layer
from fastrnn.gradcheck.report import Entry, Report, Row

__all__ = ["METHODS", "Entry", "Report", "Row", "check", "check_layer"]
