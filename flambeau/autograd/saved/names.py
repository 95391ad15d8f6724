"""The names ``node._saved_self``, ``node._raw_saved_self`` and the like, as descriptors of all nodes.

PyTorch's nodes show what they keep as ``_saved_<name>``, and the tensors among it also as ``_raw_saved_<name>``. Here
are only the names; what they stand for is worked out in ``saved_values.py`` when somebody asks. (A ``__getattr__`` in
``Node`` would be shorter, but then Python looks up every attribute of every node the slow way.)
"""

from __future__ import annotations

from typing import Any

#: Every name in ``saved_table.py``; a test compares them.
NAMES = """
    A C HxW L LU N Q R S S_sym_argsize_minus_1 U Vh accumulate align_corners alpha approximate attn_mask batch1
    batch2 beta bias bias_sym_sizes_opt ceil_mode condition correction count_include_pad diagonal dilation dim
    dim0 dim1 dim2 dimension dims divisor_override downscale_factor dropout_p eigenvalues eigenvectors end eps
    exponent full_matrices group groups ignore_index include_self index indices input input_scale inverse
    is_causal k keepdim kernel_size key lambd left length mask mat1 mat1_sym_sizes mat1_sym_strides mat2
    mat2_sym_sizes mat2_sym_strides max max_val min min_val mode n negative_slope normalized_shape offset ord
    other output output_padding output_size p pad padding padding_idx pivot pos_weight query reduce reduction
    repeats result result0 result1 result2 rounding_mode running_mean running_var scale scale_grad_by_freq scales
    scales_d scales_h scales_w self self_sym_argsize_minus_1 self_sym_argsize_minus_2 self_sym_numel
    self_sym_sizes self_sym_strides shifts sign size source source_dim source_sym_sizes sparse sparse_grad
    split_size split_sizes src start step storage_offset stride target tensor tensor1 tensor2 threshold
    total_weight training transposed unitriangular upper upscale_factor value vec weight weight_sym_argsize_0 x1
    x2
"""


class SavedAttribute:
    """The descriptor behind one ``_saved_*`` or ``_raw_saved_*`` name; all nodes have all of them, most raise."""

    __slots__ = ("name", "raw")

    def __init__(self, name: str, raw: bool) -> None:
        self.name, self.raw = name, raw

    @property
    def attribute(self) -> str:
        return ("_raw_saved_" if self.raw else "_saved_") + self.name

    def __get__(self, node: Any, owner: Any = None) -> Any:
        if node is None:
            return self
        own: Any = getattr(node, "__dict__", ())  # a custom Function's ctx: whatever the user put there
        if self.attribute in own:
            return own[self.attribute]
        from .values import Missing, raw, value

        try:
            return raw(node, self.name) if self.raw else value(node, self.name)
        except Missing:
            raise AttributeError(f"'{type(node).__name__}' object has no attribute '{self.attribute}'") from None

    def __set__(self, node: Any, given: Any) -> None:
        own = getattr(node, "__dict__", None)
        if own is None:
            raise AttributeError(f"attribute '{self.attribute}' of '{type(node).__name__}' objects is not writable")
        own[self.attribute] = given


ATTRIBUTES = {a.attribute: a for n in NAMES.split() for a in (SavedAttribute(n, False), SavedAttribute(n, True))}

#: What nodes inherit from: the descriptors, nothing else.
SavedAttributes = type("SavedAttributes", (), {"__slots__": (), **ATTRIBUTES})
