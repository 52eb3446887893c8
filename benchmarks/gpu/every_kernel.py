"""Every kernel on small arrays, once: `python -m benchmarks.gpu.every_kernel [--dry]`.

For compute-sanitizer, which sees an access outside an array if each has memory of its own.
"""

import sys

from .worker import prepare


def main(dry: bool) -> None:
    prepare(dry)
    import cupy

    from .cases import listed

    with cupy.cuda.using_allocator(None):
        for dtype in ("float32", "bfloat16"):
            for cases in listed(dtype, small=True).values():
                for case in cases:
                    case.compute()
    print("launched:", *launched())


def launched() -> list[str]:
    from tinygrad_bn.kernels import cuda

    return sorted({f"{source}.{kernel}" for source, kernel, *_ in cuda._kernels})


if __name__ == "__main__":
    main("--dry" in sys.argv)
