"""Linear algebra and einsum: PyTorch's values and gradients of two orders (golden/torch_linalg)."""

import pytest
from golden_cases import answer, check_function, names

import tinygrad_bn as tg


@pytest.mark.parametrize("name", names("linalg/"))
def test_to_second_order(name, source):
    case, data = answer(name, source)
    check_function(lambda **given: eval(case["function"], {**vars(tg), **given}), case, data)
