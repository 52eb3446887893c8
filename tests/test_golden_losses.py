"""Losses: PyTorch's values and gradients of two orders.

Recorded in golden/ by golden/make_torch.py, so that no PyTorch is needed here; where it is
installed, `pytest -m torch` holds the same tests against it live.
"""

import functools

import pytest
from golden_cases import answer, check_function, names

from tinygrad_bn import functional as F

FUNCTIONS = {
    "cross_entropy": F.cross_entropy,
    "nll_loss": F.nll_loss,
    "mse_loss": F.mse_loss,
    "l1_loss": F.l1_loss,
    "smooth_l1_loss": F.smooth_l1_loss,
    "bce": F.binary_cross_entropy_with_logits,
    "kl_div": F.kl_div,
}


@pytest.mark.parametrize("name", names(*(f"{word}/" for word in FUNCTIONS)))
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # the mean of no targets
@pytest.mark.filterwarnings("ignore:reduction. 'mean':UserWarning")  # of kl_div: PyTorch's advice
def test_losses_to_second_order(name, source):
    case, data = answer(name, source)
    function = functools.partial(FUNCTIONS[name.split("/")[0]], **case["kwargs"])
    check_function(function, case, data)
