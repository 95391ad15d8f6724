"""Programs about custom Functions: those of the note on extending PyTorch, and well-known ones from the literature."""

from __future__ import annotations

from typing import Any


def linear_and_cube(T: Any, see: Any) -> None:
    class Linear(T.autograd.Function):
        @staticmethod
        def forward(input: Any, weight: Any, bias: Any) -> Any:
            output = input.mm(weight.t())
            return output if bias is None else output + bias

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            input, weight, bias = ctx.saved_tensors
            return g.mm(weight), g.t().mm(input), None if bias is None else g.sum(0)

    class Cube(T.autograd.Function):
        @staticmethod
        def forward(x: Any) -> Any:
            return x**3, 3 * x**2

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(inputs[0], output[1])

        @staticmethod
        def backward(ctx: Any, g: Any, g_dx: Any) -> Any:
            x, dx = ctx.saved_tensors
            return g * dx + g_dx * 6 * x

    args = [T.randn(*s, dtype=T.double, requires_grad=True) for s in ((2, 3), (4, 3), (4,))]
    see(T.autograd.gradcheck(Linear.apply, args), T.autograd.gradgradcheck(Linear.apply, args))
    see(T.autograd.gradcheck(Linear.apply, (*args[:2], None)))
    x = T.tensor(2.0, dtype=T.double, requires_grad=True)
    g = T.autograd.grad(Cube.apply(x)[0], x, create_graph=True)[0]
    see(g, T.autograd.grad(g, x))
    see(T.autograd.gradgradcheck(lambda x: Cube.apply(x)[0], x))


def under_transformations(T: Any, see: Any) -> None:
    class Sin(T.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x: Any) -> Any:
            return x.sin()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(inputs[0])
            ctx.save_for_forward(inputs[0])

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * ctx.saved_tensors[0].cos()

        @staticmethod
        def jvp(ctx: Any, t: Any) -> Any:
            return t * ctx.saved_tensors[0].cos()

    class NoRules(T.autograd.Function):
        @staticmethod
        def forward(x: Any) -> Any:
            return x * 2

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2

    x = T.linspace(0, 1, 3, dtype=T.double)
    see(T.vmap(T.func.grad(T.func.grad(Sin.apply)))(x), T.func.jacfwd(Sin.apply)(x), T.func.hessian(lambda x: Sin.apply(x).sum())(x))
    see.error(lambda: T.vmap(NoRules.apply)(x))
    see.error(lambda: T.func.jvp(NoRules.apply, (x,), (x,)))
    see(T.func.grad(lambda x: NoRules.apply(x).sum())(x))


def mistakes(T: Any, see: Any) -> None:
    def function(forward: Any, backward: Any) -> Any:
        return type("Mine", (T.autograd.Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)})

    x = T.ones(2, requires_grad=True)
    see.error(lambda: function(lambda ctx, x, y: x * y, lambda ctx, g: g).apply(x, x).sum().backward())
    see.error(lambda: function(lambda ctx, x: x * 2, lambda ctx, g: T.ones(7)).apply(x).sum().backward())
    see.error(lambda: function(lambda ctx, x: x * 2, lambda ctx, g: "a").apply(x).sum().backward())
    see.error(lambda: function(lambda ctx, x: x * 2, lambda ctx, g: None).apply(x).sum().backward())
    see.error(lambda: function(lambda ctx, x: ctx.save_for_backward([x]), lambda ctx, g: g).apply(x))
    see.error(lambda: function(lambda ctx, x: x * 2, lambda ctx, g: 1 / 0).apply(x).sum().backward())
    see.error(lambda: type("None", (T.autograd.Function,), {}).apply(x))

    class Square(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @T.autograd.function.once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            return 2 * ctx.saved_tensors[0] * g

    y = Square.apply(x)
    y.sum().backward()
    see.error(lambda: y.sum().backward())
    g = T.autograd.grad(Square.apply(x).sum(), x, create_graph=True)[0]
    see.error(lambda: g.sum().backward())
    y = x * 1
    z = Square.apply(y)
    y.add_(1)
    see.error(lambda: z.sum().backward())


def reversal_and_straight_through(T: Any, see: Any) -> None:
    class Reverse(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, alpha: Any) -> Any:
            ctx.alpha = alpha
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return -ctx.alpha * g, None

    class Step(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return (x > 0).float()

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return T.nn.functional.hardtanh(g)

    x = T.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    Reverse.apply(x, 0.5).sum().backward()
    see(x.grad)
    see(T.autograd.grad((Step.apply(x) * T.tensor([3.0, 0.2, -4.0])).sum(), x))
    see(T.autograd.grad((x + (x.round() - x).detach()).pow(2).sum(), x))
    logits = T.randn(3, 4, requires_grad=True)
    hard = T.nn.functional.gumbel_softmax(logits, tau=0.5, hard=True)
    see(hard, T.autograd.grad((hard * T.arange(4.0)).sum(), logits))


def neural_ode_by_its_adjoint(T: Any, see: Any) -> None:
    f = T.nn.Sequential(T.nn.Linear(2, 4), T.nn.Tanh(), T.nn.Linear(4, 2))
    parameters = list(f.parameters())

    class Solve(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: Any, *_: Any) -> Any:
            path = [z]
            for _ in range(10):
                path.append(path[-1] + 0.1 * f(path[-1]))
            ctx.save_for_backward(*path)
            return path[-1]

        @staticmethod
        def backward(ctx: Any, a: Any) -> Any:
            sums = [T.zeros_like(p) for p in parameters]
            for z in ctx.saved_tensors[-2::-1]:
                with T.enable_grad():
                    z = z.detach().requires_grad_()
                    ga, *gs = T.autograd.grad(f(z), [z, *parameters], a)
                a, sums = a + 0.1 * ga, [s + 0.1 * g for s, g in zip(sums, gs)]
            return a, *sums

    def euler(z: Any) -> Any:
        for _ in range(10):
            z = z + 0.1 * f(z)
        return z

    z = T.randn(3, 2, requires_grad=True)
    adjoint = T.autograd.grad(Solve.apply(z, *parameters).pow(2).sum(), [z, *parameters])
    plain = T.autograd.grad(euler(z).pow(2).sum(), [z, *parameters])
    see(adjoint[0], [T.allclose(a, b, atol=1e-5) for a, b in zip(adjoint, plain)])


def backward_inside_backward(T: Any, see: Any) -> None:
    class Inner(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            with T.enable_grad():
                ctx.x = x.detach().requires_grad_()
                ctx.y = ctx.x.sin().exp()
            return ctx.y.detach()

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            ctx.y.backward(g)
            return ctx.x.grad

    x = T.ones(2, requires_grad=True)
    z = x
    for _ in range(20):
        z = Inner.apply(z) * 0.5
    z.sum().backward()
    see(x.grad)


def several_outputs_and_none(T: Any, see: Any) -> None:
    class Split(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.set_materialize_grads(False)
            return x[:1] * 2, "text", x[1:] * 3

        @staticmethod
        def backward(ctx: Any, a: Any, text: Any, b: Any) -> Any:
            see(a is None, text is None, b is None)
            out = T.zeros(3)
            if a is not None:
                out[:1] += 2 * a
            if b is not None:
                out[1:] += 3 * b
            return out

    x = T.ones(3, requires_grad=True)
    a, text, b = Split.apply(x)
    see(text, a.grad_fn is b.grad_fn, b.output_nr)
    b.sum().backward(retain_graph=True)
    (a.sum() + b.sum()).backward()
    see(x.grad)
