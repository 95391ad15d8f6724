"""In-place changes: history, views, versions, refusals."""

import pytest

import flambeau as torch


def test_in_place_on_an_intermediate():
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    y.mul_(3)
    y += 1
    y.sum().backward()
    assert x.grad.tolist() == [6, 6, 6]


def test_change_of_a_view_changes_the_base():
    x = torch.ones(4, requires_grad=True)
    y = x * 1
    y[1:3].mul_(5)
    assert y.tolist() == [1, 5, 5, 1]
    y.sum().backward()
    assert x.grad.tolist() == [1, 5, 5, 1]


def test_change_of_the_base_changes_the_view():
    x = torch.ones(4, requires_grad=True)
    y = x * 1
    v = y[:2]
    y.mul_(3)
    v.sum().backward()
    assert x.grad.tolist() == [3, 3, 0, 0]


def test_writing_values_that_require_grad_into_a_constant():
    buffer = torch.zeros(2, 3)
    w = torch.ones(3, requires_grad=True)
    row = buffer[0]
    row.copy_(w * 2)
    assert buffer.requires_grad
    (buffer * torch.arange(6.0).view(2, 3)).sum().backward()
    assert w.grad.tolist() == [0, 2, 4]


def test_setitem_flows_to_both():
    x = torch.ones(4, requires_grad=True)
    v = torch.ones(2, requires_grad=True)
    y = x * 2
    y[1:3] = v * 3
    (y * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert x.grad.tolist() == [2, 0, 0, 8] and v.grad.tolist() == [6, 9]


def test_chain_of_views():
    x = torch.ones(2, 3, requires_grad=True)
    y = x * 1
    y.t()[1].mul_(4)
    y.sum().backward()
    assert x.grad.tolist() == [[1, 4, 1], [1, 4, 1]]


def test_versions_are_shared_by_views():
    x = torch.zeros(3)
    v = x[1:]
    d = x.detach()
    v.add_(1)
    assert x._version == v._version == d._version == 1


def test_leaf_that_requires_grad():
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad is being used in an in-place operation"):
        x.add_(1)
    with pytest.raises(RuntimeError, match="a view of a leaf Variable that requires grad is being used in an in-place operation"):
        x[0].add_(1)
    assert x.tolist() == [1, 1]
    with torch.no_grad():
        x.add_(1)
    assert x.tolist() == [2, 2] and x.is_leaf


def test_saved_tensor_changed_names_both_lines():
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    z = y * y  # saved here
    y.add_(1)  # changed here
    with pytest.raises(RuntimeError, match="modified by an inplace operation") as e:
        z.sum().backward()
    assert "# saved here" in str(e.value) and "# changed here" in str(e.value)
    assert "is at version 1; expected version 0 instead" in str(e.value)
    assert x.grad is None


def test_saved_output_changed():
    x = torch.ones(2, requires_grad=True)
    y = x.exp()
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_overwritten_operand_that_a_rule_needs_is_kept():
    x = torch.ones(4, requires_grad=True)
    y = x * 3
    y.mul_(x)  # the gradient of x needs what y was
    y.sum().backward()
    assert x.grad.tolist() == [6, 6, 6, 6]


def test_partly_overlapping_operand():
    z = torch.arange(4.0)
    with pytest.raises(RuntimeError, match="some elements of the input tensor and the written-to tensor refer to a single memory"):
        z[1:3].mul_(z[2:4])
    assert z.tolist() == [0, 1, 2, 3]
    z.mul_(z)
    assert z.tolist() == [0, 1, 4, 9]


def test_expanded_memory_is_not_written():
    x = torch.zeros(1).expand(3)
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor refers to a single memory location"):
        x.add_(1)


def test_shape_must_not_grow():
    x = torch.zeros(3)
    with pytest.raises(RuntimeError, match=r"output with shape \[3\] doesn't match the broadcast shape \[2, 3\]"):
        x.add_(torch.ones(2, 3))
    assert x.tolist() == [0, 0, 0] and x._version == 0


def test_result_type_must_fit():
    x = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="result type Float can't be cast to the desired output type Long"):
        x.add_(1.5)


def test_multi_output_views_refuse():
    x = torch.ones(4, requires_grad=True) * 1
    a, b = x.split(2)
    with pytest.raises(RuntimeError, match="is a view and is being modified inplace"):
        a.add_(1)


def test_second_derivative_through_copy_slices():
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)

    def f(x):
        y = x * x
        y[1:] = y[1:].clone() * x[:2]
        y[0] *= 3
        return y

    assert torch.autograd.gradcheck(f, (x,))
    assert torch.autograd.gradgradcheck(f, (x,))
