"""Everything that changes while a model trains, as one tree of arrays."""

from typing import Any, NamedTuple

from lstm_research.common.arrays import Array, Int, Params, PRNGKeyArray


class TrainState(NamedTuple):
    """What `train_step` takes and returns.

    Attributes:
      step: the number of finished steps.
      params: of the model.
      opt_state: of the optimiser.
      carry: the recurrent state after the last batch, batch axis first.
      key: of the run; step k uses `fold_in(key, k)`, so that the key itself never changes.
      average: the exponential moving average of the parameters, or None.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: Any
    carry: Any
    key: PRNGKeyArray
    average: Params | None
