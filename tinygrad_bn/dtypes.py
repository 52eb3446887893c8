"""The dtypes that NumPy has, and bfloat16, which ml_dtypes adds to them."""

from typing import Any

import numpy as np


def dtype_of(dtype: Any) -> np.dtype:
    """What `np.dtype` makes of it, also of "bfloat16", for which it imports ml_dtypes; a
    RuntimeError says how to install that."""
    if isinstance(dtype, str) and dtype == "bfloat16":
        try:
            import ml_dtypes  # noqa: F401 (which tells NumPy of it)
        except ImportError as error:
            message = "bfloat16 needs ml_dtypes, which is missing: pip install ml_dtypes"
            raise RuntimeError(message) from error
    return np.dtype(dtype)
