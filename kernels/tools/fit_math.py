"""Fits the polynomials of kernels/src/math.rs: interpolation at Chebyshev nodes in high precision, rounded to f32.

Run: python3 fit_math.py   (needs mpmath)
"""

import struct

import mpmath as mp

mp.mp.dps = 50


def fit(f, low, high, degree):
    """Coefficients, lowest first, of the polynomial that meets f at the Chebyshev nodes of [low, high]."""
    n = degree + 1
    nodes = [(low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * n)) for i in range(n)]
    rows = mp.matrix(n, n)
    values = mp.matrix(n, 1)
    for i, x in enumerate(nodes):
        values[i] = f(x)
        for j in range(n):
            rows[i, j] = x**j
    return list(mp.lu_solve(rows, values))


def as_f32(x):
    return struct.unpack("f", struct.pack("f", float(x)))[0]


def show(name, coefficients, f, low, high):
    worst = max(
        abs(mp.polyval(coefficients[::-1], x) / f(x) - 1)
        for x in (low + (high - low) * i / mp.mpf(1000) for i in range(1001))
        if f(x) != 0
    )
    print(f"{name}: relative error {mp.nstr(worst, 3)} = 2^{mp.nstr(mp.log(worst, 2), 4)}")
    print("   ", ", ".join(repr(as_f32(c)) for c in reversed(coefficients)), "(highest first)")


def tail(series, x):
    """(f(x) - first terms) / x^p without cancellation near zero."""
    return series(x if abs(x) > mp.mpf(10) ** -12 else mp.mpf(10) ** -12)


ln2 = mp.log(2)
half = mp.mpf("0.3470")
show("exp: (exp(r) - 1 - r) / r^2 on +-ln2/2", *(lambda f: (fit(f, -half, half, 5), f, -half, half))(
    lambda r: tail(lambda x: (mp.exp(x) - 1 - x) / x**2, r)))
show("tanh: (tanh(x) / x - 1) / x^2 in x^2 up to 0.625^2", *(lambda f: (fit(f, mp.mpf(0), mp.mpf("0.390625"), 5), f, mp.mpf(0), mp.mpf("0.390625")))(
    lambda u: tail(lambda v: (mp.tanh(mp.sqrt(v)) / mp.sqrt(v) - 1) / v, u)))
show("erf: erf(x) / x - 1 in x^2 up to 1", *(lambda f: (fit(f, mp.mpf(0), mp.mpf(1), 6), f, mp.mpf(0), mp.mpf(1)))(
    lambda u: tail(lambda v: mp.erf(mp.sqrt(v)) / mp.sqrt(v) - 1, u)))
show("erf: -log(erfc(x)) on 1..4 in x - 2", *(lambda f: (fit(f, mp.mpf(-1), mp.mpf(2), 8), f, mp.mpf(-1), mp.mpf(2)))(
    lambda t: -mp.log(mp.erfc(t + 2))))
high = as_f32(mp.mpf(int(ln2 * 2**16)) / 2**16)
print("ln2 high, low:", repr(high), repr(as_f32(ln2 - mp.mpf(high))), " log2(e):", repr(as_f32(1 / ln2)))
