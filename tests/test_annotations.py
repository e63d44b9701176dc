"""The annotations of the package are indeed checked."""

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from lstm_research.models import LSTM, unroll


def test_a_shape_that_is_none_of_the_annotation_is_refused() -> None:
    cell = LSTM(hidden_size=4)
    params = cell.init(jax.random.key(0), 3)
    with pytest.raises(TypeCheckError, match="parameter 'xs'"):
        unroll(cell, params, jnp.ones((5, 3)))
