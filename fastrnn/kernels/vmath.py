"""exp, log, tanh and sigmoid of vectors: own code, so that every CPU with FMA gives the same bits.

Worst errors, in ulp of the exact result, over all 2**32 float32 inputs and over 2**26 float64 inputs of every
magnitude (tools/ulp.py measures them):

                 exp     log     tanh    sigmoid
    float32     0.78    0.83    1.55    1.53
    float64     0.78    0.82    1.52    1.51

NaN gives NaN; +-inf, +-0 and subnormals are right; tanh is odd to the bit. The series are Taylor's: one term more
than a minimax fit, and every constant can be seen to be right. Reference twin: fastrnn.reference.vmath.
"""

import math
from fractions import Fraction

import numpy as np
from numba import types
from numba.extending import overload

from fastrnn.kernels.jit import device
from fastrnn.kernels.simd import bits, fma, horner, select


class _Format:
    """Constants of one floating-point format."""

    def __init__(self, float_type, int_type, mantissa, exp_terms, log_terms, ln2_bits):
        self.mantissa = mantissa
        info = np.finfo(float_type)
        self.bias = 1 - info.minexp
        # e^r = 1 + r + r^2 (1/2 + r/6 + ...) for |r| <= ln(2)/2: the first term left out is < 0.1 ulp of 1
        self.exp = tuple(1 / math.factorial(k) for k in range(2, exp_terms + 1))
        # log((1+s)/(1-s)) = 2s + s z (2/3 + 2z/5 + ...), z = s^2, for |s| <= 0.1716
        self.log = tuple(2 / (2 * k + 1) for k in range(1, log_terms + 1))
        # adding `shifter` rounds to an integer and leaves it in the low bits
        self.shifter = 1.5 * 2.0**mantissa
        self.shifter_bits = int(float_type(self.shifter).view(int_type))
        # ln 2 = high + low; high is short, so that its product with an exponent is exact with and without FMA
        self.ln2_high = math.floor(math.log(2) * 2**ln2_bits) / 2**ln2_bits
        self.ln2_low = float(Fraction("0.693147180559945309417232121458") - Fraction(self.ln2_high))
        # e^x is 0 below `least` and inf above `most`; both leave room in the exponent
        self.least, self.most = math.log(2) * (info.minexp - mantissa - 2), math.log(2) * (info.maxexp + 1)
        self.smallest_normal, self.subnormal_scale = float(info.smallest_normal), 2.0 ** (mantissa + 2)
        self.sqrt_half_bits = int(float_type(math.sqrt(0.5)).view(int_type))
        self.magnitude = int(np.iinfo(int_type).max)


_FORMATS = {
    types.float32: _Format(np.float32, np.int32, 23, 7, 5, 15),
    types.float64: _Format(np.float64, np.int64, 52, 13, 11, 33),
}
_LOG2_E = 1 / math.log(2)


def _exp_parts(x):
    """n (integers), r and t with e^x = 2^n (1 + r + t), |r| < 0.35, |t| < 0.07; x within the format's exponents."""


@overload(_exp_parts)
def _(x):
    f = _FORMATS[x.scalar]
    shifter, shifter_bits, high, low, terms = f.shifter, f.shifter_bits, -f.ln2_high, -f.ln2_low, f.exp

    def implementation(x):
        shifted = fma(x, _LOG2_E, shifter)
        n = shifted - shifter
        exact, rest = fma(n, high, x), n * low
        r = exact + rest
        return bits(shifted) - shifter_bits, r, fma(r * r, horner(r, terms), rest - (r - exact))

    return implementation


def _power_of_two(n):
    """2^n for integers n of the normal range."""


@overload(_power_of_two)
def _(n):
    f = _FORMATS[types.float32 if n.scalar is types.int32 else types.float64]
    bias, mantissa = f.bias, f.mantissa
    return lambda n: bits((n + bias) << mantissa)


def _exp_factors(x):
    """a, b, f, g with e^x = (a + b) f g: |b| < 0.07 keeps the digits below a's last, f and g are powers of two.

    Two factors, so that subnormal and overflowing results are reached and rounded once.
    """


@overload(_exp_factors)
def _(x):
    f = _FORMATS[x.scalar]
    least, most = f.least, f.most

    def implementation(x):
        n, r, t = _exp_parts(select(x < least, least, select(x > most, most, x)))
        one = r + 1.0
        half = n >> 1
        return one, r - (one - 1.0) + t, _power_of_two(half), _power_of_two(n - half)

    return implementation


@device
def exp(x):
    """e^x."""
    a, b, f, g = _exp_factors(x)
    return (a + b) * f * g


def absolute(x):
    """|x|."""


@overload(absolute)
def _(x):
    magnitude = _FORMATS[x.scalar].magnitude
    return lambda x: bits(bits(x) & magnitude)


@device
def tanh(x):
    """tanh x = E / (E + 2) with E = e^2|x| - 1, and the sign of x."""
    a = absolute(x)
    n, r, t = _exp_parts(select(a > 20.0, 40.0, a + a))
    scale = _power_of_two(n)
    whole = scale - 1.0
    high = fma(scale, r, whole)
    low = fma(scale, t, scale * r - (high - whole))
    e = high + low
    ratio = e / (e + 2.0)
    # for E < 1 as (E - E ratio) / 2: E keeps its low part and the quotient's rounding hardly counts
    ratio = select(e < 1.0, fma(-e, ratio, low) * 0.5 + high * 0.5, ratio)
    return bits(bits(ratio) | (bits(x) ^ bits(a)))


@device
def sigmoid(x):
    """1 / (1 + e) or e / (1 + e) with e = e^-|x|; where e is small as e - e (e / (1 + e)), from e's parts."""
    a, b, f, g = _exp_factors(-absolute(x))
    m = a + b
    e = m * f * g
    ratio = select(x < 0.0, e, 1.0) / (e + 1.0)
    return select(x < -0.7, (a + fma(-m, ratio, b)) * f * g, ratio)


def log(x):
    """Natural logarithm; -inf at 0, NaN below."""


@overload(log)
def _(x):
    f = _FORMATS[x.scalar]
    tiny, scale, scale_bits = f.smallest_normal, f.subnormal_scale, float(f.mantissa + 2)
    root, mantissa, terms, high, low = f.sqrt_half_bits, f.mantissa, f.log, f.ln2_high, f.ln2_low
    shifter, shifter_bits = f.shifter, f.shifter_bits
    infinity, nan = math.inf, math.nan

    def implementation(x):
        normal = select(x < tiny, x * scale, x)
        n = (bits(normal) - root) >> mantissa
        f = bits(bits(normal) - (n << mantissa)) - 1.0  # 1 + f in [sqrt(1/2), sqrt(2))
        exponent = bits(n + shifter_bits) - shifter
        exponent = select(x < tiny, exponent - scale_bits, exponent)
        s = f / (f + 2.0)
        z = s * s
        square = f * f * 0.5
        tail = fma(s, fma(z, horner(z, terms), square), exponent * low)
        finite = fma(exponent, high, f - (square - tail))
        return select(x > 0.0, select(x < infinity, finite, x), select(x == 0.0, -infinity, x * nan))

    return implementation
