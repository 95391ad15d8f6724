"""Custom Functions in forward mode and under vmap: a further table of ``function_cases``."""

from importlib import import_module

from tests.autograd.function.function_cases import caught, function, leaf, plain

FORWARD_MODE: dict = {}
VMAP: dict = {}


def case(fn):
    (VMAP if "vmap" in fn.__name__ or "generated" in fn.__name__ else FORWARD_MODE)[fn.__name__] = fn
    return fn


# ---- forward mode -------------------------------------------------------------------------------------------------
def dual(T, forward, jvp=None, *args, constant=(), read=None, **others):
    """Apply a Function to duals whose tangents are all 2, and say what comes out."""
    fw = import_module(T.__name__ + ".autograd.forward_ad")
    args = args or (T.tensor([1.0, 2.0, 3.0]),)
    if jvp is not None:
        others["jvp"] = jvp
    F = function(T, forward, **others)

    def run():
        with fw.dual_level():
            given = [
                fw.make_dual(a, T.full_like(a, 2.0)) if isinstance(a, T.Tensor) and a.is_floating_point() and i not in constant else a
                for i, a in enumerate(args)
            ]
            out = F.apply(*given)
            found = [fw.unpack_dual(o) if isinstance(o, T.Tensor) else o for o in (out if isinstance(out, tuple) else (out,))]
            return [[plain(o.primal), plain(o.tangent)] if hasattr(o, "primal") else o for o in found]

    return caught(run)


def doubled(ctx, x):
    return x * 2


def two(ctx, x):
    return x * 2, x * 3


def third_integer(ctx, x):
    return x * 2, x.long(), x * 3


def dirty(ctx, x):
    x.mul_(2)
    ctx.mark_dirty(x)
    return x


def dirty_by(ctx, x, y):
    x.mul_(y)
    ctx.mark_dirty(x)
    return x


def not_differentiable(ctx, x):
    y = x * 2
    ctx.mark_non_differentiable(y)
    return y


@case
def jvp_results(T):
    return {
        "missing": dual(T, doubled),
        "right": dual(T, doubled, lambda ctx, t: t * 2),
        "too many": dual(T, doubled, lambda ctx, t: (t, t)),
        "too few": dual(T, two, lambda ctx, t: t),
        "two": dual(T, two, lambda ctx, t: (t * 2, t * 3)),
        "one None": dual(T, third_integer, lambda ctx, t: (t * 2, None, t * 3)),
        "a tangent for integers": dual(T, third_integer, lambda ctx, t: (t * 2, t, t * 3)),
        "a tangent for what has none": dual(T, not_differentiable, lambda ctx, t: t * 2),
        "None for what has none": dual(T, not_differentiable, lambda ctx, t: None),
        "tuple of one": dual(T, doubled, lambda ctx, t: (t * 2,)),
        "string": dual(T, doubled, lambda ctx, t: "a"),
        "number": dual(T, doubled, lambda ctx, t: 3.0),
        "list": dual(T, doubled, lambda ctx, t: [t]),
        "shape": dual(T, doubled, lambda ctx, t: T.ones(5)),
        "broadcast": dual(T, doubled, lambda ctx, t: T.ones(())),
        "no tensor": dual(T, lambda ctx, x: (x * 2, 5), lambda ctx, t: (t * 2, None)),
        "short by no tensor": dual(T, lambda ctx, x: (x * 2, 5), lambda ctx, t: t * 2),
        "no tangents given": dual(T, doubled, None, constant=(0,)),
    }


@case
def jvp_views_and_changes(T):
    x = T.tensor([1.0, 2.0, 3.0])
    ones = T.ones(4)
    return {
        "input": dual(T, lambda ctx, x: x, lambda ctx, t: t),
        "input viewed": dual(T, lambda ctx, x: x, lambda ctx, t: t.view_as(t)),
        "input computed": dual(T, lambda ctx, x: x, lambda ctx, t: t * 2),
        "view": dual(T, lambda ctx, x: x[:2], lambda ctx, t: t[:2]),
        "view computed": dual(T, lambda ctx, x: x[:2], lambda ctx, t: t[:2] * 2),
        "view of another": dual(T, lambda ctx, x: x[:2], lambda ctx, t: ones[:2]),
        "no view": dual(T, lambda ctx, x: x[:2] * 2, lambda ctx, t: t[:2]),
        "tangent itself": dual(T, doubled, lambda ctx, t: t),
        "dirty": dual(T, dirty, lambda ctx, t: t.mul_(2), x.clone()),
        "dirty computed": dual(T, dirty, lambda ctx, t: t * 2, x.clone()),
        "dirty None": dual(T, dirty, lambda ctx, t: None, x.clone()),
        "dirty constant": dual(T, dirty_by, lambda ctx, t, s: s * 2, T.ones(3), x.clone(), constant=(0,)),
        "dirty constant in place": dual(T, dirty_by, lambda ctx, t, s: t.add_(s), T.ones(3), x.clone(), constant=(0,)),
    }


@case
def what_jvp_sees(T):
    seen = []

    def jvp(ctx, *tangents):
        seen.append([plain(tangents), list(ctx.needs_input_grad), T.is_grad_enabled(), plain(ctx.saved_tensors)])
        return tangents[0]

    def plainly(ctx, x, y, k, i):
        return x * 2

    def unmaterialized(ctx, x, y, k, i):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return x * 2

    def saving(ctx, x, y, k, i):
        ctx.save_for_forward(x, None, y)
        ctx.save_for_backward(y)
        return x * 2

    args = (T.tensor([1.0, 2.0, 3.0]), T.ones(3), 3, T.ones(2).long())
    results = [dual(T, f, jvp, *args, constant=(1,)) for f in (plainly, unmaterialized, saving)]
    return [results, seen]


@case
def jvp_with_setup_context(T):
    def setup(ctx, inputs, output):
        ctx.k = inputs[1]
        ctx.save_for_forward(inputs[0], output)

    def jvp(ctx, t, _):
        x, y = ctx.saved_tensors
        return t * ctx.k + 0 * x * y

    return dual(T, lambda x, k: x * k, jvp, T.tensor([1.0, 2.0]), 7, setup_context=setup)


@case
def jvp_error(T):
    def jvp(ctx, t):
        raise ValueError("mine")

    return dual(T, doubled, jvp)


def product(T, **others):
    """x * y with every rule."""

    def setup(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g * y, g * x

    def jvp(ctx, s, t):
        x, y = ctx.saved_tensors
        return s * y + x * t

    return function(T, lambda x, y: x * y, backward, "Product", setup, jvp=jvp, **others)


@case
def reverse_over_forward(T):
    fw = import_module(T.__name__ + ".autograd.forward_ad")
    F = product(T)
    y = leaf(T)
    with fw.dual_level():
        x = fw.make_dual(T.ones(3), T.ones(3) * 3)
        t = fw.unpack_dual(F.apply(x, y)).tangent
        (g,) = T.autograd.grad(t.sum(), y)
    return [plain(t.detach()), plain(g)]


@case
def func_transforms(T):
    F = product(T)
    x, y, v = T.tensor([1.0, 2.0]), T.tensor([3.0, 4.0]), T.tensor([1.0, 0.5])

    def cube(x):
        return F.apply(x, F.apply(x, x)).sum()

    return {
        "grad": caught(T.func.grad(lambda x: F.apply(x, y).sum()), x),
        "jvp": caught(lambda: T.func.jvp(lambda x: F.apply(x, y), (x,), (v,))),
        "vjp": caught(lambda: T.func.vjp(lambda x: F.apply(x, y), x)[1](v)),
        "grad of grad": caught(T.func.grad(lambda x: T.func.grad(cube)(x).sum()), x),
        "jvp of grad": caught(lambda: T.func.jvp(T.func.grad(cube), (x,), (v,))),
        "grad of jvp": caught(T.func.grad(lambda x: T.func.jvp(cube, (x,), (v,))[1]), x),
    }


# ---- vmap ---------------------------------------------------------------------------------------------------------
def rows(T, n=3):
    return T.arange(2.0 * n).reshape(n, 2) + 1


def mapped(T, rule, *args, in_dims=0, **options):
    """Map a Function x * y with the given vmap staticmethod; returns the result and what the rule was told."""
    seen = []

    def vmap(info, dims, *values):
        seen.append([info.batch_size, info.randomness, plain(dims), [list(v.shape) if isinstance(v, T.Tensor) else plain(v) for v in values]])
        return rule(info, dims, *values)

    F = function(T, lambda x, y: x * y, lambda ctx, g: (g, g), "Product", lambda ctx, inputs, output: None, vmap=vmap)
    return [caught(lambda: T.func.vmap(F.apply, in_dims=in_dims, **options)(*args)), seen]


@case
def vmap_staticmethod(T):
    x, y = rows(T), T.tensor([1.0, 10.0])
    return {
        "both": mapped(T, lambda info, dims, x, y: (x * y, 0), x, x),
        "one": mapped(T, lambda info, dims, x, y: (x * y, 0), x, y, in_dims=(0, None)),
        "other dimension": mapped(T, lambda info, dims, x, y: ((x.movedim(dims[0], 0) * y).t(), 1), x.t(), y, in_dims=(1, None))[0],
        "number": mapped(T, lambda info, dims, x, y: (x * y, 0), x, 3, in_dims=(0, None)),
        "randomness": mapped(T, lambda info, dims, x, y: (x * y, 0), x, x, randomness="same"),
        "no batch comes out": mapped(T, lambda info, dims, x, y: ((x * y).sum(0), None), x, x),
        "tuple": mapped(T, lambda info, dims, x, y: ((x, x * y), (0, 0)), x, x),
        "one dimension for a tuple": mapped(T, lambda info, dims, x, y: ((x * 1, x * y), 0), x, x),
        "no tuple": mapped(T, lambda info, dims, x, y: x * y, x, x),
        "three": mapped(T, lambda info, dims, x, y: (x, 0, 0), x, x),
        "wrong structure": mapped(T, lambda info, dims, x, y: (x * y, (0, 0)), x, x),
        "a list of numbers": mapped(T, lambda info, dims, x, y: (x * sum(y), 0), x, [1, 2], in_dims=(0, None)),
        "a list of tensors": mapped(T, lambda info, dims, x, ys: (x * ys[0] * ys[1], 0), x, [x, y], in_dims=(0, [0, None])),
    }


@case
def vmap_missing_or_doubled(T):
    plainly = product(T)
    doubled = product(T, generate_vmap_rule=True, vmap=lambda info, dims, x, y: (x * y, 0))
    return [caught(T.func.vmap(F.apply), rows(T), rows(T)) for F in (plainly, doubled)] + [caught(plainly.vmap, None, None)]


@case
def gradients_through_a_vmap_staticmethod(T):
    F = None

    def vmap(info, dims, x, y):
        return F.apply(x, y if dims[1] is not None else y.expand(info.batch_size, 2)), 0

    F = product(T, vmap=vmap)
    x, y = rows(T).requires_grad_(), T.tensor([1.0, 10.0], requires_grad=True)
    out = T.func.vmap(F.apply, in_dims=(0, None))(x, y)
    out.sum().backward()
    return [plain(out.detach()), plain(x.grad), plain(y.grad), plain(T.func.vmap(T.func.grad(lambda x: F.apply(x, x).sum()))(rows(T)))]


@case
def generated_rule(T):
    F = product(T, generate_vmap_rule=True)
    x, y, v = rows(T), T.tensor([1.0, 10.0]), T.tensor([1.0, 0.5])
    vmap, func = T.func.vmap, T.func

    def cube(x):
        return F.apply(x, F.apply(x, x)).sum()

    def backwards(in_dims, *args):
        args = [a.clone().requires_grad_() for a in args]
        out = vmap(F.apply, in_dims=in_dims)(*args)
        out.sum().backward()
        return [plain(out.detach()), [plain(a.grad) for a in args]]

    return {
        "values": caught(vmap(F.apply), x, x),
        "unbatched": caught(vmap(F.apply, in_dims=(0, None)), x, y),
        "other dimensions": caught(vmap(F.apply, in_dims=(1, 0), out_dims=1), x.t(), x),
        "backward": caught(backwards, (0, 0), x, x),
        "backward to the unbatched": caught(backwards, (0, None), x, y),
        "backward to what was broadcast": caught(backwards, (0, 0), x, T.tensor([1.0, 2.0, 3.0])),
        "backward to the unbatched that was broadcast": caught(backwards, (0, None), x, T.tensor(2.0)),
        "backward, wide by narrow": caught(backwards, (None, 0), x, T.tensor([1.0, 2.0, 3.0])),
        "grad": caught(vmap(func.grad(cube)), x),
        "grad of vmap": caught(func.grad(lambda x: vmap(cube)(x).sum()), x),
        "vmap of vmap": caught(vmap(vmap(F.apply)), x, x),
        "vmap of vmap, crossed": caught(vmap(vmap(F.apply, in_dims=(0, None)), in_dims=(None, 0)), y, T.tensor([1.0, 2.0, 3.0])),
        "jvp": caught(lambda: func.jvp(vmap(lambda x: F.apply(x, y)), (x,), (T.ones(3, 2),))),
        "vmap of jvp": caught(lambda: vmap(lambda x: func.jvp(lambda x: F.apply(x, y), (x,), (v,)))(x)),
        "vmap of tangents": caught(lambda: vmap(lambda v: func.jvp(lambda x: F.apply(x, y), (y,), (v,)))(x)),
        "jacrev": caught(func.jacrev(lambda x: F.apply(x, x)), y),
        "jacfwd": caught(func.jacfwd(lambda x: F.apply(x, x)), y),
        "hessian": caught(func.hessian(cube), y),
        "vmap of hessian": caught(vmap(func.hessian(cube)), x),
        "grad of vmap of grad of vmap": caught(func.grad(lambda x: vmap(func.grad(lambda r: vmap(cube)(r[:, None]).sum()))(x).sum()), x),
    }


@case
def generated_rule_of_further_functions(T):
    def sums(x, k):
        return x.sum() * k, x * 2, k

    def setup(ctx, inputs, output):
        ctx.shape, ctx.k = inputs[0].shape, inputs[1]

    def backward(ctx, g, h, _):
        return g.expand(ctx.shape) * ctx.k + 2 * h, None

    F = function(T, sums, backward, "Sums", setup, generate_vmap_rule=True)
    x = rows(T).requires_grad_()
    s, d, k = T.func.vmap(F.apply, in_dims=(0, None), out_dims=(0, 0, None))(x, 3)
    (s.sum() + d.sum()).backward()
    unbatched = function(T, lambda x: T.ones(2), lambda ctx, g: None, "Ones", lambda ctx, i, o: None, generate_vmap_rule=True)
    return [plain(s.detach()), plain(d.detach()), k, plain(x.grad), caught(T.func.vmap(unbatched.apply), rows(T))]


@case
def generated_rule_with_marks(T):
    seen = []

    def setup(ctx, inputs, output):
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], output[0])
        ctx.set_materialize_grads(False)

    def backward(ctx, g, _, h):
        mask, y = ctx.saved_tensors
        seen.append([plain(h), list(ctx.needs_input_grad), list(y.shape)])
        return g * mask

    F = function(T, lambda x: (x * 2, x > 2, x * 3), backward, "Masked", setup, generate_vmap_rule=True)
    x = rows(T).requires_grad_()
    y, mask, other = T.func.vmap(F.apply)(x)
    (y * T.tensor([1.0, 10.0])).sum().backward()
    return [plain(y.detach()), plain(mask), plain(x.grad), seen]
