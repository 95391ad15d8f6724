"""``torch.return_types``: tuples with named fields, printed as PyTorch prints them."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from .public import publish


class ReturnType(tuple):
    """A tuple whose fields have names; made from one sequence."""

    __slots__ = ()
    _fields: tuple[str, ...] = ()
    n_fields = n_sequence_fields = n_unnamed_fields = 0

    def __new__(cls, values: Any) -> Any:
        values = tuple(values)
        if len(values) != len(cls._fields):
            raise TypeError(f"torch.return_types.{cls.__name__}() takes a {len(cls._fields)}-sequence ({len(values)}-sequence given)")
        return tuple.__new__(cls, values)

    def __repr__(self) -> str:
        fields = ",\n".join(f"{name}={value!r}" for name, value in zip(self._fields, self))
        return f"torch.return_types.{type(self).__name__}(\n{fields})"

    def __reduce__(self) -> Any:
        return type(self), (tuple(self),)


def return_type(name: str, *fields: str) -> Any:
    """The class of the results of the function ``name``, published as ``torch.return_types.name``."""
    body: dict[str, Any] = {field: property(itemgetter(i)) for i, field in enumerate(fields)}
    body.update(
        __slots__=(), _fields=fields, __match_args__=fields, n_fields=len(fields), n_sequence_fields=len(fields),
        __module__="torch.return_types",
    )  # fmt: skip
    cls = type(name, (ReturnType,), body)
    publish(name, cls, "return_types")
    return cls


max = return_type("max", "values", "indices")
min = return_type("min", "values", "indices")
sort = return_type("sort", "values", "indices")
topk = return_type("topk", "values", "indices")
kthvalue = return_type("kthvalue", "values", "indices")
median = return_type("median", "values", "indices")
nanmedian = return_type("nanmedian", "values", "indices")
mode = return_type("mode", "values", "indices")
cummax = return_type("cummax", "values", "indices")
cummin = return_type("cummin", "values", "indices")
aminmax = return_type("aminmax", "min", "max")
histogram = return_type("histogram", "hist", "bin_edges")
histogramdd = return_type("histogramdd", "hist", "bin_edges")
frexp = return_type("frexp", "mantissa", "exponent")
slogdet = return_type("slogdet", "sign", "logabsdet")
qr = return_type("qr", "Q", "R")
svd = return_type("svd", "U", "S", "V")
geqrf = return_type("geqrf", "a", "tau")
triangular_solve = return_type("triangular_solve", "solution", "cloned_coefficient")
linalg_slogdet = return_type("linalg_slogdet", "sign", "logabsdet")
linalg_qr = return_type("linalg_qr", "Q", "R")
linalg_svd = return_type("linalg_svd", "U", "S", "Vh")
linalg_eig = return_type("linalg_eig", "eigenvalues", "eigenvectors")
linalg_eigh = return_type("linalg_eigh", "eigenvalues", "eigenvectors")
linalg_lu = return_type("linalg_lu", "P", "L", "U")
linalg_lu_factor = return_type("linalg_lu_factor", "LU", "pivots")
linalg_lu_factor_ex = return_type("linalg_lu_factor_ex", "LU", "pivots", "info")
linalg_ldl_factor = return_type("linalg_ldl_factor", "LD", "pivots")
linalg_inv_ex = return_type("linalg_inv_ex", "inverse", "info")
linalg_cholesky_ex = return_type("linalg_cholesky_ex", "L", "info")
linalg_solve_ex = return_type("linalg_solve_ex", "result", "info")
linalg_lstsq = return_type("linalg_lstsq", "solution", "residuals", "rank", "singular_values")
lu_unpack = return_type("lu_unpack", "P", "L", "U")
