"""Resampling, grids, pixels and patches."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from .harness import Case, F, OperatorTests, close, tensor


def f(name, *args, **options):
    return lambda T, *xs: getattr(T.nn.functional, name)(*xs, *args, **options)


def resized(mode, shape, **options):
    said = "_".join([mode, *(f"{k}{v}".replace(" ", "") for k, v in options.items())])
    return Case(said, f("interpolate", mode=mode, **options), [shape], node=mode != "area", tol=3, high=1.0)


LINE, IMAGE, VOLUME = (2, 2, 5), (1, 2, 4, 5), (1, 2, 3, 2, 4)
CASES = [
    *[resized("nearest", s, scale_factor=k) for s in (LINE, IMAGE, VOLUME) for k in (2, 0.5, 1.7)],
    *[resized("nearest-exact", s, size=k) for s in (LINE, IMAGE, VOLUME) for k in (3, 7)],
    *[resized(m, s, **k) for m, s in (("linear", LINE), ("bilinear", IMAGE), ("trilinear", VOLUME), ("bicubic", IMAGE))
      for k in ({"scale_factor": 2}, {"size": 3}, {"size": 7, "align_corners": True}, {"scale_factor": 1.7},
                {"scale_factor": 1.7, "recompute_scale_factor": True}, {"size": 1, "align_corners": True})],
    *[resized(m, (1, 2, 7, 8), antialias=True, **k) for m in ("bilinear", "bicubic") for k in ({"size": (3, 5)}, {"scale_factor": 0.4}, {"size": 9})],
    resized("area", IMAGE, size=3),
    Case("bilinear_half", f("interpolate", mode="bilinear", scale_factor=2), [IMAGE], dtypes=("bfloat16", "float16"), grad=False),
    Case("pixel_shuffle", f("pixel_shuffle", 2), [(2, 8, 2, 3)]),
    Case("pixel_unshuffle", f("pixel_unshuffle", 2), [(2, 2, 4, 6)]),
    Case("channel_shuffle", f("channel_shuffle", 3), [(2, 6, 2, 2)]),
    Case("unfold", f("unfold", (2, 3), 1, 1, (1, 2)), [(2, 2, 4, 5)]),
    Case("unfold_dilated", f("unfold", 2, 2), [(1, 2, 4, 5)]),
    Case("unfold_unbatched", f("unfold", 2), [(2, 3, 3)], node=False),
    Case("fold", f("fold", (4, 5), 2, 1, 1), [(2, 8, 30)]),
    Case("fold_unbatched", f("fold", (3, 3), 2), [(8, 4)], node=False),
    Case("affine_grid", f("affine_grid", (2, 1, 3, 4), align_corners=False), [(2, 2, 3)], node=False),
    Case("affine_grid_corners", f("affine_grid", (1, 1, 2, 3, 1), align_corners=True), [(1, 3, 4)], node=False),
    *[Case(f"grid_sample_{m}_{p}_{a}", f("grid_sample", mode=m, padding_mode=p, align_corners=a), [(1, 2, 4, 3), (1, 3, 2, 2)],
           low=-1.3, high=1.3, node=False, tol=5)
      for m in ("bilinear", "nearest", "bicubic") for p in ("zeros", "border", "reflection") for a in (True, False)],
    *[Case(f"grid_sample_3d_{m}_{p}", f("grid_sample", mode=m, padding_mode=p, align_corners=False), [(1, 2, 3, 3, 2), (1, 1, 2, 3, 3)],
           low=-1.3, high=1.3, node=False, tol=5)
      for m in ("bilinear", "nearest") for p in ("zeros", "border", "reflection")],
]  # fmt: skip


class TestVision(OperatorTests):
    cases = CASES


@pytest.mark.torch
def test_images_of_bytes():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(0, 255, (1, 1, 4, 4)).astype(np.uint8)
    close(f("interpolate", scale_factor=2)(F, tensor(x))._a, f("interpolate", scale_factor=2)(torch, torch.from_numpy(x)).numpy(), 0)


def test_unfold_and_fold_count_overlaps():
    ones = tensor(np.ones((1, 1, 3, 3)))
    close(F.nn.functional.fold(F.nn.functional.unfold(ones, 2), (3, 3), 2)._a[0, 0], np.array([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]), 0)


def test_upsample_is_old():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        F.nn.functional.upsample(tensor(np.ones((1, 1, 2))), scale_factor=2)
    assert any("deprecated" in str(w.message) for w in seen)


@pytest.mark.parametrize("call, error, phrase", [
    (f("interpolate"), ValueError, "either size or scale_factor should be defined"),
    (f("interpolate", size=3, mode="linear"), NotImplementedError, "Got 4D input, but linear mode needs 3D input"),
    (f("interpolate", size=(3,)), ValueError, "Input and output must have the same number of spatial dimensions"),
    (f("pixel_shuffle", 3), RuntimeError, "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square"),
    (f("unfold", 9), RuntimeError, "but its components must be at least one."),
    (f("channel_shuffle", 3), RuntimeError, "Number of channels must be divisible by groups. Got 4 channels and 3 groups."),
])  # fmt: skip
def test_messages(call, error, phrase):
    with pytest.raises(error) as e:
        call(F, tensor(np.ones((1, 4, 4, 4))))
    assert phrase in str(e.value)
