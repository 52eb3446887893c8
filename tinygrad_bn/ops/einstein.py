"""Einstein's notation: a product of arrays whose axes have letters, summed over some of these.

Its rule is itself: the gradient of an operand is the product of the others and of `g`, whose axes
have the letters of the output, summed over all letters that the operand does not have.
"""

import string
from typing import Any

import numpy as np

from ..backend import as_given
from ..engine import broadcast_to, sum_to
from ..primitive import op
from ..reduction import accumulator
from .index import places, scatter_add
from .shape import expand_dims

__all__ = ["einsum"]


def einsum(subscripts: str, *operands: Any) -> Any:
    """NumPy's einsum: "ij,jk->ik" is the product of two matrices.

    A term names the axes of an operand. A letter that is not in the output is summed over; one that
    repeats in a term takes the diagonal; an axis of length 1 is broadcast; "..." stands for the
    axes without a letter. Without "->" the output has the letters that come once, sorted. float16
    is multiplied and summed in float32.

    >>> import tinygrad_bn as tg
    >>> x = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> tg.einsum("ii", x), tg.einsum("ij,ij->i", x, x)
    (tensor(5.), tensor([ 5., 25.]))
    """
    return _einsum(map(as_given, operands), subscripts=subscripts)


def _terms(subscripts, ranks):
    """The term of each operand, and the output's, with letters in place of "..."."""
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    if not arrow:
        output = "..." + "".join(sorted(c for c in inputs if c.isalpha() and inputs.count(c) == 1))
    terms = inputs.split(",")
    unnamed = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks)]
    spare = "".join([c for c in string.ascii_letters if c not in subscripts][: max(unnamed)])
    terms = [term.replace("...", spare[len(spare) - n :]) for term, n in zip(terms, unnamed)]
    return terms, output.replace("...", spare)


def _einsum_grads(g, _out, *operands, needs, subscripts):
    terms, output = _terms(subscripts, [len(x.shape) for x in operands])
    grads = [None] * len(terms)
    for k, (term, x) in enumerate(zip(terms, operands)):
        if needs[k]:
            sources = ",".join([output, *terms[:k], *terms[k + 1 :]])
            letters = "".join(dict.fromkeys(term))
            known = "".join([letter for letter in letters if letter in sources])
            grad = einsum(f"{sources}->{known}", g, *operands[:k], *operands[k + 1 :])
            # Along a letter that only x has, or in which x is longer, all places get the same.
            only = tuple([i for i, letter in enumerate(letters) if letter not in known])
            grad = expand_dims(grad, axis=only)
            lengths = tuple([x.shape[term.index(letter)] for letter in letters])
            grad = broadcast_to(grad, shape=np.broadcast_shapes(grad.shape, lengths))
            if letters != term:  # x had a diagonal taken
                axes = places(grad, shape=lengths)
                diagonal = tuple([axes[letters.index(letter)] for letter in term])
                grad = scatter_add(sum_to(grad, shape=lengths), diagonal, x.shape)
            grads[k] = grad
    return grads


@op("einsum", joint=_einsum_grads, variadic=True)
def _einsum(xp, *operands, subscripts):
    dtype = xp.result_type(*operands)
    wide = [x.astype(accumulator(dtype), copy=False) for x in operands]
    return xp.einsum(subscripts, *wide, optimize=True).astype(dtype, copy=False)
