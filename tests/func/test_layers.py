"""Every layer under every transformation: each against a loop or against reverse mode, and none by looping itself."""

import warnings

import pytest

import flambeau as torch
from flambeau import nn
from flambeau.autograd import forward_ad
from flambeau.autograd.transforms import batching
from flambeau.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap

from .both import check

BATCH = 3


def randn(*shape):
    return torch.randn(list(shape))


def tokens(*shape):
    return torch.randint(0, 7, shape)


def probabilities(*shape):
    return torch.rand(*shape) * 0.8 + 0.1


def signs(*shape):
    return torch.sign(randn(*shape))


class First(nn.Module):
    """The output of a recurrent layer, without its states."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args):
        return self.module(*args)[0]


class SelfAttention(nn.Module):
    def __init__(self, need_weights=False, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, **options)
        self.need_weights = need_weights

    def forward(self, x):
        out, weights = self.attention(x, x, x, need_weights=self.need_weights)
        return out if weights is None else out.sum(-1) + weights.sum(-1)


ONE = {"batch_first": True, "dropout": 0.0}

# (makes the layer, makes one example: a tensor or a tuple of the layer's arguments)
LAYERS = {
    "linear": (lambda: nn.Linear(3, 4), lambda: randn(2, 3)),
    "linear of a vector": (lambda: nn.Linear(3, 4), lambda: randn(3)),
    "linear of more dimensions": (lambda: nn.Linear(3, 4, bias=False), lambda: randn(2, 5, 3)),
    "bilinear": (lambda: nn.Bilinear(3, 3, 4), lambda: (randn(2, 3), randn(2, 3))),
    "conv1d": (lambda: nn.Conv1d(2, 4, 3, padding=1), lambda: randn(2, 2, 5)),
    "conv2d": (lambda: nn.Conv2d(2, 4, 3, padding=1), lambda: randn(2, 2, 5, 5)),
    "conv2d of one image": (lambda: nn.Conv2d(2, 4, 3, padding=1, stride=2), lambda: randn(2, 5, 5)),
    "conv2d in groups": (lambda: nn.Conv2d(4, 4, 3, groups=2, bias=False), lambda: randn(2, 4, 5, 5)),
    "conv2d, circular": (lambda: nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), lambda: randn(2, 2, 5, 5)),
    "conv2d, reflected": (lambda: nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), lambda: randn(2, 2, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), lambda: randn(2, 2, 3, 3, 3)),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(2, 4, 3, stride=2), lambda: randn(2, 2, 5)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1), lambda: randn(2, 2, 4, 4)),
    "conv_transpose3d": (lambda: nn.ConvTranspose3d(2, 4, 2, groups=2), lambda: randn(2, 2, 3, 3, 3)),
    "layer_norm": (lambda: nn.LayerNorm(5), lambda: randn(2, 3, 5)),
    "layer_norm over two": (lambda: nn.LayerNorm((3, 5), bias=False), lambda: randn(2, 3, 5)),
    "rms_norm": (lambda: nn.RMSNorm(5), lambda: randn(2, 3, 5)),
    "group_norm": (lambda: nn.GroupNorm(2, 4), lambda: randn(2, 4, 5)),
    "instance_norm": (lambda: nn.InstanceNorm2d(4, affine=True), lambda: randn(2, 4, 3, 3)),
    "instance_norm, plain": (lambda: nn.InstanceNorm1d(4), lambda: randn(2, 4, 5)),
    "instance_norm, eval": (lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True).eval(), lambda: randn(2, 4, 3, 3)),
    "batch_norm": (lambda: nn.BatchNorm2d(4, track_running_stats=False), lambda: randn(3, 4, 2, 2)),
    "batch_norm of vectors": (lambda: nn.BatchNorm1d(4, affine=False, track_running_stats=False), lambda: randn(3, 4)),
    "batch_norm, eval": (lambda: nn.BatchNorm2d(4).eval(), lambda: randn(3, 4, 2, 2)),
    "local_response_norm": (lambda: nn.LocalResponseNorm(2), lambda: randn(3, 4, 5)),
    "embedding": (lambda: nn.Embedding(7, 3), lambda: tokens(4)),
    "embedding_bag": (lambda: nn.EmbeddingBag(7, 3), lambda: tokens(2, 4)),
    "attention": (lambda: SelfAttention(batch_first=True), lambda: randn(2, 3, 4)),
    "attention and its weights": (lambda: SelfAttention(True, batch_first=True), lambda: randn(2, 3, 4)),
    "attention of one sequence": (lambda: SelfAttention(), lambda: randn(3, 4)),
    "attention, eval": (lambda: SelfAttention(batch_first=True).eval(), lambda: randn(2, 3, 4)),
    "encoder layer": (lambda: nn.TransformerEncoderLayer(4, 2, 8, **ONE), lambda: randn(2, 3, 4)),
    "encoder layer, eval": (lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, activation="gelu").eval(), lambda: randn(2, 3, 4)),
    "decoder layer": (lambda: nn.TransformerDecoderLayer(4, 2, 8, **ONE), lambda: (randn(2, 3, 4), randn(2, 5, 4))),
    "transformer": (lambda: nn.Transformer(4, 2, 1, 1, 8, **ONE), lambda: (randn(2, 3, 4), randn(2, 5, 4))),
    "lstm": (lambda: First(nn.LSTM(3, 4, batch_first=True)), lambda: randn(2, 4, 3)),
    "lstm of one sequence": (lambda: First(nn.LSTM(3, 4)), lambda: randn(4, 3)),
    "lstm, two layers both ways": (lambda: First(nn.LSTM(3, 2, 2, bidirectional=True)), lambda: randn(3, 2, 3)),
    "lstm with a projection": (lambda: First(nn.LSTM(3, 4, proj_size=2)), lambda: randn(3, 2, 3)),
    "gru": (lambda: First(nn.GRU(3, 4)), lambda: randn(4, 2, 3)),
    "gru without bias": (lambda: First(nn.GRU(3, 4, bias=False)), lambda: randn(4, 3)),
    "gru with a state": (lambda: First(nn.GRU(3, 4)), lambda: (randn(4, 2, 3), randn(1, 2, 4))),
    "rnn": (lambda: First(nn.RNN(3, 4)), lambda: randn(4, 2, 3)),
    "rnn, relu": (lambda: First(nn.RNN(3, 4, nonlinearity="relu")), lambda: randn(4, 2, 3)),
    "lstm cell": (lambda: First(nn.LSTMCell(3, 4)), lambda: randn(2, 3)),
    "gru cell": (lambda: nn.GRUCell(3, 4), lambda: randn(2, 3)),
    "gru cell of a vector": (lambda: nn.GRUCell(3, 4), lambda: randn(3)),
    "rnn cell": (lambda: nn.RNNCell(3, 4), lambda: randn(2, 3)),
    "max_pool of one image": (lambda: nn.MaxPool2d(3, 2, 1), lambda: randn(2, 5, 5)),
    "unfold": (lambda: nn.Unfold(2), lambda: randn(2, 3, 4, 4)),
    "fold": (lambda: nn.Fold((3, 3), 2), lambda: randn(2, 8, 4)),
    "pixel_shuffle": (lambda: nn.PixelShuffle(2), lambda: randn(2, 8, 3, 3)),
    "pixel_unshuffle": (lambda: nn.PixelUnshuffle(2), lambda: randn(2, 2, 4, 4)),
    "channel_shuffle": (lambda: nn.ChannelShuffle(2), lambda: randn(2, 4, 3, 3)),
    "flatten": (nn.Flatten, lambda: randn(2, 4, 3)),
    "unflatten": (lambda: nn.Unflatten(1, (2, 2)), lambda: randn(2, 4, 3)),
    "threshold": (lambda: nn.Threshold(0.1, 2), lambda: randn(3, 4)),
    "softmax2d": (nn.Softmax2d, lambda: randn(3, 4, 2, 2)),
    "prelu of channels": (lambda: nn.PReLU(4), lambda: randn(3, 4)),
    "zeros around": (lambda: nn.ZeroPad2d(1), lambda: randn(2, 3, 4, 4)),
    "reflection": (lambda: nn.ReflectionPad2d(1), lambda: randn(2, 3, 4, 4)),
    "replication": (lambda: nn.ReplicationPad1d(1), lambda: randn(2, 3, 4)),
    "circular": (lambda: nn.CircularPad2d(1), lambda: randn(2, 3, 4, 4)),
    "cosine similarity": (nn.CosineSimilarity, lambda: (randn(3, 4), randn(3, 4))),
    "pairwise distance": (nn.PairwiseDistance, lambda: (randn(3, 4), randn(3, 4))),
    "cross entropy, smooth": (lambda: nn.CrossEntropyLoss(label_smoothing=0.1, ignore_index=2), lambda: (randn(3, 7), tokens(3))),
    "cross entropy, weighted": (lambda: nn.CrossEntropyLoss(torch.arange(1.0, 8.0)), lambda: (randn(3, 7), tokens(3))),
    "cross entropy with probabilities": (nn.CrossEntropyLoss, lambda: (randn(3, 7), randn(3, 7).softmax(1))),
    "cross entropy of images": (nn.CrossEntropyLoss, lambda: (randn(2, 7, 3), tokens(2, 3))),
}
for n in (1, 2, 3):
    for kind in ("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "LPPool"):
        of = getattr(nn, f"{kind}{n}d")
        LAYERS[f"{kind}{n}d"] = (lambda of=of, a=(2, 2) if kind == "LPPool" else (2,): of(*a), lambda n=n: randn(2, 3, *(4,) * n))
for mode, n in {"nearest": 1, "nearest-exact": 2, "linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3, "area": 2}.items():
    LAYERS["upsample, " + mode] = (lambda mode=mode: nn.Upsample(scale_factor=2, mode=mode), lambda n=n: randn(2, 3, *(3,) * n))
ACTIVATIONS = (
    "ELU Hardshrink Hardsigmoid Hardtanh Hardswish LeakyReLU LogSigmoid PReLU ReLU ReLU6 SELU CELU GELU Sigmoid SiLU Mish Softplus "
    "Softshrink Softsign Tanh Tanhshrink GLU Softmin Softmax LogSoftmax"
)
for name in ACTIVATIONS.split():
    how = {"dim": -1} if "Soft" in name and name[-3:] in ("min", "max") else {}
    LAYERS[name] = (lambda of=getattr(nn, name), how=how: of(**how), lambda: randn(3, 4))
LOSSES = {
    "L1Loss": lambda: (randn(3, 4), randn(3, 4)),
    "MSELoss": lambda: (randn(3, 4), randn(3, 4)),
    "SmoothL1Loss": lambda: (randn(3, 4), randn(3, 4)),
    "HuberLoss": lambda: (randn(3, 4), randn(3, 4)),
    "CrossEntropyLoss": lambda: (randn(3, 7), tokens(3)),
    "NLLLoss": lambda: (randn(3, 7).log_softmax(1), tokens(3)),
    "BCELoss": lambda: (probabilities(3, 4), probabilities(3, 4)),
    "BCEWithLogitsLoss": lambda: (randn(3, 4), probabilities(3, 4)),
    "KLDivLoss": lambda: (randn(3, 4).log_softmax(1), probabilities(3, 4)),
    "PoissonNLLLoss": lambda: (randn(3, 4), probabilities(3, 4)),
    "GaussianNLLLoss": lambda: (randn(3, 4), randn(3, 4), probabilities(3, 4)),
    "HingeEmbeddingLoss": lambda: (randn(3, 4), signs(3, 4)),
    "SoftMarginLoss": lambda: (randn(3, 4), signs(3, 4)),
    "MultiLabelMarginLoss": lambda: (randn(3, 4), torch.randint(0, 4, (3, 4))),
    "MultiLabelSoftMarginLoss": lambda: (randn(3, 4), probabilities(3, 4).round()),
    "MultiMarginLoss": lambda: (randn(3, 7), tokens(3)),
    "CosineEmbeddingLoss": lambda: (randn(3, 4), randn(3, 4), signs(3)),
    "MarginRankingLoss": lambda: (randn(3), randn(3), signs(3)),
    "TripletMarginLoss": lambda: (randn(3, 4), randn(3, 4), randn(3, 4)),
    "CTCLoss": lambda: (randn(6, 2, 7).log_softmax(2), torch.randint(1, 7, (2, 3)), torch.tensor([6, 6]), torch.tensor([3, 2])),
}
for name, example in LOSSES.items():
    for reduction in ("mean", "sum", "none"):
        LAYERS[f"{name}, {reduction}"] = (lambda of=getattr(nn, name), r=reduction: of(reduction=r), example)

NO_TANGENTS = {name: "PyTorch has none either" for name in LAYERS if name.startswith("CTCLoss")}


def close(found, expected):
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4, equal_nan=True), (found - expected).abs().max()


class Layer:
    """A layer as a function of (parameters, buffers, *inputs), and a batch of examples for it."""

    def __init__(self, name):
        torch.manual_seed(0)
        self.make, example = LAYERS[name]
        self.module = self.make()
        examples = [e if isinstance(e, tuple) else (e,) for e in (example() for _ in range(BATCH))]
        self.batch = [torch.stack(ts) for ts in zip(*examples)]
        self.floats = [i for i, x in enumerate(self.batch) if x.is_floating_point()]
        self.parameters = {n: p.detach() for n, p in self.module.named_parameters()}
        self.buffers = dict(self.module.named_buffers())
        self.weights = randn(*self.module(*self.example(0)).shape)  # of a loss that no gradient of is zero by symmetry

    def __call__(self, parameters, buffers, *inputs):
        return functional_call(self.module, (parameters, buffers), inputs)

    def example(self, i):
        return [x[i] for x in self.batch]

    def loss(self, parameters, buffers, *inputs):
        return (self(parameters, buffers, *inputs) * self.weights).sum()

    def of_floats(self, parameters, *inputs):
        """As a function of what is differentiable, at the first example."""
        example = self.example(0)
        for i, x in zip(self.floats, inputs):
            example[i] = x
        return self(parameters, self.buffers, *example)


@pytest.fixture(autouse=True)
def no_loops(monkeypatch):
    monkeypatch.setattr(batching, "_warned", set())  # each is said once
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="There is a performance drop")
        warnings.filterwarnings("ignore", message="reduction: 'mean' divides")
        yield


@pytest.mark.parametrize("name", LAYERS)
def test_a_batch_of_inputs(name):
    layer = Layer(name)
    found = vmap(lambda *xs: layer(layer.parameters, layer.buffers, *xs))(*layer.batch)
    close(found, torch.stack([layer.module(*layer.example(i)) for i in range(BATCH)]))


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_each_example(name):
    layer = Layer(name)
    by = (0, *[2 + i for i in layer.floats])
    of_parameters, *of_inputs = vmap(grad(layer.loss, by), in_dims=(None, None, *[0] * len(layer.batch)))(
        layer.parameters, layer.buffers, *layer.batch
    )
    for i in range(BATCH):
        parameters = {n: p.clone().requires_grad_() for n, p in layer.parameters.items()}
        inputs = [x.clone().requires_grad_(x.is_floating_point()) for x in layer.example(i)]
        layer.loss(parameters, layer.buffers, *inputs).backward()
        for n, p in parameters.items():
            close(of_parameters[n][i], p.grad)
        for g, k in zip(of_inputs, layer.floats):
            close(g[i], inputs[k].grad if inputs[k].grad is not None else torch.zeros_like(inputs[k]))


@pytest.mark.parametrize("name", [n for n in LAYERS if list(LAYERS[n][0]().parameters())])
@pytest.mark.parametrize("inputs", ["one input for all", "an input for each"])
def test_an_ensemble(name, inputs):
    layer = Layer(name)
    members = [layer.make() for _ in range(BATCH)]
    parameters, buffers = stack_module_state(members)
    each = inputs == "an input for each"
    found = vmap(layer, in_dims=(0, 0, *[0 if each else None] * len(layer.batch)))(parameters, buffers, *(layer.batch if each else layer.example(0)))
    expected = torch.stack([m(*layer.example(i if each else 0)) for i, m in enumerate(members)])
    close(found, expected)
    (found * layer.weights).sum().backward()
    (expected * layer.weights).sum().backward()
    for i, m in enumerate(members):
        for n, p in m.named_parameters():
            close(parameters[n].grad[i], p.grad)


@pytest.mark.parametrize("name", [n for n in LAYERS if n not in NO_TANGENTS])
def test_forward_mode(name):
    """<u, J t> is <J'u, t>, and tangents of duals are those of jvp."""
    layer = Layer(name)
    primals = (layer.parameters, *[layer.example(0)[i] for i in layer.floats])
    tangents = ({n: randn(*p.shape) for n, p in layer.parameters.items()}, *[randn(*x.shape) for x in primals[1:]])
    out, tangent = jvp(layer.of_floats, primals, tangents)
    _, pull = vjp(layer.of_floats, *primals)
    u = randn(*out.shape)
    of_parameters, *of_inputs = pull(u)
    products = [(g * t).sum() for g, t in zip([*of_parameters.values(), *of_inputs], [*tangents[0].values(), *tangents[1:]])]
    close((u * tangent).sum(), torch.stack(products).sum())
    with forward_ad.dual_level():
        parameters = {n: forward_ad.make_dual(p, tangents[0][n]) for n, p in layer.parameters.items()}
        inputs = [forward_ad.make_dual(x, t) for x, t in zip(primals[1:], tangents[1:])]
        close(forward_ad.unpack_dual(layer.of_floats(parameters, *inputs)).tangent, tangent)


JACOBIANS = (
    "linear", "conv2d", "conv_transpose1d", "layer_norm", "rms_norm", "group_norm", "instance_norm", "batch_norm", "batch_norm, eval", "attention",
    "encoder layer", "lstm", "gru", "rnn", "lstm cell", "MaxPool2d", "AvgPool1d", "upsample, bilinear", "GELU", "Softmax", "CrossEntropyLoss, mean",
)  # fmt: skip


@pytest.mark.parametrize("name", JACOBIANS)
def test_jacobians(name):
    layer = Layer(name)
    x = layer.example(0)[0]
    close(jacfwd(layer.of_floats, 1)(layer.parameters, x), jacrev(layer.of_floats, 1)(layer.parameters, x))


@pytest.mark.parametrize("name", JACOBIANS)
def test_hessians(name):
    layer = Layer(name)
    x = layer.example(0)[0]

    def loss(x):
        return (layer.of_floats(layer.parameters, x) * layer.weights).tanh().sum()

    h = hessian(loss)(x)
    close(h, jacrev(jacrev(loss))(x))
    close(h, jacfwd(jacfwd(loss))(x))


@pytest.mark.parametrize("name", ["linear", "conv2d", "conv2d in groups", "layer_norm", "batch_norm", "group_norm", "gru", "attention"])
def test_vmap_in_vmap(name):
    """Weights for each of the outer batch, inputs for each of both; and gradients of each of both."""
    layer = Layer(name)
    members = [layer.make() for _ in range(2)]
    parameters, buffers = stack_module_state(members)
    parameters = {n: p.detach() for n, p in parameters.items()}
    in_dims = (None, None, *[0] * len(layer.batch)), (0, 0, *[None] * len(layer.batch))
    found = vmap(vmap(layer, in_dims[0]), in_dims[1])(parameters, buffers, *layer.batch)
    of_each = vmap(vmap(grad(layer.loss), in_dims[0]), in_dims[1])(parameters, buffers, *layer.batch)
    for i, m in enumerate(members):
        close(found[i], torch.stack([m(*layer.example(k)) for k in range(BATCH)]))
        own = {n: p.detach() for n, p in m.named_parameters()}
        for k in range(BATCH):
            for n, g in grad(layer.loss)(own, dict(m.named_buffers()), *layer.example(k)).items():
                close(of_each[n][i, k], g)


# ---- running statistics ----------------------------------------------------------------------------------------------
TRACKING = {
    "batch_norm": lambda: nn.BatchNorm1d(2),
    "batch_norm without weights": lambda: nn.BatchNorm1d(2, affine=False),
    "instance_norm": lambda: nn.InstanceNorm1d(2, affine=True, track_running_stats=True),
}


@pytest.mark.parametrize("name", TRACKING)
def test_running_statistics_of_an_ensemble(name):
    torch.manual_seed(0)
    members = [TRACKING[name]() for _ in range(BATCH)]
    parameters, buffers = stack_module_state(members)
    x = torch.randn(BATCH, 4, 2, 5)
    found = vmap(lambda p, b, x: functional_call(members[0], (p, b), (x,)))(parameters, buffers, x)
    close(found, torch.stack([m(x[i]) for i, m in enumerate(members)]))
    for i, m in enumerate(members):
        for n, b in m.named_buffers():
            close(buffers[n][i].float(), b.float())


@pytest.mark.parametrize("name", TRACKING)
def test_running_statistics_of_one_module(name):
    module = TRACKING[name]()
    with pytest.raises(RuntimeError, match="Batch norm got a batched tensor as input while the running_mean or running_var"):
        vmap(module)(torch.randn(BATCH, 4, 2, 5))
    assert module.running_mean.tolist() == [0, 0] and module.num_batches_tracked.item() == 0


@pytest.mark.torch
@pytest.mark.parametrize("of", ["BatchNorm1d", "InstanceNorm1d"])
def test_running_statistics_like_torch(of):
    def program(torch):
        module = getattr(torch.nn, of)(2, track_running_stats=True)
        return torch.vmap(module)(torch.ones(BATCH, 4, 2, 5))

    check(program)


def test_only_the_weights_are_batched():
    """Then the statistics change once, for all."""
    module, x = nn.BatchNorm1d(2), torch.randn(4, 2, 5)
    weights = {"weight": torch.randn(BATCH, 2), "bias": torch.randn(BATCH, 2)}
    found = vmap(lambda p: functional_call(module, p, (x,)))(weights)
    own = nn.BatchNorm1d(2)
    close(found, own(x) * weights["weight"][:, None, :, None] + weights["bias"][:, None, :, None])
    close(module.running_mean, own.running_mean)


# ---- randomness ------------------------------------------------------------------------------------------------------
DROPOUTS = ("Dropout", "Dropout1d", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout")


@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout(name):
    module, x = getattr(nn, name)(), torch.ones(BATCH, 4, 20, 2)
    with pytest.raises(RuntimeError, match="vmap: called random operation while in randomness error mode"):
        vmap(module)(x)
    same = vmap(module, randomness="same")(x)
    assert (same == same[0]).all() and not (same == 1).all()
    different = vmap(module, randomness="different")(x)
    assert not (different == different[0]).all()
    close(vmap(module.eval())(x), x)


def test_dropout_between_recurrent_layers():
    lstm = nn.LSTM(3, 4, 2, dropout=0.5)
    x = torch.randn(5, 3).expand(BATCH, 5, 3).clone()
    with pytest.raises(RuntimeError, match="randomness error mode"):
        vmap(lambda x: lstm(x)[0])(x)
    same = vmap(lambda x: lstm(x)[0], randomness="same")(x)
    close(same, same[:1].expand_as(same))
    different = vmap(lambda x: lstm(x)[0], randomness="different")(x)
    assert not torch.allclose(different[0], different[1])
