"""Bugs planted into the CUDA kernels: the test of the kernels notices each.

A bug is an edit of one place in a source. It is noticed where the kernels, run in one of three
orders of their threads, differ from what NumPy makes, or do what a GPU would not forgive.
"""

import functools
import re
import shutil
from pathlib import Path

import double
import numpy as np
import pytest
import test_kernels_cuda_conv as conv
import test_kernels_cuda_copy as copies
import test_kernels_cuda_norm as norm
import test_kernels_cuda_pool as pool
from double import raw

from tinygrad_bn.fusion import norm_relu
from tinygrad_bn.kernels import cuda, cuda_norm
from tinygrad_bn.norm import fused

pytestmark = pytest.mark.usefixtures("cupy")

# Shape, reduced axes and shape of γ; into how many slices a group is cut; the op, the mean of x.
IMAGES = (3, 2, 8, 8), (0, 2, 3), (1, 2, 1, 1)
FEATURES = (70, 33), (0,), (1, 33)
CASES = {
    "images": (IMAGES, 1, fused, 1.0),
    "images in slices": (IMAGES, 5, fused, 1.0),
    "images of a large mean": (IMAGES, 5, fused, 2e4),
    "images with a ReLU": (IMAGES, 1, norm_relu, 1.0),
    "large images": (((3, 2, 16, 48), *IMAGES[1:]), 1, fused, 1.0),
    "groups": (((3, 2, 3, 4, 4), (2, 3, 4), (1, 2, 3, 1, 1)), 1, fused, 1.0),
    "features": (FEATURES, 1, fused, 1.0),
    "features in slices": (FEATURES, 3, fused, 1.0),
    "rows": (((9, 64), (1,), (1, 64)), 1, fused, 1.0),
    "rows of 7": (((5, 7), (1,), (1, 7)), 1, fused, 1.0),
    "long rows": (((3, 1100), (1,), (1, 1100)), 1, fused, 1.0),
}
OTHERS = {
    "convolution": lambda _: conv.assert_convolves(*conv.WIDE["wide, stride"]),
    "depthwise": lambda _: conv.assert_convolves(*conv.MORE["two filters a channel"]),
    "max pool": lambda _: pool.test_maxima_and_their_gradient_are_numpys(
        *pool.LAYERS["overlapping"], np.float32
    ),
    "copies": functools.partial(copies.test_arrays_arrive_eight_in_a_launch, np.float32),
    "running statistics": functools.partial(
        norm.test_running_statistics_move_in_one_launch, 3, "host"
    ),
}


# What is wrong (the file; the case in which it shows), what stands there, and what the bug makes of
# it.
BUGS = """
a block's warps are read before they are written (norm.cuh; large images)
-of_warps[warp] = found;
-  __syncthreads();
+of_warps[warp] = found;

a block's warps are filled again before they are read (norm.cuh; long rows)
-none);
-  __syncthreads();
+none);

the first lanes wait for the others (norm.cuh; long rows)
-of_warps[warp] = found;
-  __syncthreads();
+of_warps[warp] = found, __syncthreads();

half a warp (norm.cuh; images)
-distance = 16
+distance = 8

a mask of half a warp (norm.cuh; rows)
-0xffffffffu
+0xffffu

the neighbour's value (norm.cuh; rows)
-__shfl_xor_sync
+__shfl_down_sync

a column is added up before it is written (norm.cuh; features)
-  __syncthreads();
-  for (int half
+  for (int half

a column is read before it is added up (norm.cuh; features)
-    __syncthreads();
-  }
-  found
+  }
+  found

threads with nothing to do leave early (norm_columns.cu; features in slices)
-  Statistics found[WIDTH];
+  if (column >= columns) return;
+  Statistics found[WIDTH];

a slice ends too early (norm_parts.cu; images in slices)
-end = min(all, (slice + 1) * share);
+end = min(all, (slice + 1) * share) - 1;

a slice ends behind the last value (norm_parts.cu; images)
-end = min(all, (slice + 1) * share);
+end = (slice + 1) * share + 1;

the last values are in no slice (norm_parts.cu; images in slices)
-share = (all + gridDim.y - 1) / gridDim.y
+share = all / gridDim.y

a swapped stride (norm_parts.cu; images)
-apart = int64(groups) * values
+apart = int64(repeats) * values

no step from one image to the next (norm_parts.cu; large images)
-position.inside -= stretch, position.repeat++
+position.inside -= stretch

the partial sums of another group (norm_parts.cu; images in slices)
-found[int64(group) * gridDim.y + k]
+found[int64(k) * gridDim.x + group]

one γ for all parts (norm_parts.cu; groups)
-i = first_affine + insides[k] / run
+i = first_affine

rows are read again (norm_columns.cu; features)
-rows.end; row += AHEAD * blockDim.y
+rows.end; row += blockDim.y

beyond the end of a row (norm_rows.cu; rows of 7)
-      if (at(k) < size) {
-        packs[k] = load
+      if (at(k) <= size) {
+        packs[k] = load

a column too many (norm_rows.cu; rows of 7)
-if (threadIdx.y || column >= columns)
+if (threadIdx.y || column > columns)

the unbiased variance (norm_parts.cu; images)
-variance = all.squares / all.count
+variance = all.squares / (all.count - A(1))

Chan's formula without a count (norm.cuh; images in slices)
-apart * apart * a.count * share
+apart * apart * share

ε beside the root (norm.cuh; features)
-sqrt(variance + eps)
+(sqrt(variance) + eps)

the digits that the mean has lost (norm.cuh; images of a large mean)
-all.rest = moved - (all.mean - a.mean)
+all.rest = A(0)

g passes where the ReLU is 0 (norm_parts.cu; images with a ReLU)
-passed = !y || number(ys[k].value[j]) > A(0)
+passed = !y || number(ys[k].value[j]) >= A(0)

r instead of r² (norm_columns.cu; features)
-gd / rows * r * r
+gd / rows * r

∂γ of d instead of x̂ (norm_rows.cu; rows)
-fma(in, d * r, of_gamma
+fma(in, d, of_gamma

a tile is read before it is written (conv.cu; convolution)
-  __syncthreads();
-  int row = threadIdx.x % broad, channel
+  int row = threadIdx.x % broad, channel

the padding of another axis (conv.cu; convolution)
-int(rest % oh) * sh - bh
+int(rest % oh) * sh - bw

every filter of a channel is the first (depthwise.cu; depthwise)
-weight + int64(filter) * kd
+weight + int64(filter / filters) * kd

the last window is forgotten (windows.cuh; depthwise)
-/ s, o - 1)
+/ s, o - 2)

of equal values the last (pool.cu; max pool)
-value > largest
+value >= largest

the stride of another axis (pool.cu; max pool)
-(int64(a) * oh + b) * ow + c
+(int64(a) * oh + b) * oh + c

two arrays exchanged (copies.cu; copies)
-copy(from5
+copy(from6

all but the last value (copies.cu; copies)
-i < count
+i + 1 < count

the biased variance (running.cu; running statistics)
-variance / samples * scale
+variance / samples

the sum over samples (running.cu; running statistics)
-mean / samples
+mean
"""


def bug(text):
    title, *lines = text.split("\n")
    what, file, case = re.fullmatch(r"(.*) \((.*); (.*)\)", title).groups()
    there, planted = ["\n".join([e[1:] for e in lines if e[0] == sign]) for sign in "-+"]
    return pytest.param(file, case, there, planted, id=what)


def run(case, cupy, monkeypatch):
    """In three orders of threads, forward and backward; raises what a test of the kernels would."""
    for order in ("forward", "reverse", 1):
        with double.order(order):
            if case in OTHERS:
                OTHERS[case](cupy)
            else:
                normalize(*CASES[case], monkeypatch)


def normalize(layout, slices, op, mean, monkeypatch):
    shape, axes, affine = layout
    monkeypatch.setattr(cuda_norm, "_slices", lambda xp, blocks, turns: slices)
    arrays = norm.arguments(shape, affine, np.dtype(np.float32), mean)
    norm.check(op, arrays, axes, 2e-6)


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A copy of the sources, which the kernels are now compiled from."""
    for path in Path(cuda.__file__).parent.glob("*.cu*"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(cuda, "__file__", str(tmp_path / "cuda.py"))
    monkeypatch.setattr(cuda, "_kernels", {})
    monkeypatch.setattr(raw, "_KERNEL_OPTIONS", ["-O0", *raw._KERNEL_OPTIONS[1:]])
    return tmp_path


@pytest.mark.parametrize(
    ("file", "case", "there", "planted"), [bug(text) for text in BUGS.strip().split("\n\n")]
)
def test_a_planted_bug_is_noticed(file, case, there, planted, folder, cupy, monkeypatch):
    text = (folder / file).read_text()
    assert text.count(there) == 1, "the edit does not fit the source any more"
    (folder / file).write_text(text.replace(there, planted))
    with pytest.raises((AssertionError, double.KernelError)) as caught:
        run(case, cupy, monkeypatch)
    assert " error: " not in str(caught.value), "it does not compile"


@pytest.mark.parametrize("case", [*CASES, *OTHERS])
def test_where_no_bug_is_planted_none_is_noticed(case, folder, cupy, monkeypatch):
    run(case, cupy, monkeypatch)
