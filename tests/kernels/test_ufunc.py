"""Generated kernels against the same expressions in NumPy, and both against PyTorch."""

import ml_dtypes
import numpy as np
import pytest

from flambeau.kernels import expr as E
from flambeau.kernels.lower_llvm import COMPUTE, EXPANSIONS, INTRINSICS, LIBM, STREAM
from flambeau.kernels.lower_numpy import lower
from flambeau.kernels.ufunc import kernel

x, y, z = E.var("x"), E.var("y"), E.var("z")
FLOATS = [np.dtype(d) for d in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)]
BINARY = set("atan2 pow hypot copysign maximum minimum remainder floordiv".split())
UNARY = sorted((LIBM | set(INTRINSICS) | set(EXPANSIONS) | {"erfinv", "lgamma", "digamma"}) - BINARY - {"imag", "real"})
ALL_BINARY = sorted(BINARY | set("add sub mul div fmod lt le gt ge eq ne logical_and logical_or logical_xor".split()))
TORCH = {"pow": "pow", "floordiv": "floor_divide", "sub": "sub"}

SPECIAL = np.array(
    [
        0,
        -0.0,
        1,
        -1,
        0.5,
        -0.5,
        2,
        -2,
        3,
        0.1,
        1e-30,
        1e-40,
        -1e-40,
        20,
        -20,
        88,
        -88.5,
        -104,
        100,
        1e5,
        -1e5,
        1e30,
        np.inf,
        -np.inf,
        np.nan,
        1.5,
        2.5,
        -2.5,
        0.9999999,
        1e-8,
    ]
)


def by_numpy(k, dtype):
    return lower(k.roots, k.args, k.kinds, dtype, k.name)


def ulps(a, b):
    """The distance of a from b in units of b's last place; nan is at nan, and inf at inf."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype and a.shape == b.shape
    if a.dtype == bool:
        return np.where(a == b, 0, np.inf)
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    eps = float(ml_dtypes.finfo(b.dtype).eps)
    with np.errstate(all="ignore"):
        place = np.maximum(np.abs(b64) * eps / 2, float(ml_dtypes.finfo(b.dtype).smallest_subnormal))
        distance = np.abs(a64 - b64) / place
    same = (a64 == b64) | (np.isnan(a64) & np.isnan(b64))
    distance[same] = 0
    return np.nan_to_num(distance, nan=np.inf)


def values(dtype, seed=0, count=3000):
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        return np.concatenate([SPECIAL, rng.normal(size=count) * 3, rng.uniform(-1, 1, count)]).astype(dtype)


def tolerance(dtype):
    return 10 if dtype.itemsize > 2 else 2  # NumPy and libmvec are each within 4 units of the exact value


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", UNARY)
def test_unary_is_as_numpy(op, dtype):
    k = kernel(getattr(E, op)(x), ("x",), op)
    a = values(dtype)
    if op in ("sinh", "cosh") and dtype == np.float32:  # libmvec is inf from 88.7 on, a little early
        a = a[(np.abs(a) < 88) | ~np.isfinite(a)]
    if op == "erfc":  # SciPy's loses digits as it vanishes
        a = a[np.nan_to_num(a.astype(float)) < 5]
    assert ulps(k(a), by_numpy(k, dtype)(a)).max() <= (tolerance(dtype) if op != "erfc" else 40)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", ALL_BINARY)
def test_binary_is_as_numpy(op, dtype):
    k = kernel(getattr(E, op)(x, y), ("x", "y"), op)
    with np.errstate(all="ignore"):
        special = SPECIAL.astype(dtype)
    grid = [g.ravel() for g in np.meshgrid(special, special)]
    a, b = np.concatenate([grid[0], values(dtype)]), np.concatenate([grid[1], values(dtype, 1)])
    got, expected = k(a, b), by_numpy(k, dtype)(a, b)
    if op == "floordiv":  # NumPy and PyTorch part at infinities and where a quotient is rounded in a narrow dtype
        keep = np.isfinite(a.astype(float)) & np.isfinite(b.astype(float)) & (np.abs(expected.astype(float)) < 100)
        got, expected = got[keep], expected[keep]
    assert ulps(got, expected).max() <= tolerance(dtype)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", UNARY + ALL_BINARY)
def test_is_as_torch(op, dtype):
    torch = pytest.importorskip("torch")
    if op == "conj":
        pytest.skip("the identity")
    inputs = 1 if op in UNARY else 2
    k = kernel(getattr(E, op)(*(x, y)[:inputs]), ("x", "y")[:inputs], op)
    arrays = [values(dtype, i) for i in range(inputs)]
    expected = getattr(torch, TORCH.get(op, op))(*map(torch.from_numpy, arrays)).numpy()
    got = k(*arrays)
    keep = np.ones(len(got), bool)
    if op in ("fmod", "remainder", "floordiv"):  # torch's vectorised fmod gives nan for denormal divisors
        keep = (np.abs(arrays[1]) > 1e-3) & (np.abs(arrays[0]) < 1e4)
    if op == "erfc":  # what comes of SciPy loses digits as it vanishes
        keep = np.nan_to_num(arrays[0]) < 5
    if op in ("lgamma", "digamma"):  # relative accuracy is lost near zeros, by either
        keep = np.abs(expected) > 0.1
    if op in ("sinh", "cosh"):
        keep = (np.abs(arrays[0]) < 88) | ~np.isfinite(arrays[0])
    limit = {"lgamma": 100, "digamma": 100, "erfc": 40}.get(op, 10)
    assert ulps(got[keep], expected[keep]).max() <= limit


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("n", [0, 1, 7, 16, 17, 1000, 100_000])
def test_sizes(n, dtype):
    k = kernel(x * y + 1, ("x", "y"), "size")
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=n).astype(dtype), rng.normal(size=n).astype(dtype)
    got = k(a, b)
    assert got.shape == (n,) and got.dtype == dtype
    np.testing.assert_allclose(
        got.astype(float),
        by_numpy(k, dtype)(a, b).astype(float),
        rtol=float(ml_dtypes.finfo(dtype).eps),
        atol=1e-6,
    )


SHAPES = [
    [(3, 4), (4,)],
    [(3, 1), (1, 5)],
    [(), (3,)],
    [(300, 200), (200,)],
    [(300, 200), (300, 1)],
    [(8, 16, 33, 31), (16, 1, 1)],
    [(5, 1, 7), (6, 1)],
    [(0, 3), (3,)],
    [(20_000, 3), (3,)],
]


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)], ids=str)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("layout", ["C", "F", "reversed", "every other"])
def test_broadcasting_and_strides(shapes, layout, dtype):
    k = kernel((x - y, x < y), ("x", "y"), "both")
    rng = np.random.default_rng(0)
    arrays = []
    for shape in shapes:
        a = rng.normal(size=shape).astype(dtype)
        if layout == "F":
            a = np.asfortranarray(a)
        elif layout == "reversed" and a.ndim:
            a = a[::-1]
        elif layout == "every other" and a.ndim:
            a = np.repeat(a, 2, axis=-1)[..., ::2]
        arrays.append(a)
    with np.errstate(all="ignore"):
        expected = arrays[0] - arrays[1], arrays[0] < arrays[1]
    for function in (k, k.small(dtype), k.large(dtype)):
        difference, less = function(*arrays)
        np.testing.assert_array_equal(difference, expected[0])
        np.testing.assert_array_equal(less, expected[1])
        assert less.dtype == bool


def test_a_value_does_not_depend_on_its_place():
    k = kernel(E.tanh(x) * E.exp(x), ("x",), "place")
    a = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    whole = k(a)
    for i in (0, 3, 15, 16, 199_999):
        assert k(a[i : i + 1])[0] == whole[i]
    np.testing.assert_array_equal(k(a[5:]), whole[5:])
    np.testing.assert_array_equal(k(a[::3]), whole[::3])


def test_in_place():
    k = kernel(x * y + x, ("x", "y"), "inplace")
    a, b = np.arange(50_000, dtype=np.float32).reshape(250, 200), np.arange(200, dtype=np.float32)
    expected = a * b + a
    assert k(a, b, out=a) is a
    np.testing.assert_array_equal(a, expected)


@pytest.mark.parametrize("start", [0, 1, 17])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_results(dtype, start):
    """Those that are stored past the caches: from any address, and nothing beside them."""
    n = STREAM // np.dtype(dtype).itemsize + 5
    times = kernel(E.var("x") * E.var("y"), ("x", "y"), "times")
    values = np.random.default_rng(0).standard_normal(n + 9).astype(dtype)
    x, y, memory = values[:n], values[9:], np.full(n + 40, 7, dtype)
    times(x, y, out=memory[start:start + n])
    np.testing.assert_array_equal(memory[start:start + n], x * y)
    assert (memory[:start] == 7).all()
    assert (memory[start + n:] == 7).all()
    wanted = x * y
    times(x, y, out=y)      # in place, and overlapping
    np.testing.assert_array_equal(y, wanted)


def test_python_numbers_and_truth_values():
    mask, s = E.var("m", "bool"), E.scalar("s")
    k = kernel(E.where(mask, x * s, 0), ("x", "m", "s"), "dropout")
    m = np.array([True, False, True])
    for dtype in FLOATS:
        got = k(np.ones(3, dtype), m, 2.5)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.astype(float), [2.5, 0, 2.5])
    product = kernel(x * mask, ("x", "m"), "times")
    np.testing.assert_array_equal(product(np.ones(3, np.float32), m), [1, 0, 1])


def test_a_number_keeps_its_digits_for_narrow_dtypes():
    k = kernel(x * E.scalar("s"), ("x", "s"), "scaled")
    a = np.full(3, 1000, ml_dtypes.bfloat16)
    assert k(a, 0.999)[0] == ml_dtypes.bfloat16(999)


def test_many_operands_and_results():
    names = [f"v{i}" for i in range(20)]
    variables = [E.var(n) for n in names]
    total = variables[0]
    for v in variables[1:]:
        total = total + v
    k = kernel([total, total * 2, variables[3]], names, "many")
    arrays = [np.full(100, i, np.float32) for i in range(20)]
    a, b, c = k(*arrays)
    assert (a == 190).all() and (b == 380).all() and (c == 3).all()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_integers(dtype):
    a, b = np.array([1, 2, 3], dtype), np.array([3, 2, 1], dtype)
    for op in ("add", "sub", "mul", "maximum", "bitand", "lshift", "floordiv"):
        k = kernel(getattr(E, op)(x, y), ("x", "y"), op)
        assert k(a, b).dtype == dtype
    assert kernel(x * 2 + y, ("x", "y"), "k")(a, b).dtype == dtype
    np.testing.assert_array_equal(kernel(x < y, ("x", "y"), "lt")(a, b), [True, False, False])


def test_truth_values():
    a = np.array([True, False])
    np.testing.assert_array_equal(kernel(E.logical_not(x), ("x",), "not")(a), [False, True])
    np.testing.assert_array_equal(kernel(E.bitxor(x, y), ("x", "y"), "xor")(a, a), [False, False])


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex(dtype):
    a = np.array([1 + 2j, -0.5j], dtype)
    got = kernel(E.exp(x) * x + 1, ("x",), "complex")(a)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, np.exp(a) * a + 1, rtol=1e-6)
    assert kernel(E.real(x), ("x",), "real")(a).dtype == np.zeros(1, dtype).real.dtype


def test_no_warnings(recwarn):
    a = np.array([0.0, -1.0, 1e38, np.nan, 1e-40], np.float32)
    for e in (E.log(x), 1 / x, E.sqrt(x), x * x, E.exp(x), x + x, E.lgamma(x)):
        k = kernel(e, ("x",), "quiet")
        k(a)
        by_numpy(k, a.dtype)(a)
    assert not recwarn.list


def test_missing_argument_is_named():
    with pytest.raises(ValueError, match="y not among"):
        kernel(x + y, ("x",), "f")


def test_every_compiled_dtype_is_tested():
    assert {d.name for d in FLOATS} == set(COMPUTE)
