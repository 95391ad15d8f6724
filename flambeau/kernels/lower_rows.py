"""Softmax and its relatives to LLVM: the text of what is done to a row, one loop over its vectors after the other."""

from __future__ import annotations

from collections.abc import Callable

from flambeau.kernels.lower_llvm import Emitter, Machine, attributes, lanes_for
from flambeau.kernels.lower_reduce import entry

#: Part of the cache key: raise it when the code generated here changes.
VERSION = 2

#: The job, an array of int64: these, then the addresses of the operands. Row r of a causal job sees
#: `first` + r mod `period` entries; a period of 0 means all.
JOB = ("threads", "units", "rows", "columns", "per", "period", "first", "scale")


class _Row:
    """The text of one row: loops over its vectors, the last of which is masked."""

    def __init__(self, compute: str, lanes: int, machine: Machine) -> None:
        self.e = Emitter(compute, lanes, machine)
        self.t, self.lanes = compute, lanes
        self.size, self.suffix = (4, f"v{lanes}f32") if compute == "float" else (8, f"v{lanes}f64")
        self.vec, self.wide, self.mask = self.e.vec, f"<{lanes} x double>", self.e.mask
        self.block = "row"
        load, store = f"llvm.masked.load.{self.suffix}.p0", f"llvm.masked.store.{self.suffix}.p0"
        self.e.declarations[load] = f"declare {self.vec} @{load}(ptr, i32, {self.mask}, {self.vec})"
        self.e.declarations[store] = f"declare void @{store}({self.vec}, ptr, i32, {self.mask})"

    def loop(self, label: str, end: str, start: str | None, kind: str, body: Callable[[str, str, str], str | None]) -> str:
        """Vectors up to `end`; body(index, mask, accumulator) gives the new accumulator: what the loop gives."""
        e, before = self.e, self.block
        e.lines += [
            f"  br label %{label}",
            f"{label}:",
            f"  %{label}.i = phi i64 [0, %{before}], [%{label}.next, %{label}]",
        ]
        if start is not None:
            e.lines.append(f"  %{label}.acc = phi {kind} [{start}, %{before}], [%{label}.new, %{label}]")
        new = body(f"%{label}.i", self.within(f"%{label}.i", end), f"%{label}.acc")
        if start is not None:
            e.lines.append(f"  %{label}.new = select i1 true, {kind} {new}, {kind} {new}")
        e.lines += [
            f"  %{label}.next = add i64 %{label}.i, {self.lanes}",
            f"  %{label}.more = icmp slt i64 %{label}.next, {end}",
            f"  br i1 %{label}.more, label %{label}, label %{label}.end",
            f"{label}.end:",
        ]
        self.block = f"{label}.end"
        return f"%{label}.new"

    def within(self, index: str, end: str) -> str:
        """The mask of the lanes of a vector at `index` that lie before `end`."""
        left = self.e.emit(f"trunc i64 {self.e.emit(f'sub i64 {end}, {index}')} to i32")
        kind = f"<{self.lanes} x i32>"
        lanes = ", ".join(f"i32 {i}" for i in range(self.lanes))
        return self.e.emit(f"icmp slt {kind} <{lanes}>, {self.splat(left, 'i32')}")

    def splat(self, value: str, kind: str) -> str:
        one = self.e.emit(f"insertelement <{self.lanes} x {kind}> poison, {kind} {value}, i64 0")
        vec = f"<{self.lanes} x {kind}>"
        return self.e.emit(f"shufflevector {vec} {one}, {vec} poison, <{self.lanes} x i32> zeroinitializer")

    def at(self, pointer: str, index: str) -> str:
        return self.e.emit(f"getelementptr {self.t}, ptr {pointer}, i64 {index}")

    def load(self, pointer: str, index: str, mask: str, otherwise: str = "zeroinitializer") -> str:
        at = self.at(pointer, index)
        name = f"llvm.masked.load.{self.suffix}.p0"
        return self.e.emit(f"call {self.vec} @{name}(ptr {at}, i32 1, {self.mask} {mask}, {self.vec} {otherwise})")

    def store(self, value: str, pointer: str, index: str, mask: str) -> None:
        at = self.at(pointer, index)
        name = f"llvm.masked.store.{self.suffix}.p0"
        self.e.lines.append(f"  call void @{name}({self.vec} {value}, ptr {at}, i32 1, {self.mask} {mask})")

    def do(self, op: str, a: str, b: str) -> str:
        return self.e.emit(f"{op} contract {self.vec} {a}, {b}")

    def choose(self, mask: str, a: str, b: str) -> str:
        return self.e.emit(f"select {self.mask} {mask}, {self.vec} {a}, {self.vec} {b}")

    def add_wide(self, total: str, value: str) -> str:
        if self.t == "float":
            value = self.e.emit(f"fpext {self.vec} {value} to {self.wide}")
        return self.e.emit(f"fadd {self.wide} {total}, {value}")

    def sum(self, total: str) -> str:
        """The sum of the lanes, as a double."""
        name = f"llvm.vector.reduce.fadd.v{self.lanes}f64"
        self.e.declarations[name] = f"declare double @{name}(double, {self.wide})"
        return self.e.emit(f"call reassoc double @{name}(double -0.0, {self.wide} {total})")

    def narrow(self, value: str) -> str:
        """A double in every lane, in the dtype."""
        return self.splat(self.e.emit(f"fptrunc double {value} to float") if self.t == "float" else value, self.t)

    def top(self, pointer: str, end: str) -> str:
        """The largest value, in every lane; where some are NaN, of the others."""
        low = self.e.constant(float("-inf"))

        def body(i: str, mask: str, best: str) -> str:
            value = self.load(pointer, i, mask, low)
            return self.choose(self.e.emit(f"fcmp ogt {self.vec} {value}, {best}"), value, best)

        best = self.loop("top", end, low, self.vec, body)
        name = f"llvm.vector.reduce.fmax.{self.suffix}"
        self.e.declarations[name] = f"declare {self.t} @{name}({self.vec})"
        return self.splat(self.e.emit(f"call nnan {self.t} @{name}({self.vec} {best})"), self.t)


def _softmax(r: _Row) -> None:
    top, scale = r.top("%a0", "%seen"), r.narrow("%scale")

    def exponentials(i: str, mask: str, total: str) -> str:
        value = r.do("fmul", r.do("fsub", r.load("%a0", i, mask), top), scale)
        value = r.choose(mask, r.e.libm("exp", [value]), "zeroinitializer")
        r.store(value, "%a1", i, mask)
        return r.add_wide(total, value)

    total = r.sum(r.loop("exponentials", "%seen", "zeroinitializer", r.wide, exponentials))
    factor = r.narrow(r.e.emit(f"fdiv double 1.0, {total}"))

    def scaled(i: str, mask: str, _: str) -> None:
        seen = r.within(i, "%seen")
        r.store(r.choose(seen, r.do("fmul", r.load("%a1", i, seen), factor), "zeroinitializer"), "%a1", i, mask)

    r.loop("scaled", "%columns", None, "", scaled)


def _log_softmax(r: _Row) -> None:
    top = r.top("%a0", "%columns")

    def exponentials(i: str, mask: str, total: str) -> str:
        value = r.e.libm("exp", [r.do("fsub", r.load("%a0", i, mask), top)])
        return r.add_wide(total, r.choose(mask, value, "zeroinitializer"))

    total = r.sum(r.loop("exponentials", "%columns", "zeroinitializer", r.wide, exponentials))
    r.e.declarations["log"] = "declare double @log(double)"
    less = r.narrow(r.e.emit(f"call double @log(double {total})"))

    def shifted(i: str, mask: str, _: str) -> None:
        r.store(r.do("fsub", r.do("fsub", r.load("%a0", i, mask), top), less), "%a1", i, mask)

    r.loop("shifted", "%columns", None, "", shifted)


def _softmax_grad(r: _Row) -> None:
    def products(i: str, mask: str, total: str) -> str:
        return r.add_wide(total, r.do("fmul", r.load("%a0", i, mask), r.load("%a1", i, mask)))

    total = r.narrow(r.sum(r.loop("products", "%columns", "zeroinitializer", r.wide, products)))
    scale = r.narrow("%scale")

    def result(i: str, mask: str, _: str) -> None:
        less = r.do("fsub", r.load("%a0", i, mask), total)
        r.store(r.do("fmul", r.do("fmul", less, r.load("%a1", i, mask)), scale), "%a2", i, mask)

    r.loop("result", "%columns", None, "", result)


def _log_softmax_grad(r: _Row) -> None:
    total = r.narrow(r.sum(r.loop(
        "sums", "%columns", "zeroinitializer", r.wide, lambda i, mask, total: r.add_wide(total, r.load("%a0", i, mask))
    )))  # fmt: skip

    def result(i: str, mask: str, _: str) -> None:
        value = r.e.libm("exp", [r.load("%a1", i, mask)])
        r.store(r.do("fsub", r.load("%a0", i, mask), r.do("fmul", value, total)), "%a2", i, mask)

    r.loop("result", "%columns", None, "", result)


#: What each does to a row, and its operands.
KERNELS = {
    "softmax": (_softmax, 2),
    "log_softmax": (_log_softmax, 2),
    "softmax_grad": (_softmax_grad, 3),
    "log_softmax_grad": (_log_softmax_grad, 3),
}


def module(symbol: str, name: str, compute: str, machine: Machine) -> str:
    """The text of the module: units of rows."""
    lanes = lanes_for(compute, machine)
    body, operands = KERNELS[name]
    r = _Row(compute, lanes, machine)
    body(r)
    fields = []
    for i, label in enumerate([*JOB, *(f"p{k}" for k in range(operands))]):
        kind = "double" if label == "scale" else "i64" if label in JOB else "ptr"
        fields += [f"  %{label}.at = getelementptr i64, ptr %job, i64 {i}", f"  %{label} = load {kind}, ptr %{label}.at"]
    return "\n".join([
        "define internal void @work(ptr %job, i64 %low, i64 %high) #1 {",
        "entry:",
        *fields,
        "  %from = mul i64 %low, %per",
        "  %far = mul i64 %high, %per",
        "  %to = call i64 @llvm.smin.i64(i64 %far, i64 %rows)",
        "  %causal = icmp ne i64 %period, 0",
        "  %round = select i1 %causal, i64 %period, i64 1",
        "  %any = icmp slt i64 %from, %to",
        "  br i1 %any, label %row, label %end",
        "row:",
        f"  %n = phi i64 [%from, %entry], [%n.next, %{r.block}]",
        "  %start = mul i64 %n, %columns",
        *(f"  %a{k} = getelementptr {compute}, ptr %p{k}, i64 %start" for k in range(operands)),
        "  %place = srem i64 %n, %round",
        "  %sees = add i64 %place, %first",
        "  %fits = call i64 @llvm.smin.i64(i64 %sees, i64 %columns)",
        "  %seen = select i1 %causal, i64 %fits, i64 %columns",
        *r.e.lines,
        "  %n.next = add i64 %n, 1",
        "  %n.more = icmp slt i64 %n.next, %to",
        "  br i1 %n.more, label %row, label %end",
        "end:",
        "  ret void",
        "}",
        entry(symbol, machine),
        "declare i64 @llvm.smin.i64(i64, i64)",
        *r.e.declarations.values(),
        attributes(machine),
    ])  # fmt: skip
