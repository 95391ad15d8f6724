"""``backward`` and ``grad`` in full. Every test runs on flambeau and, as the specification, on PyTorch."""

import types
import warnings

import pytest

import flambeau


@pytest.fixture(params=["flambeau", pytest.param("torch", marks=pytest.mark.torch)])
def T(request):
    return flambeau if request.param == "flambeau" else pytest.importorskip("torch")


def leaf(T, *values, **kwargs):
    return T.tensor(values, requires_grad=True, **{"dtype": T.float32} | kwargs)


def edge(T, t):
    return T.autograd.graph.get_gradient_edge(t)


@pytest.fixture
def xyz(T):
    x = leaf(T, 1, 2)
    y = x * x
    return x, y, (y * 3).sum()


# ---- edges ----------------------------------------------------------------------------------------------------------
def test_edges_are_named_tuples(T, xyz):
    x, y, z = xyz
    e = edge(T, y)
    assert e._fields == ("node", "output_nr", "ownership_token") and e.node is y.grad_fn and e.output_nr == 0
    with pytest.raises(RuntimeError, match="It is not possible to get the gradient edge for a Tensor that does not require"):
        edge(T, T.ones(1))


def test_edges_as_inputs(T, xyz):
    x, y, z = xyz
    found = T.autograd.grad(z, [edge(T, y), y, x, edge(T, x)])
    assert [g.tolist() for g in found] == [[3, 3], [3, 3], [6, 12], [6, 12]]


def test_edges_as_outputs(T, xyz):
    x, y, z = xyz
    assert T.autograd.grad(edge(T, z), x, retain_graph=True)[0].tolist() == [6, 12]
    assert T.autograd.grad(edge(T, y), x, T.ones(2), retain_graph=True)[0].tolist() == [2, 4]
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar outputs"):
        T.autograd.grad(edge(T, y), x)
    with pytest.raises(RuntimeError, match=r"grad_output\[0\] has a shape of torch.Size\(\[3\]\) and output\[0\] has a shape of torch.Size\(\[2\]\)"):
        T.autograd.grad(edge(T, y), x, T.ones(3))
    T.autograd.backward(edge(T, z), retain_graph=True)
    assert x.grad.tolist() == [6, 12]


def test_an_edge_of_one_output_among_several(T):
    x = leaf(T, 1, 2, 3, 4)
    a, b = (x * 1).split(2)
    e = edge(T, b)
    assert e.output_nr == 1
    assert T.autograd.grad((a * 2 + b * 5).sum(), [e, x])[0].tolist() == [5, 5]


def test_backward_into_edges(T, xyz):
    x, y, z = xyz
    T.autograd.backward(z, inputs=edge(T, x), retain_graph=True)
    assert x.grad.tolist() == [6, 12]
    x.grad = None
    T.autograd.backward(z, inputs=edge(T, y), retain_graph=True)
    assert x.grad is None and not y.retains_grad


# ---- inputs and outputs ---------------------------------------------------------------------------------------------
def test_backward_into_a_tensor_that_is_no_leaf(T, xyz):
    x, y, z = xyz
    z.backward(inputs=[y], retain_graph=True)
    assert y.grad.tolist() == [3, 3] and x.grad is None and y.retains_grad
    z.backward(retain_graph=True)
    assert y.grad.tolist() == [6, 6] and x.grad.tolist() == [6, 12]


def test_dicts_of_inputs(T, xyz):
    x, y, z = xyz
    w = leaf(T, 1)
    found = T.autograd.grad(z, {"a": x, "b": w}, retain_graph=True, allow_unused=True)
    assert found["a"].tolist() == [6, 12] and found["b"] is None
    z.backward(inputs={"x": x}, retain_graph=True)
    assert x.grad.tolist() == [6, 12]
    for fn in (T.autograd.grad, lambda z, m: T.autograd.backward(z, inputs=m)):
        with pytest.raises(TypeError, match="must be a dict, not mappingproxy. Other Mapping types are not supported."):
            fn(z, types.MappingProxyType({"a": x}))


def test_empty_inputs(T, xyz):
    x, y, z = xyz
    for empty in ([], {}, ()):
        with pytest.raises(RuntimeError, match=r"`inputs` argument to `grad\(\)` cannot be empty."):
            T.autograd.grad(z, empty)
        with pytest.raises(RuntimeError, match=r"`inputs` argument to `backward\(\)` cannot be empty."):
            T.autograd.backward(z, inputs=empty)


def test_several_outputs(T, xyz):
    x, y, z = xyz
    T.autograd.backward([z, y], [None, T.ones(2)])
    assert x.grad.tolist() == [8, 16]
    T.autograd.backward([])
    assert [g.tolist() for g in T.autograd.grad([x.sum(), x.sum()], [x, x])] == [[2, 2], [2, 2]]


def test_what_is_no_tensor(T, xyz):
    x, y, z = xyz
    with pytest.raises(RuntimeError, match="all inputs have to be Tensors or GradientEdges, but got int"):
        T.autograd.grad(z, [5])
    with pytest.raises(RuntimeError, match="all inputs have to be Tensors or GradientEdges, but got NoneType"):
        T.autograd.grad(z, [None])
    with pytest.raises(AssertionError, match="Expected output to be a torch.Tensor"):
        T.autograd.grad([5], x)
    with pytest.raises(TypeError, match="'int' object is not iterable"):
        T.autograd.grad(5, x)
    with pytest.raises(RuntimeError, match="got 2 tensors and 1 gradients"):
        T.autograd.backward([z, z], [T.ones(())])
    with pytest.raises(RuntimeError, match="One of the differentiated Tensors does not require grad"):
        T.autograd.grad(z, [x, T.ones(1)])


def test_outputs_without_history(T, xyz):
    x, y, z = xyz
    for tensors, grads in (([z, T.ones(1)], None), ([z, T.ones(1)], [None, T.ones(1)]), ([z, T.ones(3)], None), ([z, x.argmax()], None)):
        with pytest.raises(RuntimeError, match="element 1 of tensors does not require grad and does not have a grad_fn"):
            T.autograd.backward(tensors, grads)
    assert x.grad is None


def test_a_leaf_as_output(T):
    x = leaf(T, 5)
    x.backward()
    assert x.grad.tolist() == [1]
    g = T.full((1,), 3.0)
    (found,) = T.autograd.grad(x, x, g)
    assert found is g
    x.grad = None
    x.backward(g)
    assert x.grad is not g and x.grad.data_ptr() != g.data_ptr()


def test_unused_inputs(T, xyz):
    x, y, z = xyz
    w = leaf(T, 1, 2)
    with pytest.raises(RuntimeError, match="The differentiated Tensor at index 1 appears to not have been used in the graph"):
        T.autograd.grad(z, [x, w], retain_graph=True)
    with pytest.raises(ValueError, match="Expected allow_unused to be True or not passed when materialize_grads=True"):
        T.autograd.grad(z, w, allow_unused=False, materialize_grads=True)
    (g,) = T.autograd.grad(z, w, retain_graph=True, materialize_grads=True)
    assert g.tolist() == [0, 0] and not g.requires_grad
    (g,) = T.autograd.grad(z, w, materialize_grads=True, create_graph=True)
    assert g.requires_grad
    assert T.autograd.grad(z, [x, edge(T, w)], retain_graph=True, allow_unused=True)[1] is None
    with pytest.raises(RuntimeError, match="materialize_grads cannot be used when the given input is a GradientEdge"):
        T.autograd.grad(z, [x, edge(T, w)], materialize_grads=True)


# ---- gradients that are given -----------------------------------------------------------------------------------------
def test_given_gradients_that_do_not_fit(T, xyz):
    x, y, z = xyz
    for g in (T.ones(2, 1), T.ones(3), T.ones(())):
        with pytest.raises(RuntimeError, match=r"Mismatch in shape: grad_output\[0\] has a shape of"):
            y.backward(g)
    with pytest.raises(RuntimeError, match="For complex Tensors, both grad_output and output are required to have the same dtype"):
        y.backward(T.ones(2, dtype=T.complex64))
    with pytest.raises(TypeError, match="gradients can be either Tensors or None, but got float"):
        y.backward([1.0, 1.0])
    with pytest.raises(TypeError, match="'int' object is not iterable"):
        y.backward(1)


def test_given_gradients_take_the_outputs_dtype(T):
    for dtype in ("float64", "int64", "float16"):
        x = leaf(T, 1, 2)
        (x * x).backward(T.ones(2, dtype=getattr(T, dtype)))
        assert x.grad.tolist() == [2, 4] and x.grad.dtype == T.float32
    assert T.autograd.grad(x, x, T.ones(2, dtype=T.float64))[0].dtype == T.float32


def test_complex_outputs_need_a_gradient(T):
    c = leaf(T, 1j, dtype=T.complex64)
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for real scalar outputs but got torch.complex64"):
        (c * 2).backward()
    with pytest.raises(RuntimeError, match="required to have the same dtype"):
        (c * 2).backward(T.ones(1))
    (c * 2).backward(T.ones(1, dtype=T.complex128))
    assert c.grad.tolist() == [2] and c.grad.dtype == T.complex64


def test_given_gradient_that_requires_grad(T):
    x, g = leaf(T, 1, 2), leaf(T, 3, 4)
    (x * 2).backward(g)
    assert x.grad.tolist() == [6, 8] and not x.grad.requires_grad
    (r,) = T.autograd.grad(x * 2, x, g, create_graph=True)
    assert T.autograd.grad(r.sum(), g)[0].tolist() == [2, 2]


def test_old_names(T, xyz):
    x, y, z = xyz
    with pytest.warns(FutureWarning, match="`grad_variables` is deprecated. Use `grad_tensors` instead."):
        T.autograd.backward(z, grad_variables=T.ones(()), retain_graph=True)
    assert x.grad.tolist() == [6, 12]
    with pytest.warns(FutureWarning), pytest.raises(RuntimeError, match="arguments both passed to `backward"):
        T.autograd.backward(z, T.ones(()), grad_variables=T.ones(()))
    with pytest.warns(FutureWarning, match="only_inputs argument is deprecated"):
        T.autograd.grad(z, x, only_inputs=False)


# ---- accumulation ---------------------------------------------------------------------------------------------------
def test_later_gradients_are_added_in_place(T):
    x = leaf(T, 1, 2)
    (x * 2).sum().backward()
    g, version = x.grad, x.grad._version
    (x * 2).sum().backward()
    assert x.grad is g and g._version == version + 1 and g.tolist() == [4, 4]


def test_passes_that_record_add_out_of_place(T):
    x = leaf(T, 1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (x * x).sum().backward(create_graph=True)
        first = x.grad
        assert first.requires_grad and first.grad_fn.name().endswith("CopyBackwards")
        (x * x).sum().backward()  # one that doesn't changes even a gradient with a history in place
        assert x.grad is first and first.grad_fn is not None
        (x * x).sum().backward(create_graph=True)
    assert x.grad is not first and first.tolist() == [4, 8] and x.grad.tolist() == [6, 12]
    assert T.autograd.grad(x.grad.sum(), x)[0].tolist() == [4, 4]
    x.grad = None


def test_a_gradient_that_requires_grad_is_changed_in_place(T):
    x = leaf(T, 1, 2)
    x.grad = g = T.ones(2, requires_grad=True)
    (x * 2).sum().backward()
    assert x.grad is g and g.tolist() == [3, 3] and g.requires_grad


def test_gradients_lie_in_memory_as_their_leaves_do(T):
    x = T.ones(2, 3).t().requires_grad_()
    x.sum().backward()
    assert x.grad.stride() == x.stride() == (1, 3)
    for gaps in (T.ones(1, 3).expand(2, 3), T.ones(4, 6)[:2, ::2], T.ones(6, 4)[::2, :2].t()):
        x = gaps.detach().requires_grad_()
        (x * 2).sum().backward()
        assert x.grad.is_contiguous()


def test_an_existing_gradient_keeps_its_layout(T):
    x = T.ones(2, 3, requires_grad=True)
    x.grad = g = T.ones(3, 2).t()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (x * 2).sum().backward()
    assert x.grad is g and g.stride() == (1, 2) and g.tolist() == [[3] * 3] * 2


def test_a_view_as_gradient_is_written_through(T):
    flat = T.zeros(4)
    x = leaf(T, 1, 2)
    x.grad = flat[1:3]
    (x * 2).sum().backward()
    assert flat.tolist() == [0, 2, 2, 0]


def test_an_expanded_gradient_cannot_be_added_to(T):
    x = leaf(T, 1, 2, 3)
    x.grad = T.ones(()).expand(3)
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor refers to a single memory location"):
        (x * 2).sum().backward()


def test_grad_gives_what_arrives(T):
    x = leaf(T, 1, 2, 3)
    (g,) = T.autograd.grad(x.sum(), x)
    assert g.stride() == (0,)
    g = T.ones(3)
    assert T.autograd.grad(x + 0, x, g)[0] is g


def test_requires_grad_switched_off_before_the_pass(T):
    x = leaf(T, 1, 2)
    y = (x * 3).sum()
    x.requires_grad_(False)
    y.backward()
    assert x.grad is None


def test_grad_dtype(T):
    x = leaf(T, 1, 2)
    assert x.grad_dtype == T.float32
    x.grad_dtype = T.float64
    seen = []
    x.register_hook(lambda g: seen.append(g.dtype))
    (x * 2).sum().backward()
    (x * 2).sum().backward()
    assert x.grad.tolist() == [4, 4] and x.grad.dtype == T.float64 and seen == [T.float64] * 2
    assert T.autograd.grad((x * 2).sum(), x)[0].dtype == T.float64
    with pytest.raises(RuntimeError, match="Cannot set grad_dtype to 'Half' because there is already a gradient with dtype 'double'"):
        x.grad_dtype = T.float16
    x.grad = None
    with pytest.raises(RuntimeError, match="attempting to assign a gradient with dtype 'float' to a tensor with grad_dtype 'Double'"):
        x.grad = T.ones(2)
    x.grad_dtype = None
    x.grad = T.ones(2, dtype=T.float16)
    y = x * 2
    with pytest.raises(RuntimeError, match="grad_dtype can only be set on leaf tensors."):
        y.grad_dtype = T.float16
    with pytest.raises(RuntimeError, match="grad_dtype can only be accessed on leaf tensors."):
        y.grad_dtype  # noqa: B018
    with pytest.raises(RuntimeError, match="grad_dtype must be a torch.dtype or None, but got int"):
        x.grad_dtype = 5


def test_layout_policy(T):
    def grad_strides():
        x = T.ones(2, 3).t().requires_grad_()
        (x.contiguous() * 2.0).sum().backward()
        return x.grad.stride()

    assert grad_strides() == (1, 3)
    with T.autograd.enforce_grad_layout_policy(False):
        pass
    assert grad_strides() == (1, 3)


# ---- graphs ---------------------------------------------------------------------------------------------------------
def test_freed_graphs(T):
    x = leaf(T, 1, 2)
    y = x.exp().sum()
    y.backward()
    for again in (y.backward, lambda: T.autograd.grad(y, x)):
        with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
            again()


def test_grad_frees_only_what_it_runs(T):
    x = leaf(T, 1, 2)
    y = x.exp()
    z = y.exp().sum()
    T.autograd.grad(z, y)  # x's exp was not run
    assert T.autograd.grad(y.sum(), x)[0].tolist() == y.tolist()


def test_backward_warns_of_the_cycle_that_create_graph_makes():
    flambeau.autograd.engine._warned_of_cycle = False
    x = leaf(flambeau, 1)
    with pytest.warns(UserWarning, match="create_graph=True will create a reference cycle") as caught:
        (x * x).backward(create_graph=True)
    assert caught[0].filename == __file__
    x.grad = None


# ---- batches of gradients ---------------------------------------------------------------------------------------------
def test_batched_gradients(T):
    x = leaf(T, 1, 2, 3)
    y = x.exp() * x
    found = T.autograd.grad(y, x, T.eye(3), is_grads_batched=True, retain_graph=True)[0]
    rows = [T.autograd.grad(y, x, e, retain_graph=True)[0] for e in T.eye(3)]
    assert found.tolist() == [r.tolist() for r in rows]


def test_batched_gradients_of_several_inputs(T):
    x, w, unused = leaf(T, 1, 2), leaf(T, 3, 4), leaf(T, 1)
    y = x * w + x
    gx, gw, none = T.autograd.grad(y, [x, w, unused], T.eye(2), is_grads_batched=True, allow_unused=True)
    assert gx.tolist() == [[4, 0], [0, 5]] and gw.tolist() == [[1, 0], [0, 2]] and none is None
    with pytest.raises(RuntimeError, match="we interpret the first dimension of each grad_output as the batch dimension"):
        T.autograd.grad(x * w, x, T.ones(3, 3), is_grads_batched=True)


def test_batched_gradients_differentiated_again(T):
    x = leaf(T, 1, 2)
    (rows,) = T.autograd.grad((x * x * x), x, T.eye(2), is_grads_batched=True, create_graph=True)
    (g,) = T.autograd.grad(rows.sum(), x)
    assert g.tolist() == [6, 12]
