"""The workloads of `flambeau bench`, in PyTorch's API alone: one process runs one of them.

    python workloads.py NAME [THREADS]

prints a line of JSON: the median seconds of a step, the number of steps timed, the peak of the resident memory.
`torch` is whatever the path makes it: the bench runs this file once with PyTorch and once with flambeau.
"""

import json
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

BUDGET = 1.0  # seconds of timed steps, after two steps or more of warming up


def xor():
    """Linear 2-8-1, tanh, the four rows of exclusive or, SGD."""
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()

    return step


def pointwise_small():
    """100 times y = y*b + b on 10 floats, and backward."""
    x = torch.rand(10, requires_grad=True)
    b = torch.rand(10)

    def step():
        x.grad = None
        y = x
        for _ in range(100):
            y = y * b + b
        y.sum().backward()

    return step


def mlp():
    """784-512-512-10, ReLU, batch 128, Adam."""
    x, y = torch.randn(128, 784), torch.randint(0, 10, (128,))
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    return trainer(model, torch.optim.Adam(model.parameters()), x, y)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A of He et al., 2015)."""

    def __init__(self, channels_in, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.widens = channels - channels_in

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.widens:
            half = self.widens // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
        return F.relu(y + x)


class ResNet20(nn.Module):
    """The CIFAR-10 network of He et al., 2015, with n = 3."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        blocks, channels = [], 16
        for width, stride in [(16, 1)] * 3 + [(32, 2)] + [(32, 1)] * 2 + [(64, 2)] + [(64, 1)] * 2:
            blocks.append(BasicBlock(channels, width, stride))
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def resnet20():
    """CIFAR ResNet-20, batch 64 of 3x32x32, SGD with momentum."""
    x, y = torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))
    model = ResNet20()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    return trainer(model, optimizer, x, y)


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(a.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, vocabulary=256, context=128, width=256, heads=8, layers=4):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        return self.head(self.norm(self.blocks(x)))


def gpt():
    """4 layers, width 256, 8 heads, 8 x 128 tokens, vocabulary 256, AdamW."""
    tokens = torch.randint(0, 256, (8, 129))
    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)

    def step():
        optimizer.zero_grad()
        logits = model(tokens[:, :-1])
        F.cross_entropy(logits.reshape(-1, 256), tokens[:, 1:].reshape(-1)).backward()
        optimizer.step()

    return step


def lstm():
    """LSTM 64-256, 32 x 64 steps, Adam."""
    x, y = torch.randn(32, 64, 64), torch.randint(0, 10, (32,))
    rnn, head = nn.LSTM(64, 256, batch_first=True), nn.Linear(256, 10)
    optimizer = torch.optim.Adam([*rnn.parameters(), *head.parameters()])

    def step():
        optimizer.zero_grad()
        hidden, _ = rnn(x)
        F.cross_entropy(head(hidden[:, -1]), y).backward()
        optimizer.step()

    return step


def pointwise_large():
    """Sum of sin(x)exp(-x²)+tanh(x)sigmoid(x) on 4 million floats, and backward."""
    x = torch.randn(4_000_000, requires_grad=True)

    def step():
        x.grad = None
        (torch.sin(x) * torch.exp(-(x**2)) + torch.tanh(x) * torch.sigmoid(x)).sum().backward()

    return step


CHAIN = 1_000_000


def chain():
    """1,000,000 nodes y = y * 1.0000001, backward, release."""
    x = torch.ones((), requires_grad=True)

    def step(length=CHAIN):
        x.grad = None
        before = resident()
        y = x
        for _ in range(length):
            y = y * 1.0000001
        step.bytes_per_node = max(step.bytes_per_node, (resident() - before) / CHAIN)
        y.backward()
        del y

    step.bytes_per_node = 0.0
    step(1000)
    step.warm = 0
    return step


def first_step():
    """Import and the first step of mlp, in a fresh process with caches warm: the whole process is timed."""
    step = mlp()
    step.once = True
    return step


def trainer(model, optimizer, x, y):
    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def per_sample():
    """Gradients of each of 32 examples of 3x32x32, by vmap of grad: two convolutions, two poolings, a linear layer."""
    from torch.func import functional_call, grad, vmap

    x, y = torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2048, 10),
    )  # fmt: skip
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters, x, y):
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))
    return lambda: gradients(parameters, x, y)


DEPTH = 64


class Residual(nn.Module):
    """x + W2 gelu(W1 norm(x)), four times as wide inside."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.grow, self.shrink = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return x + self.shrink(F.gelu(self.grow(self.norm(x))))


def checkpoint_sequential_8(layers, x):
    """64 residual layers of width 128, batch 512, in 8 = sqrt(64) segments."""
    return checkpoint_sequential(layers, 8, x, use_reentrant=False)


def checkpoint_every_layer(layers, x):
    """The same, each layer a checkpoint."""
    for layer in layers:
        x = checkpoint(layer, x, use_reentrant=False)
    return x


def compare(forward, width=128, batch=512):
    """Memory and time of forward and backward with checkpoints, and of the same network without.

    Memory is the peak less what parameters and their gradients take. The steps take turns, and the best of each counts.
    """
    layers = nn.Sequential(*[Residual(width) for _ in range(DEPTH)])

    def step(forward, x):
        for p in layers.parameters():
            p.grad.zero_()
        forward(layers, x).square().mean().backward()

    for p in layers.parameters():
        p.grad = torch.zeros_like(p)
    x = torch.randn(batch, width)
    step(forward, x[:32])
    result = {}
    for prefix, form in (("", forward), ("plain_", lambda layers, x: layers(x))):
        reset_peak()
        before = resident()
        step(form, x)
        result[prefix + "memory"] = peak() - before
    times = {"seconds": [], "plain_seconds": []}
    end = time.perf_counter() + 8 * BUDGET
    while len(times["seconds"]) < 3 or time.perf_counter() < end:
        for key, form in (("plain_seconds", lambda layers, x: layers(x)), ("seconds", forward)):
            start = time.perf_counter()
            step(form, x)
            times[key].append(time.perf_counter() - start)
    return result | {key: min(t) for key, t in times.items()} | {"steps": len(times["seconds"]), "peak": peak()}


def resident():
    """Bytes of this process in memory now."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return peak()


def peak():
    """Bytes of this process in memory at its largest. Not ru_maxrss where the kernel knows better: that one starts
    at the parent's peak."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak():
    """Let ``peak`` begin anew, where the kernel can; elsewhere measure the smaller first."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


COMPARISONS = {f.__name__: f for f in (checkpoint_sequential_8, checkpoint_every_layer)}
WORKLOADS = {
    f.__name__: f for f in (xor, pointwise_small, mlp, resnet20, gpt, lstm, pointwise_large, chain, per_sample, first_step)
}


def measure(name):
    """Warms up, then times steps for BUDGET seconds, at least three."""
    torch.manual_seed(0)
    if name in COMPARISONS:
        return compare(COMPARISONS[name])
    step = WORKLOADS[name]()
    if getattr(step, "once", False):
        step()
        return {"steps": 1, "peak": peak()}
    warm_until = time.perf_counter() + BUDGET / 4
    for i in range(getattr(step, "warm", 10_000)):
        step()
        if i >= 1 and time.perf_counter() > warm_until:
            break
    times = []
    end = time.perf_counter() + BUDGET
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 5000):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    result = {"seconds": statistics.median(times), "best": min(times), "steps": len(times), "peak": peak()}
    if hasattr(step, "bytes_per_node"):
        result["bytes_per_node"] = step.bytes_per_node
    return result


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else 2)
    report = measure(sys.argv[1])
    report["version"] = str(torch.__version__)
    print(json.dumps(report))
