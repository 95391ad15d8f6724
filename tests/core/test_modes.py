"""The context managers that switch recording: as blocks, calls and decorators of everything that can be decorated."""

import subprocess
import sys

import pytest

import flambeau
from tests.autograd.transcripts import differences, recorded, run

START = "x = T.ones(1, requires_grad=True)\non = T.is_grad_enabled\n"

PROGRAMS = {
    "blocks": """
with T.no_grad():
    a = on()
    with T.enable_grad(): b = on()
    c = on()
    with T.set_grad_enabled(True): d = on()
    with T.set_grad_enabled(False): e = on()
    f = on()
a, b, c, d, e, f, on()
with T.no_grad() as n: pass
n
with T.set_grad_enabled(True) as n: pass
n
""",
    "results": """
with T.no_grad(): a, b, c = x * 2, x.view(1), x.clone()
a.requires_grad, c.requires_grad, a.is_leaf
with T.no_grad(), T.enable_grad(): d = x * 2
d
with T.no_grad():
    p = T.nn.Parameter(T.ones(1))
    q = T.ones(1, requires_grad=True)
p.requires_grad, q.requires_grad
""",
    "set_grad_enabled as a call": """
r = T.set_grad_enabled(False)
r
on()
T.set_grad_enabled(True)
on()
with T.no_grad():
    _ = T.set_grad_enabled(True)
    a = on()
a, on()
T.set_grad_enabled(1)
T.set_grad_enabled('a')
T.set_grad_enabled(None)
on()
""",
    "errors leave the mode as it was": """
try:
    with T.no_grad(): 1 / 0
except ZeroDivisionError: pass
on()
try:
    with T.set_grad_enabled(False): 1 / 0
except ZeroDivisionError: pass
on()
try:
    with T.inference_mode(): 1 / 0
except ZeroDivisionError: pass
on(), T.is_inference_mode_enabled()
@T.no_grad()
def f(): 1 / 0
f()
on()
def g():
    with T.no_grad(): return on()
g(), on()
for i in range(3):
    with T.no_grad():
        if i == 1: break
on()
""",
    "one object entered again": """
n = T.no_grad()
with n: a = on()
with n:
    b = on()
c = on()
a, b, c
m = T.inference_mode()
with m: d = T.is_inference_mode_enabled()
with m: e = T.is_inference_mode_enabled()
d, e, T.is_inference_mode_enabled()
s = T.set_grad_enabled(False)
on()
with s: pass
on()
""",
    "functions": """
@T.no_grad()
def a(v, *, k=1):
    'doc'
    return on(), v, k
@T.no_grad
def b(): return on()
@T.enable_grad()
def c(): return on()
@T.enable_grad
def d(): return on()
@T.set_grad_enabled(False)
def e(): return on()
on()
a(3, k=4), b(), c(), d(), e(), on()
with T.no_grad(): inner = a(1), b(), c(), d(), e()
inner
a.__name__, a.__doc__, b.__name__, a.__wrapped__(1)
f = T.no_grad(lambda: on())
f()
@T.no_grad()
@T.enable_grad()
def g(): return on()
g()
def rec(n): return [on()] + (rec2(n - 1) if n else [])
rec2 = T.no_grad()(rec)
rec2(2), on()
@T.no_grad()
def outer():
    @T.enable_grad()
    def inner(): return on()
    return on(), inner(), on()
outer()
""",
    "methods": """
class C:
    @T.no_grad()
    def m(self): return on()
    @classmethod
    @T.no_grad()
    def c(cls): return on(), cls.__name__
    @staticmethod
    @T.no_grad()
    def s(): return on()
    @T.no_grad()
    @staticmethod
    def s2(): return on()
    @property
    @T.no_grad
    def p(self): return on()
    @T.no_grad
    def __call__(self): return on()
C().m(), C.c(), C.s(), C.s2(), C().p, C()(), on()
class M(T.nn.Module):
    def __init__(self):
        super().__init__()
        self.l = T.nn.Linear(1, 1)
    @T.no_grad()
    def forward(self, v): return self.l(v)
M()(x).requires_grad
import functools
functools.partial(T.no_grad()(lambda v: (on(), v)), 1)()
""",
    "classes": """
@T.no_grad()
class C:
    def __init__(self, v=0): self.on, self.v = on(), v
    def m(self): return on()
C().on, C(3).v, C().m(), on()
@T.no_grad()
class D:
    pass
type(D()).__name__
""",
    "generators": """
@T.no_grad()
def g(n):
    for i in range(n):
        got = yield on()
    return got
seen = []
for v in g(2): seen.append((v, on()))
seen
it = g(2)
next(it), it.send('a'), on()
try: it.send('b')
except StopIteration as e: print_me = e.value
print_me
@T.enable_grad
def h(): yield on()
with T.no_grad(): r = list(h()), on()
r
def delegated(): return (yield from g(1))
list(delegated())
sum(1 for _ in g(3)), on()
g.__name__
""",
    "generators closed, thrown into, abandoned": """
log = []
@T.no_grad()
def g():
    try:
        while True:
            try: yield on()
            except ValueError: log.append(('caught', on()))
    finally: log.append(('done', on()))
it = g()
next(it)
it.throw(ValueError('a')), on()
it.close()
log, on()
log.clear()
it = g()
next(it)
del it
log, on()
it = g()
next(it)
it.throw(KeyError('b'))
on()
@T.no_grad()
def stubborn():
    try: yield 1
    except GeneratorExit: yield 2
it = stubborn()
next(it)
it.close()
on()
@T.no_grad()
def returns():
    try: yield 1
    except ValueError: return 5
it = returns()
next(it)
it.throw(ValueError)
on()
""",
    "a block in a generator": """
def g():
    with T.no_grad():
        yield on()
        yield on()
it = g()
next(it), on()
list(it), on()
it = g()
next(it)
it.close()
on()
""",
    "coroutines": """
import asyncio
@T.no_grad()
async def f(): return on()
async def block():
    with T.no_grad():
        a = on()
        await asyncio.sleep(0)
        b = on()
    return a, b, on()
@T.no_grad()
async def ag():
    yield on()
asyncio.run(f()), on()
asyncio.run(block()), on()
async def collect(): return [v async for v in ag()]
asyncio.run(collect()), on()
""",
    "threads have modes of their own": """
import threading
seen = []
def f():
    seen.append(on())
    T.set_grad_enabled(False)
    seen.append(on())
with T.no_grad():
    t = threading.Thread(target=f)
    t.start()
    t.join()
seen, on()
def h():
    with T.inference_mode():
        barrier.wait()
        barrier.wait()
barrier = threading.Barrier(2)
t = threading.Thread(target=h)
t.start()
n = barrier.wait()
other = on(), T.is_inference_mode_enabled(), T.ones(1).is_inference()
n = barrier.wait()
t.join()
other
""",
    "names": """
g = T.autograd.grad_mode
g.no_grad is T.no_grad, g.enable_grad is T.enable_grad, g.set_grad_enabled is T.set_grad_enabled, g.inference_mode is T.inference_mode
T.autograd.no_grad is T.no_grad, T.autograd.set_grad_enabled is T.set_grad_enabled, T.autograd.inference_mode is T.inference_mode
sorted(g.__all__)
str(T.set_grad_enabled(True))
isinstance(T.no_grad(), T.no_grad), T.no_grad.__name__
T.autograd.grad_mode.set_multithreading_enabled is T.autograd.set_multithreading_enabled
""",
    "subclasses": """
class Quiet(T.no_grad):
    def __enter__(self):
        super().__enter__()
        self.entered = True
q = Quiet()
with q: a = on()
a, q.entered, on()
@Quiet()
def f(): return on()
f()
""",
    "backward": """
with T.no_grad():
    with T.enable_grad(): y = (x * x).sum()
    y.backward()
x.grad
@T.no_grad()
def hook(g): return g * 3
y = x * 2
h = y.register_hook(hook)
y.sum().backward()
x.grad
seen = []
y = x * 2
h = y.register_hook(lambda g: seen.append(on()))
y.sum().backward()
T.autograd.grad((x * x).sum(), x, create_graph=True)
seen
""",
    "an ExitStack": """
import contextlib
with contextlib.ExitStack() as s:
    s.enter_context(T.no_grad())
    a = on()
    s.enter_context(T.enable_grad())
    b = on()
a, b, on()
with contextlib.nullcontext() if False else T.no_grad(): c = on()
c
""",
    "multithreading": """
with T.autograd.set_multithreading_enabled(False): pass
T.autograd.set_multithreading_enabled(False).mode
with T.autograd.set_multithreading_enabled(True): (x * x).sum().backward()
x.grad
""",
}
PROGRAMS = {name: START + text for name, text in PROGRAMS.items()}

RECORDED = recorded(__file__)


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_recorded(name):
    found = differences(name, run(PROGRAMS[name], flambeau), RECORDED[name])
    flambeau.set_grad_enabled(True)
    assert not found, "\n".join(found)


@pytest.mark.torch
def test_recorded_as_torch_has_it():
    torch = pytest.importorskip("torch")
    found = []
    for name, text in PROGRAMS.items():
        found += differences(name, RECORDED[name], run(text, torch))
        torch.set_grad_enabled(True)
    assert not found, "\n".join(found)


def test_a_decorated_class_warns_and_stays_a_class():
    with pytest.warns(FutureWarning, match="Decorating classes is deprecated"):

        @flambeau.no_grad()
        class C:
            def __init__(self):
                self.on = flambeau.is_grad_enabled()

    assert isinstance(C(), C) and not C().on and flambeau.is_grad_enabled()


def test_tasks_have_modes_of_their_own():
    import asyncio

    async def quiet(ready, go):
        with flambeau.no_grad():
            ready.set()
            await go.wait()
            return flambeau.is_grad_enabled()

    async def main():
        ready, go = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(quiet(ready, go))
        await ready.wait()
        here = flambeau.is_grad_enabled()
        go.set()
        return here, await task

    assert asyncio.run(main()) == (True, False)


def test_under_flambeau_run(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import torch\n@torch.no_grad()\nclass C:\n    def __init__(self): self.on = torch.is_grad_enabled()\n"
        "@torch.inference_mode\ndef f(): return torch.ones(1).is_inference()\nprint(C().on, f(), torch.is_grad_enabled())\n"
    )
    done = subprocess.run([sys.executable, "-m", "flambeau", "run", str(program)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "True", "True"], done.stderr
