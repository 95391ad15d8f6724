"""Layers against PyTorch: signatures, reprs, initial weights from one seed, outputs, gradients."""

import inspect
import warnings

import numpy as np
import pytest

import flambeau as fl

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

X1, X2, X3 = (2, 4, 9), (2, 4, 7, 8), (2, 4, 5, 6, 7)
# (layer, arguments, options, shape of the input); a second entry with other options where they matter
CASES = [
    ("Linear", (5, 3), {}, (2, 5)),
    ("Linear", (5, 3), {"bias": False}, (2, 4, 5)),
    ("Identity", (), {}, (2,)),
    ("Flatten", (), {}, X2),
    ("Unflatten", (1, (2, 2)), {}, X2),
    ("Conv1d", (4, 6, 3), {"padding": "same", "dilation": 2}, X1),
    ("Conv1d", (4, 6, 3), {"padding": 1, "padding_mode": "circular"}, X1),
    ("Conv2d", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}, X2),
    ("Conv2d", (4, 6, (3, 2)), {"padding": 1, "padding_mode": "reflect", "bias": False}, X2),
    ("Conv3d", (4, 6, 3), {"padding": "same"}, X3),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2}, X1),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1}, X2),
    ("ConvTranspose3d", (4, 6, 3), {"dilation": 2}, X3),
    ("BatchNorm1d", (4,), {}, X1),
    ("BatchNorm2d", (4,), {"momentum": None}, X2),
    ("BatchNorm2d", (4,), {"affine": False, "track_running_stats": False}, X2),
    ("BatchNorm3d", (4,), {}, X3),
    ("InstanceNorm1d", (4,), {}, X1),
    ("InstanceNorm2d", (4,), {"affine": True, "track_running_stats": True}, X2),
    ("InstanceNorm3d", (4,), {}, X3),
    ("LayerNorm", ((7, 8),), {}, X2),
    ("LayerNorm", (8,), {"bias": False}, X2),
    ("GroupNorm", (2, 4), {}, X2),
    ("RMSNorm", (8,), {}, X2),
    ("LocalResponseNorm", (2,), {}, X2),
    ("Dropout", (0.0,), {}, X2),
    ("MaxPool1d", (2,), {}, X1),
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, X2),
    ("MaxPool3d", (2,), {}, X3),
    ("AvgPool1d", (2,), {}, X1),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "count_include_pad": False}, X2),
    ("AvgPool3d", (2,), {}, X3),
    ("LPPool2d", (2, 3), {}, X2),
    ("AdaptiveAvgPool1d", (3,), {}, X1),
    ("AdaptiveAvgPool2d", ((2, None),), {}, X2),
    ("AdaptiveMaxPool2d", (3,), {}, X2),
    ("ZeroPad2d", (1,), {}, X2),
    ("ConstantPad1d", ((1, 2), 3.5), {}, X1),
    ("ReflectionPad2d", ((1, 2, 3, 1),), {}, X2),
    ("ReplicationPad3d", (1,), {}, X3),
    ("CircularPad2d", (1,), {}, X2),
    ("Upsample", (), {"scale_factor": 2}, X2),
    ("UpsamplingBilinear2d", (9,), {}, X2),
    ("PixelShuffle", (2,), {}, X2),
    ("PixelUnshuffle", (2,), {}, (2, 4, 6, 8)),
    ("ChannelShuffle", (2,), {}, X2),
    ("Unfold", (2,), {}, X2),
    ("Fold", ((4, 5), 2), {}, (2, 8, 12)),
    *[(n, (), {}, X1) for n in "ReLU ReLU6 Sigmoid Hardsigmoid Tanh SiLU Mish Hardswish ELU CELU SELU GELU".split()],
    *[(n, (), {}, X1) for n in "LogSigmoid Softplus Softsign Tanhshrink LeakyReLU Hardtanh PReLU".split()],
    *[(n, (), {}, X1) for n in "Hardshrink Softshrink".split()],
    *[(n, (-1,), {}, X1) for n in "Softmax LogSoftmax Softmin".split()],
    ("GLU", (1,), {}, X1),
    ("Threshold", (0.1, 2.0), {}, X1),
    ("RNN", (8, 5, 2), {"bidirectional": True}, (7, 2, 8)),
    ("LSTM", (8, 5), {}, (7, 2, 8)),
    ("LSTM", (8, 5, 2), {"bidirectional": True, "batch_first": True}, (2, 7, 8)),
    ("LSTM", (8, 5), {"proj_size": 3}, (7, 8)),
    ("GRU", (8, 5, 2), {}, (7, 2, 8)),
    ("RNNCell", (8, 5), {"nonlinearity": "relu"}, (2, 8)),
    ("LSTMCell", (8, 5), {}, (2, 8)),
    ("GRUCell", (8, 5), {}, (8,)),
    ("TransformerEncoderLayer", (8, 2, 16), {"dropout": 0.0}, (5, 2, 8)),
    ("TransformerEncoderLayer", (8, 2, 16), {"dropout": 0.0, "norm_first": True, "batch_first": True}, (2, 5, 8)),
]


def leaves(out):
    return [t for o in out for t in leaves(o)] if isinstance(out, (tuple, list)) else [out]


@pytest.mark.parametrize("name, args, options, shape", CASES, ids=lambda v: v if isinstance(v, str) else None)
def test_layer(name, args, options, shape):
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")

    def made(m):
        m.manual_seed(3)
        return getattr(m.nn, name)(*args, **options)

    mine, theirs = made(fl), made(torch)
    assert repr(mine) == repr(theirs)
    a, b = mine.state_dict(), theirs.state_dict()
    assert list(a) == list(b) and a._metadata == b._metadata
    for k in b:
        np.testing.assert_array_equal(a[k].numpy(), b[k].numpy(), err_msg=k)

    def results(m, layer):
        given = m.tensor(x).requires_grad_()
        outs = leaves(layer(given))
        sum((o * o).sum() for o in outs).backward()
        return [*outs, given.grad, *[p.grad for p in layer.parameters()], *layer.buffers()]

    for p, q in zip(results(fl, mine), results(torch, theirs), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=2e-4, atol=2e-5)


def test_every_module_is_there_with_its_signature():
    absent = {"AdaptiveLogSoftmaxWithLoss", "LinearCrossEntropyLoss", "LinearCrossEntropyOptions"}
    for name in set(torch.nn.modules.__all__) - absent:
        mine, theirs = getattr(fl.nn, name), getattr(torch.nn, name)
        assert mine.__module__ == theirs.__module__.replace("torch", "flambeau", 1), name
        if name.startswith("Lazy") or name == "NLLLoss2d":
            continue

        def parameters(cls):
            return [(p.name, p.kind) for p in inspect.signature(cls.__init__).parameters.values()]

        assert parameters(mine) == parameters(theirs), name


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("options", [{}, {"kdim": 6, "vdim": 4}, {"add_bias_kv": True, "add_zero_attn": True}])
def test_attention(options, batch_first):
    rng = np.random.default_rng(0)
    shapes = [(5, 2, 8), (7, 2, options.get("kdim", 8)), (7, 2, options.get("vdim", 8))]
    q, k, v = (rng.standard_normal(s).astype("float32") for s in shapes)
    if batch_first:
        q, k, v = (t.swapaxes(0, 1) for t in (q, k, v))
    mask = np.triu(np.ones((5, 7), bool), 2)

    def results(m):
        m.manual_seed(0)
        layer = m.nn.MultiheadAttention(8, 2, batch_first=batch_first, **options)
        given = [m.tensor(np.ascontiguousarray(t)) for t in (q, k, v)]
        out = [*layer(*given), *layer(*given, attn_mask=m.tensor(mask), average_attn_weights=False)]
        return [*out, layer(*given, need_weights=False)[0]]

    for a, b in zip(results(fl), results(torch), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_transformer():
    rng = np.random.default_rng(0)
    src, tgt = (rng.standard_normal(s).astype("float32") for s in ((6, 2, 8), (5, 2, 8)))

    def result(m):
        m.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = m.nn.Transformer(8, 2, 2, 2, 16, dropout=0.0)
        mask = net.generate_square_subsequent_mask(5)
        return net(m.tensor(src), m.tensor(tgt), tgt_mask=mask)

    np.testing.assert_allclose(result(fl).detach().numpy(), result(torch).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_packed_sequences():
    x = np.random.default_rng(0).standard_normal((6, 4, 3)).astype("float32")

    def results(m):
        m.manual_seed(0)
        rnn = m.nn.utils.rnn
        layer = m.nn.LSTM(3, 5, 2, bidirectional=True)
        packed = rnn.pack_padded_sequence(m.tensor(x), [3, 6, 1, 3], enforce_sorted=False)
        out, (h, c) = layer(packed)
        return [*rnn.pad_packed_sequence(out, total_length=7), h, c, packed.data, packed.batch_sizes]

    for a, b in zip(results(fl), results(torch), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-4, atol=1e-5)
