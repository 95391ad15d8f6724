"""Random programs of views and in-place changes: the same values, gradients and refusals as PyTorch."""

import random

import pytest

import flambeau
from tests.autograd.transcripts import differences, run

VIEWS = """
{a}.t() {a}.reshape(-1) {a}[0] {a}[1:] {a}[...,:1] {a}.unsqueeze(0) {a}.transpose(0,-1) {a}.view_as({a}) {a}.diagonal() {a}.narrow(0,0,1)
{a}.squeeze() {a}.movedim(0,-1) {a}.flatten() {a}[...] {a}.unfold(0,1,1) {a}.split(1)[0] {a}.unbind()[0] {a}.chunk(2)[0]
{a}.tensor_split(2)[0] {a}.expand(2,*{a}.shape) {a}.data {a}.swapaxes(0,-1) {a}.as_strided((1,),(1,)) {a}.detach()
""".split()  # fmt: skip
CHANGES = """
{a}.mul_(2) {a}.mul_({b}.detach().sum()) {a}.add_({b}.sum()) {a}.mul_({b}.clone().sum()) {a}.sin_() {a}.zero_() {a}.fill_(3)
{a}.copy_({b}.sum()*T.ones_like({a})) {a}.neg_() {a}.masked_fill_({a}>1,0.5) {a}.index_fill_(0,T.tensor([0]),1.5) {a}.requires_grad_()
{a}.clamp_(-1,2) {a}.pow_(2) {a}.addcmul_({b}.sum(),{b}.sum()) {a}.sub_({b}.sum(),alpha=2) {a}.cumsum_(0)
{a}[0]=2.5 {a}[...]={b}.sum() {a}+=1 {a}[T.tensor([0])]={b}.mean()
""".split()  # fmt: skip
RESULTS = "{a}*2 {a}.sin() {a}*{b}.sum() {a}.clone()".split()
BASES = ["x * 1", "T.zeros(2, 3)", "x.sin()", "(x * w[:1]).view(3, 2)", "T.zeros(6).view(2, 3)"]


def program(seed: int) -> str:
    r = random.Random(seed)
    lines = ["x = T.tensor([[1., 2., 3.], [4., 5., 6.]], requires_grad=True)", "w = T.tensor([0.5, 0.25], requires_grad=True)", f"y = {r.choice(BASES)}"]
    names = ["x", "w", "y", "y"]
    for n in range(r.randint(3, 9)):
        a, b, kind = r.choice(names), r.choice(names), r.random()
        forms = VIEWS if kind < 0.45 else CHANGES if kind < 0.9 else RESULTS
        line = r.choice(forms).format(a=a, b=b)
        if forms is not CHANGES:
            line = f"v{n} = {line}"
            names.append(f"v{n}")
        elif line.endswith(")"):
            line = f"_ = {line}"
        lines.append(r.choices(["", "with T.no_grad(): ", "with T.inference_mode(): "], (85, 12, 3))[0] + line)
    each = sorted(set(names))
    lines.append("[" + ", ".join(f"({v}.detach().tolist(), {v}.requires_grad, {v}._is_view())" for v in each) + "]")
    for v in r.sample(each, len(each)):
        lines += [f"{v}.sum().backward(retain_graph=True)", "x.grad, w.grad"]
    return "\n".join(lines)


def known(shown: str) -> bool:
    """Where the two differ on purpose: a refused change of an inference tensor changes nothing here, and a view that has not been
    looked at since its base took a history is no leaf."""
    return "InferenceMode" in shown or "Inference tensors" in shown or ": a leaf Variable" in shown


@pytest.mark.torch
@pytest.mark.parametrize("first", range(0, 200, 50))
def test_as_torch(first):
    torch = pytest.importorskip("torch")
    found = []
    for seed in range(first, first + 50):
        text = program(seed)
        ours, theirs = run(text, flambeau), run(text, torch)
        if not any(map(known, ours + theirs)):
            found += [f"{d}\n{text}" for d in differences(str(seed), ours, theirs)[:1]]
    assert not found, "\n\n".join(found)
