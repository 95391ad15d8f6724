"""Small custom Functions: what they return, and the errors they raise, must be what PyTorch's are.

A case takes the library as ``T`` and returns plain values. ``caught`` gives an error as its type and the first line of
its message. ``python -m tests.autograd.function.function_cases`` writes what PyTorch says to ``function_cases.json``.
"""

import json
import warnings
from pathlib import Path

CASES = {}


def case(fn):
    CASES[fn.__name__] = fn
    return fn


def caught(fn, *args, **kwargs):
    try:
        return plain(fn(*args, **kwargs))
    except Exception as e:
        return f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"


def warned(fn, *args, **kwargs):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = caught(fn, *args, **kwargs)
    return result, [(w.category.__name__, str(w.message).splitlines()[0]) for w in seen]


def plain(x):
    """Tensors as (values, requires_grad), the rest as it is."""
    if hasattr(x, "tolist") and hasattr(x, "requires_grad"):
        return [x.tolist(), x.requires_grad, str(x.dtype)]
    if isinstance(x, (tuple, list)):
        return [type(x).__name__, *[plain(i) for i in x]]
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    if x is None or isinstance(x, (int, float, str, bool)):
        return x
    return type(x).__name__


def function(T, forward, backward=None, name="Fn", setup_context=None, **others):
    methods = {"forward": staticmethod(forward)}
    if backward is not None:
        methods["backward"] = staticmethod(backward)
    if setup_context is not None:
        methods["setup_context"] = staticmethod(setup_context)
    for key, value in others.items():
        methods[key] = staticmethod(value) if callable(value) else value
    return type(T.autograd.Function)(name, (T.autograd.Function,), methods)


def recorded():
    return json.loads(Path(__file__).with_suffix(".json").read_text())


def result(fn, T):
    """What a case returns, as JSON would keep it; names and versions of the library left out."""

    def clean(x):
        if isinstance(x, str):
            return x.replace("flambeau", "torch").split(" Hint: enable anomaly")[0]
        if isinstance(x, dict):
            return {k: clean(v) for k, v in x.items()}
        return [clean(i) for i in x] if isinstance(x, (list, tuple)) else x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clean(json.loads(json.dumps(fn(T), default=repr)))


def leaf(T, *values):
    return T.tensor(list(values) or [1.0, 2.0, 3.0], requires_grad=True)


def double(T):
    return function(T, lambda ctx, x: x * 2, lambda ctx, g: g * 2, "Double")


def square(T):
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g

    return function(T, forward, backward, "Square")


# ---- what forward returns -----------------------------------------------------------------------------------------
def returning(T, make):
    """Apply a Function whose forward returns ``make(x)``, and say what comes out."""
    x = leaf(T)
    F = function(T, lambda ctx, x: make(x), lambda ctx, *gs: x * 0 + len(gs))

    def run():
        out = F.apply(x)
        tensors = [o for o in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(o, T.Tensor)]
        kinds = [(type(o.grad_fn).__name__, o.output_nr, o.requires_grad) for o in tensors]
        total = sum([t.sum() for t in tensors if t.requires_grad])
        if isinstance(total, T.Tensor):
            total.backward()
        return [plain(out), kinds, plain(x.grad)]

    return caught(run)


@case
def outputs_of_every_kind(T):
    return {
        "tensor": returning(T, lambda x: x * 2),
        "tuple": returning(T, lambda x: (x * 2, x * 3)),
        "tuple of one": returning(T, lambda x: (x * 2,)),
        "list": returning(T, lambda x: [x * 2, x * 3]),
        "empty tuple": returning(T, lambda x: ()),
        "None": returning(T, lambda x: None),
        "int": returning(T, lambda x: 3),
        "with None": returning(T, lambda x: (x * 2, None)),
        "with others": returning(T, lambda x: (x * 2, 5, "word", [x * 3])),
        "dict": returning(T, lambda x: {"a": x * 2}),
        "nested tuple": returning(T, lambda x: (x * 2, (x * 3,))),
        "integers": returning(T, lambda x: (x * 2, x.long())),
        "only integers": returning(T, lambda x: x.long()),
        "bool": returning(T, lambda x: x > 1),
        "constant": returning(T, lambda x: T.ones(2)),
        "twice the same": returning(T, lambda x: (lambda y: (y, y))(x * 2)),
        "the input": returning(T, lambda x: x),
        "the input and more": returning(T, lambda x: (x, x * 2)),
        "a view": returning(T, lambda x: x[:2]),
        "view_as": returning(T, lambda x: x.view_as(x)),
        "detached": returning(T, lambda x: x.detach()),
        "views": returning(T, lambda x: (x[:1], x[1:])),
    }


@case
def no_gradient_wanted(T):
    F = double(T)
    x = leaf(T)
    constant = F.apply(T.ones(2))
    with T.no_grad():
        off = F.apply(x)
    return [plain(constant), plain(off), constant.grad_fn is None, off.grad_fn is None]


@case
def input_returned_without_gradient(T):
    F = function(T, lambda ctx, x: x, lambda ctx, g: g)
    x = T.ones(2)
    y = F.apply(x)
    with T.no_grad():
        z = F.apply(leaf(T))
    return [y is x, plain(y), plain(z), y._is_view(), z._is_view()]


@case
def constant_outputs_that_require_grad(T):
    other = leaf(T)
    F = function(T, lambda ctx, x: other, lambda ctx, g: g)
    y = F.apply(leaf(T, 1.0, 1.0, 1.0))
    return [y is other, type(y.grad_fn).__name__, y.requires_grad, other.requires_grad]


@case
def intermediate_outputs_lose_history(T):
    other = leaf(T)
    mid = other * 2
    F = function(T, lambda ctx, x: mid, lambda ctx, g: g * 5)
    x = leaf(T, 1.0, 1.0, 1.0)

    def run():
        y = F.apply(x)
        y.sum().backward()
        return [y is mid, type(y.grad_fn).__name__, plain(x.grad), plain(other.grad)]

    return caught(run)


# ---- ctx ----------------------------------------------------------------------------------------------------------
@case
def ctx_during_forward(T):
    seen = {}

    def forward(ctx, x, k, y):
        seen["needs"] = ctx.needs_input_grad
        seen["type"] = type(ctx).__name__
        seen["name"] = ctx.name()
        seen["to_save"] = getattr(ctx, "to_save", "none")
        seen["dirty"] = ctx.dirty_tensors
        seen["nondiff"] = ctx.non_differentiable
        seen["saved_for_forward"] = ctx.saved_for_forward
        seen["next"] = caught(lambda: ctx.next_functions)
        seen["grad"] = T.is_grad_enabled()
        seen["x"] = (x.requires_grad, x.grad_fn is None)
        ctx.save_for_backward(x, None, y)
        seen["to_save after"] = plain(ctx.to_save)
        seen["saved now"] = caught(lambda: ctx.saved_tensors)
        ctx.k = k
        return x * k

    def backward(ctx, g):
        seen["saved"] = plain(ctx.saved_tensors)
        seen["grad in backward"] = T.is_grad_enabled()
        seen["to_save in backward"] = caught(lambda: ctx.to_save)
        seen["needs in backward"] = ctx.needs_input_grad
        return g * ctx.k, None, None

    F = function(T, forward, backward)
    x = leaf(T)
    F.apply(x, 3, T.ones(1)).sum().backward()
    return [{k: v if k in ("needs", "x") else plain(v) for k, v in seen.items()}, plain(x.grad)]


@case
def what_may_be_saved(T):
    def saving(*things):
        F = function(T, lambda ctx, x: (ctx.save_for_backward(*things), x * 2)[1], lambda ctx, g: (ctx.saved_tensors, g)[1])
        x = leaf(T)
        F.apply(x).sum().backward()
        return x.grad

    return {
        "number": caught(saving, 3),
        "list": caught(saving, [T.ones(1)]),
        "None": caught(saving, None),
        "nothing": caught(saving),
        "string": caught(saving, T.ones(1), "x"),
    }


@case
def saved_freed(T):
    F = square(T)
    x = leaf(T)
    y = F.apply(x).sum()
    node = y.grad_fn.next_functions[0][0]
    before = plain(node.saved_tensors)
    y.backward()
    return [before, caught(lambda: node.saved_tensors), caught(y.backward), caught(lambda: node.saved_variables),
            caught(lambda: node._raw_saved_tensors)]


@case
def nothing_saved_may_run_twice(T):
    x = leaf(T)
    y = double(T).apply(x).sum()
    node = y.grad_fn.next_functions[0][0]
    return [plain(node.saved_tensors), plain(node.apply(T.ones(3))), caught(lambda: (double(T).apply(x).backward(T.ones(3), retain_graph=False)))]


@case
def function_backward_twice_without_saving(T):
    x = leaf(T)
    y = double(T).apply(x)
    y.backward(T.ones(3))
    first = plain(x.grad)
    return [first, caught(lambda: y.backward(T.ones(3))), plain(x.grad)]


@case
def saved_input_changed(T):
    x = leaf(T) * 1
    y = square(T).apply(x)
    with T.no_grad():
        x.add_(1)
    return caught(y.sum().backward)


@case
def saved_intermediate(T):
    def forward(ctx, x):
        mid = x.exp()
        ctx.save_for_backward(mid)
        ctx.mid = mid
        return mid * 2

    def backward(ctx, g):
        (mid,) = ctx.saved_tensors
        return g * mid * 2

    F = function(T, forward, backward)
    x = T.zeros(2, requires_grad=True)
    y = F.apply(x)
    y.grad_fn.mid.add_(1)
    return [caught(y.sum().backward)]


@case
def saved_output_changed(T):
    def forward(ctx, x):
        y = x * 2
        ctx.save_for_backward(y)
        return y

    F = function(T, forward, lambda ctx, g: g * ctx.saved_tensors[0], "Out")
    x = leaf(T)
    y = F.apply(x)
    saved = y.grad_fn.saved_tensors[0]
    facts = [type(saved.grad_fn).__name__, saved.output_nr, saved.requires_grad]
    y.add_(1)
    return [facts, type(y.grad_fn).__name__, caught(y.sum().backward)]


@case
def saved_tensors_identity(T):
    F = square(T)
    x = leaf(T)
    y = F.apply(x)
    node = y.grad_fn
    first, second = node.saved_tensors[0], node.saved_tensors[0]
    return [first is x, first is second, type(node.saved_tensors).__name__, len(node.saved_variables), type(node._raw_saved_tensors[0]).__name__,
            len(node._raw_saved_tensors)]


@case
def save_for_backward_twice_keeps_the_last(T):
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_backward(x * 2, x * 3)
        return x * 2

    seen = []
    F = function(T, forward, lambda ctx, g: (seen.append(len(ctx.saved_tensors)), g)[1])
    F.apply(leaf(T)).sum().backward()
    return seen


@case
def setup_context_form(T):
    seen = []

    def setup(ctx, inputs, output):
        seen.append((type(inputs).__name__, len(inputs), plain(output), T.is_grad_enabled(), inputs[0].requires_grad))
        ctx.k = inputs[1]
        ctx.save_for_backward(inputs[0], output)

    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g * ctx.k + 0 * y, None

    F = function(T, lambda x, k=2.0: x * k, backward, setup_context=setup)
    x = leaf(T)
    F.apply(x, 3.0).sum().backward()
    F.apply(x, k=4.0).sum().backward()
    F.apply(x).sum().backward()
    return [[list(map(plain, s)) for s in seen], plain(x.grad), caught(F.apply), caught(F.apply, x, 1, 2), caught(F.apply, x, z=1)]


@case
def setup_context_returning_something(T):
    F = function(T, lambda x: x * 2, lambda ctx, g: g, setup_context=lambda ctx, inputs, output: 3)
    return caught(F.apply, leaf(T))


@case
def keywords_without_setup_context(T):
    F = function(T, lambda ctx, x, k=1: x * k, lambda ctx, g: (g, None))
    G = function(T, lambda ctx, x, *, k=1: x * k, lambda ctx, g: g)
    return [caught(F.apply, leaf(T), k=3), caught(G.apply, leaf(T), k=3), caught(F.apply, x=leaf(T)), caught(F.apply, leaf(T), j=3)]


@case
def ctx_attributes(T):
    def forward(ctx, x, y):
        ctx.factor, ctx.words = 3, ["a"]
        return x * y

    F = function(T, forward, lambda ctx, g: (g, g))
    y = F.apply(leaf(T), leaf(T))
    node = y.grad_fn
    node.later = 5
    return [node.factor, node.words, y.grad_fn.later, sorted(vars(node)), y.grad_fn is node, node.requires_grad, caught(lambda: node.missing)]


# ---- in place -----------------------------------------------------------------------------------------------------
def in_place(T, name="InPlace", mark=True, give=True):
    def forward(ctx, x):
        x.mul_(2)
        if mark:
            ctx.mark_dirty(x)
        return x if give else x.clone()

    return function(T, forward, lambda ctx, g: g * 2, name)


@case
def mark_dirty_in_every_case(T):
    def on(make, F):
        x = leaf(T)
        y = make(x)

        def run():
            z = F.apply(y)
            result = [z is y, type(z.grad_fn).__name__, z._version, z.requires_grad]
            if z.requires_grad:
                z.sum().backward()
            return [*result, plain(z.detach()), plain(x.grad)]

        return caught(run)

    F = in_place(T)
    return {
        "intermediate": on(lambda x: x * 1, F),
        "leaf": on(lambda x: x, F),
        "constant": on(lambda x: x.detach().clone(), F),
        "view of intermediate": on(lambda x: (x * 1)[:2], F),
        "view of leaf": on(lambda x: x[:2], F),
        "multi view": on(lambda x: (x * 1).chunk(3)[0], F),
        "not returned": on(lambda x: x * 1, in_place(T, give=False)),
        "not marked": on(lambda x: x * 1, in_place(T, mark=False)),
        "neither": on(lambda x: x * 1, in_place(T, mark=False, give=False)),
    }


@case
def mark_dirty_of_something_else(T):
    F = function(T, lambda ctx, x: (ctx.mark_dirty(T.ones(2)), x * 2)[1], lambda ctx, g: g)
    G = function(T, lambda ctx, x: (ctx.mark_dirty(3), x * 2)[1], lambda ctx, g: g)
    H = function(T, lambda ctx, x: (lambda y: (ctx.mark_dirty(y), y)[1])(x * 2), lambda ctx, g: g)
    return [caught(F.apply, leaf(T)), caught(G.apply, leaf(T))[:63], caught(H.apply, leaf(T))]  # the message breaks off


@case
def dirty_view_rewrites_its_base(T):
    x = leaf(T)
    base = x * 1
    view = base[:2]
    in_place(T).apply(view)
    base.sum().backward()
    return [type(base.grad_fn).__name__, plain(x.grad), plain(base.detach())]


@case
def dirty_base_with_a_view(T):
    x = leaf(T)
    base = x * 1
    view = base[:2]
    in_place(T).apply(base)
    name = type(view.grad_fn).__name__
    view.sum().backward()
    return [name, plain(x.grad), plain(view.detach())]


@case
def dirty_with_another_output(T):
    def forward(ctx, x, y):
        x.add_(y)
        ctx.mark_dirty(x)
        return x, y * 3

    F = function(T, forward, lambda ctx, g, h: (g, g + 3 * h))
    a, b = leaf(T), leaf(T)
    x = a * 1
    y, z = F.apply(x, b)
    (y.sum() + z.sum()).backward()
    return [y is x, z.output_nr, plain(a.grad), plain(b.grad)]


@case
def dirty_and_not_differentiable(T):
    def forward(ctx, x):
        x.add_(1)
        ctx.mark_dirty(x)
        ctx.mark_non_differentiable(x)
        return x

    F = function(T, forward, lambda ctx, g: g)
    x = leaf(T) * 1
    c = T.ones(2)

    def run(t):
        y = F.apply(t)
        return [y is t, y.requires_grad, y.grad_fn is None, y._version]

    return [caught(run, x), caught(run, c), caught(run, leaf(T))]


@case
def dirty_constant_of_two(T):
    def forward(ctx, a, b):
        a.add_(b)
        ctx.mark_dirty(a)
        return a

    F = function(T, forward, lambda ctx, g: (None, g))
    a, b = T.zeros(3), leaf(T)
    y = F.apply(a, b)
    y.sum().backward()
    return [y is a, a.requires_grad, plain(b.grad), a._version]


@case
def dirty_leaf_under_no_grad(T):
    x = leaf(T)
    with T.no_grad():
        y = in_place(T).apply(x)
    return [y is x, x.requires_grad, x.is_leaf, x._version, plain(x)]


@case
def dirty_twice_given(T):
    def forward(ctx, a, b):
        a.add_(1)
        ctx.mark_dirty(a)
        return a

    F = function(T, forward, lambda ctx, g: (g, g))
    x = leaf(T)
    y = x * 1

    def run():
        z = F.apply(y, y)
        z.sum().backward()
        return [z is y, plain(x.grad)]

    return caught(run)


@case
def dirty_returned_twice(T):
    def forward(ctx, a):
        a.add_(1)
        ctx.mark_dirty(a)
        return a, a

    F = function(T, forward, lambda ctx, g, h: g + 2 * h)
    x = leaf(T)
    y = x * 1

    def run():
        z, w = F.apply(y)
        (z.sum() + w.sum()).backward()
        return [z is y, w is y, z.output_nr, plain(x.grad)]

    return caught(run)


# ---- views --------------------------------------------------------------------------------------------------------
@case
def changing_a_returned_view(T):
    def attempt(make, change=lambda y: y.mul_(2), on=lambda x: x * 1):
        x = leaf(T)
        F = function(T, lambda ctx, t: make(t), lambda ctx, *gs: x * 0 + 7, "View")

        def run():
            out = F.apply(on(x))
            y = out[0] if isinstance(out, tuple) else out
            facts = [y._is_view(), y._base is not None]
            change(y)
            y.sum().backward()
            return [facts, type(y.grad_fn).__name__, plain(x.grad)]

        return caught(run)

    def under_no_grad(y):
        with T.no_grad():
            y.mul_(2)

    return {
        "view of input": attempt(lambda t: t[:2]),
        "view_as": attempt(lambda t: t.view_as(t)),
        "input": attempt(lambda t: t),
        "two views": attempt(lambda t: (t[:1], t[1:])),
        "view and another": attempt(lambda t: (t[:1], t * 2)),
        "another and view": attempt(lambda t: (t * 2, t[:1])),
        "view of a local": attempt(lambda t: (t * 2)[:2]),
        "input and more": attempt(lambda t: (t, t * 2)),
        "under no_grad": attempt(lambda t: t[:2], under_no_grad),
        "detached": attempt(lambda t: t.detach()),
        "of a leaf": attempt(lambda t: t[:2], on=lambda x: x),
        "leaf itself": attempt(lambda t: t, on=lambda x: x),
        "a view given and returned": attempt(lambda t: t, on=lambda x: (x * 1)[:2]),
    }


@case
def changing_the_base_of_a_returned_view(T):
    x = leaf(T)
    base = x * 1
    F = function(T, lambda ctx, t: t[:2], lambda ctx, g: T.cat([g * 5, g[:1] * 0]), "View")
    y = F.apply(base)
    base.mul_(3)

    def run():
        name = type(y.grad_fn).__name__
        y.sum().backward()
        return [name, plain(y.detach()), plain(x.grad)]

    return caught(run)


@case
def changing_the_base_of_two_returned_views(T):
    x = leaf(T)
    base = x * 1
    F = function(T, lambda ctx, t: (t[:2], t[2:]), lambda ctx, g, h: T.cat([g * 5, h * 7]), "View")
    y, z = F.apply(base)
    base.mul_(3)

    def run():
        name = type(y.grad_fn).__name__
        y.sum().backward()
        return [name, plain(y.detach()), plain(x.grad)]

    return caught(run)


@case
def a_view_and_its_changed_base(T):
    def run(change):
        def forward(ctx, x):
            v = x[:2]
            x.mul_(2)
            ctx.mark_dirty(x)
            return v, x

        F = function(T, forward, lambda ctx, g, h: h + T.cat([g, g[:1] * 0]), "Both")
        x = leaf(T)
        y = x * 1
        v, z = F.apply(y)
        if change:
            y.mul_(3)
        (v.sum() + z.sum()).backward()
        return [z is y, v.output_nr, v._version, plain(x.grad)]

    return [caught(run, False), caught(run, True)]


@case
def an_output_given_twice_and_saved(T):
    seen = []

    def forward(ctx, x):
        y = x * 2
        ctx.save_for_backward(y, x > 1)
        return y, y

    def backward(ctx, g, h):
        y, mask = ctx.saved_tensors
        seen.append([y.output_nr, y.requires_grad, mask.requires_grad, plain(g), plain(h)])
        return (g + h) * y

    F = function(T, forward, backward)
    x = leaf(T)
    F.apply(x)[0].sum().backward()
    return [seen, plain(x.grad)]


# ---- what backward receives and returns ---------------------------------------------------------------------------
@case
def materialize_grads(T):
    seen = []

    def run(setting):
        def forward(ctx, x):
            if setting is not None:
                ctx.set_materialize_grads(setting)
            return x * 2, x * 3, x.long()

        F = function(T, forward, lambda ctx, *gs: (seen.append([plain(g) for g in gs]), gs[0])[1])
        x = leaf(T)
        F.apply(x)[0].sum().backward()
        return plain(x.grad)

    return [run(None), run(True), run(False), seen]


@case
def no_gradient_arrives(T):
    seen = []
    undefined = function(T, lambda ctx, x: x * 1, lambda ctx, g: None, "Undefined")

    def run(setting):
        def forward(ctx, x):
            ctx.set_materialize_grads(setting)
            return x * 2

        F = function(T, forward, lambda ctx, g: (seen.append(plain(g)), g)[1])
        x = leaf(T)
        undefined.apply(F.apply(x)).sum().backward()
        return plain(x.grad)

    return [run(True), run(False), seen]


@case
def set_materialize_grads_checks(T):
    def attempt(value):
        F = function(T, lambda ctx, x: (ctx.set_materialize_grads(value), x * 2)[1], lambda ctx, g: g)
        return F.apply(leaf(T))

    return [caught(attempt, v) for v in (True, False, 1, None, "x")]


@case
def non_differentiable(T):
    seen = []

    def forward(ctx, x):
        values, index = x.sort()
        other = x * 3
        ctx.mark_non_differentiable(index, other)
        return values, index, other

    def backward(ctx, g, i, o):
        seen.append([plain(g), plain(i), plain(o)])
        return g

    F = function(T, forward, backward)
    x = leaf(T)
    v, i, o = F.apply(x)
    v.sum().backward()
    return [v.requires_grad, i.requires_grad, o.requires_grad, o.grad_fn is None, plain(x.grad), seen]


@case
def non_differentiable_input(T):
    F = function(T, lambda ctx, x: (ctx.mark_non_differentiable(x), x)[1], lambda ctx, g: g)
    G = function(T, lambda ctx, x: (ctx.mark_non_differentiable(3), x * 2)[1], lambda ctx, g: g)
    x = leaf(T)

    def run(F):
        y = F.apply(x)
        return [y is x, y.requires_grad, x.requires_grad, y.grad_fn is None]

    return [caught(run, F), caught(run, G)[:77]]  # the message breaks off


def gradients(T, give, inputs=None, outputs=lambda *a: a[0] * 2):
    """What becomes of it when backward returns ``give(g)``."""
    xs = [leaf(T)] if inputs is None else inputs
    F = function(T, lambda ctx, *a: outputs(*a), lambda ctx, *gs: give(*gs), "Given")

    def run():
        F.apply(*xs).sum().backward()
        return [plain(x.grad) if isinstance(x, T.Tensor) else None for x in xs]

    return caught(run)


@case
def gradients_returned(T):
    other = lambda: [leaf(T), 3]  # noqa: E731
    two = lambda: [leaf(T), leaf(T)]  # noqa: E731
    return {
        "one": gradients(T, lambda g: g),
        "tuple": gradients(T, lambda g: (g,)),
        "list": gradients(T, lambda g: [g]),
        "None": gradients(T, lambda g: None),
        "too many Nones": gradients(T, lambda g: (g, None, None)),
        "too many": gradients(T, lambda g: (g, g)),
        "none at all": gradients(T, lambda g: ()),
        "too few": gradients(T, lambda g: g, two()),
        "two": gradients(T, lambda g: (g, g * 2), two()),
        "one None of two": gradients(T, lambda g: (None, g * 2), two()),
        "for a number": gradients(T, lambda g: (g, g), other()),
        "None for a number": gradients(T, lambda g: (g, None), other()),
        "short by a number": gradients(T, lambda g: g, other()),
        "a number": gradients(T, lambda g: 3.0),
        "a string": gradients(T, lambda g: "x"),
        "numbers": gradients(T, lambda g: (3.0, 2.0), two()),
        "wrong shape": gradients(T, lambda g: T.ones(5)),
        "more dimensions": gradients(T, lambda g: T.ones(2, 3)),
        "broadcast": gradients(T, lambda g: T.ones(())),
        "one wide": gradients(T, lambda g: T.ones(1)),
        "reducible": gradients(T, lambda g: T.ones(4, 3), [T.ones(1, requires_grad=True)]),
        "empty": gradients(T, lambda g: T.ones(0)),
        "double": gradients(T, lambda g: g.double()),
        "half": gradients(T, lambda g: g.half()),
        "integer": gradients(T, lambda g: g.long()),
        "bool": gradients(T, lambda g: g > 0),
        "complex input": gradients(T, lambda g: g.real, [T.ones(2, dtype=T.complex64, requires_grad=True)], lambda a: a.abs()),
        "for a constant": gradients(T, lambda g: (g, g), [leaf(T), T.ones(3)]),
        "wrong for a constant": gradients(T, lambda g: (g, T.ones(7)), [leaf(T), T.ones(3)]),
        "for integers": gradients(T, lambda g: (g, T.ones(7)), [leaf(T), T.ones(3).long()]),
        "dict": gradients(T, lambda g: {"a": g}),
        "the node's input": gradients(T, lambda g: (g, g), [leaf(T), None]),
    }


@case
def backward_missing(T):
    F = function(T, lambda ctx, x: x * 2)
    return caught(F.apply(leaf(T)).sum().backward)


@case
def forward_missing(T):
    F = type(T.autograd.Function)("F", (T.autograd.Function,), {})
    G = function(T, None, setup_context=lambda ctx, i, o: None)
    del G.forward
    return [caught(F.apply, leaf(T)), caught(G.apply, leaf(T)), caught(F.setup_context, None, None, None)]


@case
def vjp_in_place_of_backward(T):
    F = function(T, lambda ctx, x: x * 2, vjp=lambda ctx, g: g * 5)
    G = function(T, lambda ctx, x: x * 2, lambda ctx, g: g, vjp=lambda ctx, g: g * 5)
    x = leaf(T)
    F.apply(x).sum().backward()
    return [plain(x.grad), caught(G.apply(x).sum().backward)]


@case
def error_inside_backward(T):
    def backward(ctx, g):
        raise ValueError("mine")

    return [caught(function(T, lambda ctx, x: x * 2, backward).apply(leaf(T)).sum().backward)]


@case
def error_inside_forward(T):
    def forward(ctx, x):
        raise ValueError("mine")

    result = caught(function(T, forward).apply, leaf(T))
    return [result, T.is_grad_enabled()]


# ---- differentiating backward -------------------------------------------------------------------------------------
@case
def double_backward(T):
    x = leaf(T)
    (g,) = T.autograd.grad(square(T).apply(x).sum(), x, create_graph=True)
    (h,) = T.autograd.grad(g.sum(), x, create_graph=True)
    return [plain(g.detach()), plain(h.detach()), g.requires_grad, h.requires_grad]


@case
def gradient_mode_in_backward(T):
    seen = []
    F = function(T, lambda ctx, x: x * 2, lambda ctx, g: (seen.append((T.is_grad_enabled(), g.requires_grad)), g * 2)[1])
    x = leaf(T)
    F.apply(x).sum().backward()
    with T.no_grad():
        pass
    T.autograd.grad(F.apply(x).sum(), x, create_graph=True)
    T.autograd.grad(F.apply(x), x, T.ones(3, requires_grad=True), create_graph=True)
    return [list(s) for s in seen]


@case
def once_differentiable(T):
    from importlib import import_module

    once = import_module(T.__name__ + ".autograd.function").once_differentiable

    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @once
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g

    F = function(T, forward, backward)
    x = leaf(T)
    v = T.ones(3, requires_grad=True)
    (plainly,) = T.autograd.grad(F.apply(x), x, T.ones(3))
    (no_graph,) = T.autograd.grad(F.apply(x), x, T.ones(3), create_graph=True)
    (g,) = T.autograd.grad(F.apply(x), x, v, create_graph=True)
    node = g.grad_fn
    return [
        plain(plainly), plain(no_graph), g.requires_grad, type(node).__name__ if node is not None else None, caught(g.sum().backward),
        caught(T.autograd.grad, (g * 2).sum(), v), backward.__name__,
    ]  # fmt: skip


@case
def once_differentiable_with_none(T):
    from importlib import import_module

    once = import_module(T.__name__ + ".autograd.function").once_differentiable

    F = function(T, lambda ctx, x, k, y: x * y * k, once(lambda ctx, g: (g * 2, None, g)))
    x, y, v = leaf(T), leaf(T), T.ones(3, requires_grad=True)
    a, b = T.autograd.grad(F.apply(x, 3, y), (x, y), v, create_graph=True)
    return [a.requires_grad, b.requires_grad, caught(b.sum().backward)]


@case
def nested_functions(T):
    Inner = square(T)

    def forward(ctx, x):
        ctx.save_for_backward(x)
        y = Inner.apply(x)
        ctx.inner = y.requires_grad
        return y * 2

    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        with T.enable_grad():
            t = x.detach().requires_grad_()
            (inner,) = T.autograd.grad(Inner.apply(t).sum(), t)
        return g * 2 * inner

    F = function(T, forward, backward, "Outer")
    x = leaf(T)
    y = F.apply(x)
    y.sum().backward()
    return [y.grad_fn.inner, plain(x.grad)]


@case
def backward_inside_forward_and_backward(T):
    def forward(ctx, x):
        with T.enable_grad():
            t = x.detach().requires_grad_()
            y = (t**3).sum()
        y.backward()
        ctx.save_for_backward(t.grad)
        return y.detach()

    def backward(ctx, g):
        with T.enable_grad():
            t = T.ones(1, requires_grad=True)
            (t * 5).sum().backward()
        return g * ctx.saved_tensors[0] * t.grad

    F = function(T, forward, backward)
    x = leaf(T)
    F.apply(x).backward()
    return plain(x.grad)


@case
def a_function_applied_to_itself(T):
    depth = []

    class Nest(T.autograd.Function):
        @staticmethod
        def forward(ctx, x, n):
            ctx.n = n
            with T.enable_grad():
                ctx.t = x.detach().requires_grad_()
                ctx.y = Nest.apply(ctx.t, n - 1) if n else ctx.t * 2
            return ctx.y.detach()

        @staticmethod
        def backward(ctx, g):
            depth.append(ctx.n)
            T.autograd.backward(ctx.y, g)
            return ctx.t.grad, None

    x = leaf(T)
    Nest.apply(x, 30).sum().backward()
    return [plain(x.grad), depth[0], depth[-1]]


# ---- as a node ----------------------------------------------------------------------------------------------------
@case
def the_node(T):
    F = double(T)
    x = leaf(T)
    mid = x * 3
    y = F.apply(mid)
    node = y.grad_fn
    return [
        type(node).__name__, node.name(), type(node)._forward_cls is F, F._backward_cls is type(node),
        [(type(n).__name__, i) for n, i in node.next_functions], node.next_functions[0][0] is mid.grad_fn,
        plain(node.metadata), node.needs_input_grad, isinstance(node, T.autograd.graph.Node),
        [c.__name__ for c in type(node).__mro__ if c.__name__ in ("BackwardCFunction", "FunctionCtx")],
        isinstance(node._sequence_nr(), int), y._is_view(), type(F).__name__, F.__module__ == __name__,
    ]  # fmt: skip


@case
def next_functions_follow_the_tensors(T):
    F = function(T, lambda ctx, *a: a[0] + a[2], lambda ctx, g: (g, None, g, None, None))
    x, y = leaf(T), leaf(T) * 2
    node = F.apply(x, 3, y, T.ones(2), None).grad_fn
    return [[(type(n).__name__, i) for n, i in node.next_functions], list(node.needs_input_grad)]


@case
def node_hooks(T):
    log = []
    x = leaf(T)
    y = square(T).apply(x)
    node = y.grad_fn
    first = node.register_hook(lambda gi, go: log.append(("post", plain(gi), plain(go))))
    node.register_hook(lambda gi, go: (gi[0] * 10,))
    node.register_prehook(lambda go: log.append(("pre", plain(go))))
    node.register_prehook(lambda go: (go[0] * 2,))
    y.register_hook(lambda g: log.append(("tensor", plain(g))))
    y.sum().backward(retain_graph=True)
    first.remove()
    y.sum().backward()
    return [[list(e) for e in log], plain(x.grad)]


@case
def node_called_directly(T):
    x = leaf(T)
    node = square(T).apply(x).grad_fn
    return plain(node.apply(T.ones(3)))


@case
def metadata_is_kept(T):
    y = double(T).apply(leaf(T))
    y.grad_fn.metadata["a"] = 1
    return y.grad_fn.metadata


@case
def copying_and_pickling(T):
    import copy
    import pickle

    y = double(T).apply(leaf(T))
    return [caught(copy.deepcopy, y.grad_fn), caught(pickle.dumps, y.grad_fn).split(":")[0], caught(copy.deepcopy, y), caught(copy.copy, y.grad_fn)]


# ---- old forms ----------------------------------------------------------------------------------------------------
@case
def instantiation(T):
    from importlib import import_module

    module = import_module(T.__name__ + ".autograd.function")
    F = double(T)

    def warning(cls):
        value, seen = warned(cls)
        return [value, [(kind, text.split(" should ")[1]) for kind, text in seen]]

    def silent(cls):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cls()

    return [
        warning(F), warning(T.autograd.Function), warning(module.InplaceFunction), caught(silent(F), leaf(T)),
        silent(module.InplaceFunction).inplace, [c.__name__ for c in module.InplaceFunction.__mro__ if "Function" in c.__name__][:2],
        [c.__name__ for c in module.NestedIOFunction.__mro__ if "Function" in c.__name__][:2], caught(silent(F).apply, leaf(T)),
        caught(silent(module.NestedIOFunction), leaf(T)),
        caught(silent(module.NestedIOFunction).forward_extended), caught(silent(module.NestedIOFunction).backward_extended),
    ]  # fmt: skip


@case
def non_static_methods(T):
    class Old(T.autograd.Function):
        def forward(self, x):
            return x * 2

        def backward(self, g):
            return g * 2

    class Missing(T.autograd.Function):
        def forward(self):
            return None

    x = leaf(T)
    return [caught(lambda: Old.apply(x)), caught(lambda: Missing.apply(x))]


@case
def module_names(T):
    from importlib import import_module

    module = import_module(T.__name__ + ".autograd.function")
    names = ["FunctionCtx", "BackwardCFunction", "FunctionMeta", "Function", "once_differentiable", "InplaceFunction", "NestedIOFunction",
             "_SingleLevelFunction"]  # fmt: skip
    return [hasattr(module, n) for n in names] + [sorted(module.__all__), T.autograd.Function is module.Function, T.autograd.function is module]


@case
def inheritance(T):
    Base = square(T)

    class Derived(Base):
        @staticmethod
        def backward(ctx, g):
            return -Base.backward(ctx, g)

    x = leaf(T)
    y = Derived.apply(x)
    y.sum().backward()
    return [y.grad_fn.name(), plain(x.grad)]


@case
def mark_shared_storage(T):
    F = function(T, lambda ctx, x: (ctx.mark_shared_storage((x, x)), x * 2)[1], lambda ctx, g: g)
    value, seen = warned(F.apply, leaf(T))
    return [value, [kind for kind, _ in seen]]


@case
def clearing_saved_tensors_on_access(T):
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x, caught(lambda: ctx.saved_tensors) and None

    def forward(ctx, x, k):
        ctx.save_for_backward(x)
        return x * k

    seen = []

    def backward_twice(ctx, g):
        (x,) = ctx.saved_tensors
        seen.append(caught(lambda: ctx.saved_tensors))
        return g * x, None

    F = function(T, forward, backward_twice, clear_saved_tensors_on_access=True)
    x = leaf(T)
    y = F.apply(x, 2)
    y.sum().backward(retain_graph=True)
    return [seen, plain(x.grad), caught(lambda: y.sum().backward())]


@case
def boxed_gradients(T):
    seen = []

    def backward(ctx, grads):
        seen.append([type(grads).__name__, len(grads)])
        return grads.pop(0) * 2

    F = function(T, lambda ctx, x: (x * 2, x * 3), backward, boxed_grads_call=True)
    x = leaf(T)
    F.apply(x)[0].sum().backward()
    return [seen, plain(x.grad)]


@case
def saved_tensor_hooks(T):
    log = []

    def pack(t):
        log.append(("pack", t.tolist()))
        return t * 1

    def unpack(t):
        log.append(("unpack", t.tolist()))
        return t

    def forward(ctx, x):
        y = x * x
        ctx.save_for_backward(x, y, None)
        return y

    F = function(T, forward, lambda ctx, g: 2 * ctx.saved_tensors[0] * g + 0 * ctx.saved_tensors[1])
    x = leaf(T)
    with T.autograd.graph.saved_tensors_hooks(pack, unpack):
        y = F.apply(x)
    y.sum().backward()
    return [[list(e) for e in log], plain(x.grad)]


@case
def anomaly(T):
    F = function(T, lambda ctx, x: x * 2, lambda ctx, g: g * float("nan"), "Bad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with T.autograd.detect_anomaly():
            return caught(F.apply(leaf(T)).sum().backward)


@case
def output_gets_a_gradient_of_its_own(T):
    F = function(T, lambda ctx, x: (x * 2, x * 3), lambda ctx, g, h: g * 2 + h * 3)
    x = leaf(T)
    a, b = F.apply(x)
    (ga,) = T.autograd.grad(a.sum() + b.sum(), a, retain_graph=True)
    (gx,) = T.autograd.grad(b.sum(), x)
    return [plain(ga), plain(gx)]


@case
def tensors_in_containers_are_not_seen(T):
    F = function(T, lambda ctx, xs, k: xs[0] * k["a"], lambda ctx, g: (None, None))
    y = F.apply([leaf(T)], {"a": leaf(T)})
    return [plain(y), y.grad_fn is None]


# ---- further ------------------------------------------------------------------------------------------------------
@case
def input_saved_and_returned(T):
    """The saved input keeps its own history, so that the second derivative goes past the Function."""

    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x

    F = function(T, forward, lambda ctx, g: g * ctx.saved_tensors[0] * 3)
    x = leaf(T)
    y = F.apply(x * 2)
    saved = y.grad_fn.saved_tensors[0]
    name = type(saved.grad_fn).__name__
    (g,) = T.autograd.grad(y.sum(), x, create_graph=True)
    return [name, plain(g.detach()), caught(lambda: T.autograd.grad(g.sum(), x))]


@case
def namedtuple_output(T):
    from collections import namedtuple

    Pair = namedtuple("Pair", "a b")
    F = function(T, lambda ctx, x: Pair(x * 2, x * 3), lambda ctx, g, h: g)
    return caught(F.apply, leaf(T))


@case
def output_numbers_count_everything(T):
    F = function(T, lambda ctx, x: (5, x * 2, None, x * 3), lambda ctx, *gs: (gs[1] if gs[1] is not None else 0) + gs[3] * 10)
    x = leaf(T)
    out = F.apply(x)
    numbers = [out[1].output_nr, out[3].output_nr]
    (out[1].sum() + out[3].sum()).backward()
    return [numbers, plain(x.grad)]


@case
def constant_input_returned_then_changed(T):
    F = function(T, lambda ctx, x: x, lambda ctx, g: g)
    x = leaf(T)
    c = T.ones(3)
    y = F.apply(c)
    first = caught(lambda: y.mul_(2) is y)
    second = caught(lambda: (y.mul_(x), None)[1])
    return [first, second, plain(c.detach())]


@case
def keyword_places(T):
    F = function(T, lambda ctx, x, a=1, b=2: x * a * b, lambda ctx, g: (g, None, None))
    x = leaf(T)
    results = [caught(F.apply, x, **kw) for kw in ({"a": 1}, {"b": 3}, {"b": 3, "a": 4}, {"x": x})]
    return [*results, F.apply(x, b=3, a=4).grad_fn.needs_input_grad, caught(F.apply, b=3, x=x)]


@case
def two_outputs_of_a_dirty_view(T):
    def forward(ctx, x):
        x.mul_(2)
        ctx.mark_dirty(x)
        return x, x * 2

    F = function(T, forward, lambda ctx, g, h: g + 2 * h)
    return caught(F.apply, (leaf(T) * 1)[:1]).split(" You can ask")[0]


@case
def dirty_output_that_is_no_input(T):
    def forward(ctx, x):
        y = x * 2
        ctx.mark_dirty(y)
        return y

    F = function(T, forward, lambda ctx, g: g)
    value, seen = warned(F.apply, leaf(T))
    return [value, [(kind, text.split(" (Triggered")[0]) for kind, text in seen]]


@case
def needs_input_grad_without_recording(T):
    seen = []
    F = function(T, lambda ctx, k, x, y: (seen.append(list(ctx.needs_input_grad)), x * k)[1], lambda ctx, g: (None, g, None))
    with T.no_grad():
        F.apply(3, leaf(T), T.ones(3))
    F.apply(3, T.ones(3), T.ones(3))
    F.apply(3, leaf(T), T.ones(3))
    return seen


@case
def saved_output_double_backward(T):
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    F = function(T, forward, lambda ctx, g: g * ctx.saved_tensors[0], "Exp")
    x = T.zeros(2, requires_grad=True)
    (g,) = T.autograd.grad(F.apply(x).sum(), x, create_graph=True)
    (h,) = T.autograd.grad(g.sum(), x, create_graph=True)
    (i,) = T.autograd.grad(h.sum(), x)
    return [plain(g.detach()), plain(h.detach()), plain(i)]


@case
def second_output_saved(T):
    def forward(ctx, x):
        y, z = x * 2, x * x
        ctx.save_for_backward(z)
        return y, z

    F = function(T, forward, lambda ctx, g, h: g * ctx.saved_tensors[0] + h)
    x = leaf(T)
    y, z = F.apply(x)
    (saved,) = y.grad_fn.saved_tensors
    (g,) = T.autograd.grad(y.sum(), x, create_graph=True)
    (h,) = T.autograd.grad(g.sum(), x)
    return [saved.output_nr, saved.grad_fn is z.grad_fn, saved is z, plain(h)]


@case
def dirty_output_saved(T):
    def run(view):
        def forward(ctx, x):
            x.exp_()
            ctx.mark_dirty(x)
            ctx.save_for_backward(x)
            return x

        F = function(T, forward, lambda ctx, g: g * ctx.saved_tensors[0])
        x = leaf(T)
        y = x * 1
        z = F.apply(y[:2] if view else y)
        (g,) = T.autograd.grad(z.sum(), x, create_graph=True)
        (h,) = T.autograd.grad(g.sum(), x)
        return [[round(v, 4) for v in g.tolist()], [round(v, 4) for v in h.tolist()]]

    return [caught(run, False), caught(run, True)]


@case
def names_on_ctx(T):
    def forward(ctx, x):
        ctx.inputs, ctx.meta, ctx.saved, ctx.plan, ctx.shape, ctx.op = [1], 2, (3, 4), 4, x.shape, "mul"
        ctx.save_for_backward(x)
        return x * 2

    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (ctx.inputs[0] + ctx.meta + ctx.saved[1] + ctx.plan) + 0 * x

    F = function(T, forward, backward)
    x = leaf(T)
    y = F.apply(x)
    y.sum().backward()
    return [plain(x.grad), y.grad_fn.saved, y.grad_fn.meta]


@case
def raw_saved_tensors(T):
    log = []

    def forward(ctx, x):
        y = x * x
        ctx.save_for_backward(x, y, None)
        return y

    def pack(t):
        log.append(("pack", t.tolist()))
        return t.tolist()

    def unpack(values):
        log.append(("unpack", values))
        return T.tensor(values)

    F = function(T, forward, lambda ctx, g: g * ctx.saved_tensors[0] + ctx.saved_tensors[1])
    x = leaf(T)
    y = F.apply(x)
    raw = y.grad_fn._raw_saved_tensors
    raw[0].register_hooks(pack, unpack)
    raw[1].register_hooks(pack, unpack)
    errors = [caught(raw[0].register_hooks, pack, unpack), caught(raw[2].register_hooks, pack, unpack)]
    y.sum().backward()
    return [[list(e) for e in log], errors, plain(x.grad), caught(lambda: y.grad_fn._raw_saved_tensors)]


@case
def only_some_gradients_wanted(T):
    seen = []

    def backward(ctx, g):
        seen.append(list(ctx.needs_input_grad))
        return g, g * 2

    F = function(T, lambda ctx, a, b: a + b, backward)
    a, b = leaf(T), leaf(T)
    mid = b * 3
    (gb,) = T.autograd.grad(F.apply(a, mid).sum(), b)
    (gm,) = T.autograd.grad(F.apply(a, mid).sum(), mid)
    return [plain(gb), plain(gm), seen, a.grad is None]


@case
def complex_values(T):
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * z

    F = function(T, forward, lambda ctx, g: 2 * ctx.saved_tensors[0].conj() * g)
    z = T.tensor([1 + 2j, -1j], requires_grad=True)
    F.apply(z).abs().sum().backward()
    return [[round(v.real, 4), round(v.imag, 4)] for v in z.grad.tolist()]


@case
def no_arguments(T):
    F = function(T, lambda ctx: T.ones(2), lambda ctx, g: None)
    return [caught(F.apply), caught(function(T, lambda ctx, k: T.ones(2) * k).apply, 3)]


@case
def gradient_that_requires_grad_is_cut(T):
    other = leaf(T)
    F = function(T, lambda ctx, x: x * 2, lambda ctx, g: g * other)
    x = leaf(T)
    (g,) = T.autograd.grad(F.apply(x).sum(), x)
    (h,) = T.autograd.grad(F.apply(x).sum(), x, create_graph=True)
    return [g.requires_grad, h.requires_grad]


@case
def outputs_share_memory(T):
    F = function(T, lambda ctx, x: (lambda y: (y, y[:2]))(x * 2), lambda ctx, g, h: g + T.cat([h, h[:1] * 0]))
    x = leaf(T)
    y, v = F.apply(x)
    return [v._is_view(), plain(y), caught(lambda: (v.add_(1), 0)[1]), caught(lambda: (y.add_(1), 0)[1])]


@case
def unused_output_of_two(T):
    F = function(T, lambda ctx, x: (x * 2, x * 3), lambda ctx, g, h: g * 2 + h * 3)
    x = leaf(T)
    a, b = F.apply(x)
    return [plain(g) for g in T.autograd.grad(b.sum(), (x, a), allow_unused=True)]


@case
def hooks_on_outputs(T):
    log = []
    F = function(T, lambda ctx, x: (x * 2, x * 3), lambda ctx, g, h: g * 2 + h * 3)
    x = leaf(T)
    a, b = F.apply(x)
    a.register_hook(lambda g: (log.append(plain(g)), g * 10)[1])
    b.retain_grad()
    (a.sum() + b.sum()).backward()
    return [log, plain(b.grad), plain(x.grad)]


def main():
    import torch

    from tests.autograd.function.function_transform_cases import FORWARD_MODE, VMAP

    results = {name: result(fn, torch) for name, fn in (CASES | FORWARD_MODE | VMAP).items()}
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in results.items()]
    Path(__file__).with_suffix(".json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    from tests.autograd.function import function_cases

    function_cases.main()
