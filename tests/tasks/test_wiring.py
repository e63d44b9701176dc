"""What may start from the weights of another model: one that is wired the same."""

from typing import Any

import pytest

from lstm_research.common.errors import UserError
from lstm_research.tasks.warm_start import check_wiring


def make(cell: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    return {"name": "language_model", "cell": {"name": "lstm", "hidden_size": 4} | (cell or {}), **keys}


SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (make(), make()),
    (make(residual=False, num_layers=2), make(num_layers=2)),
    # How weights are drawn is of no matter where they are taken over, nor is what the two only do in training.
    (make({"forget_bias": 0.0, "input_initializer": "orthogonal"}), make(dropout={"input_rate": 0.5})),
    (make({"name": "irnn"}), make({"name": "rnn", "activation": "relu"})),
    # A width that `num_params` picks.
    (make(), make({"hidden_size": None}, num_params=1000)),
    # Of a model that reads both ways only the first layer is taken.
    (make(bidirectional=True), make(residual=True, num_layers=2)),
    (make(), make(attention={"name": "additive"})),
    (make(attention={"name": "multi_head"}), make(attention={"name": "multi_head", "num_heads": 4})),
]


@pytest.mark.parametrize(("model", "source"), SAME)
def test_the_same_wiring(model: dict[str, Any], source: dict[str, Any]) -> None:
    check_wiring(model, source)


DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "model.cell.name is 'janet' here and 'mgu' in that run": (make({"name": "janet"}), make({"name": "mgu"})),
    "model.cell.input_gate is 'free' here and 'capped' in that run": (make(), make({"name": "capped_lstm"})),
    "model.cell.activation is 'relu' here and 'tanh' in that run": (make({"name": "irnn"}), make({"name": "rnn"})),
    "model.residual is False here and True in that run": (make(num_layers=3), make(num_layers=3, residual=True)),
    "model.attend_from is 'bottom' here and 'top' in that run": (make(attend_from="bottom"), make()),
    "model.attention.name is 'additive' here and 'general' in that run": (
        make(attention={"name": "additive"}),
        make(attention={"name": "general"}),
    ),
}


@pytest.mark.parametrize("message", DIFFERENT)
def test_another_wiring(message: str) -> None:
    with pytest.raises(UserError, match=f"training.init_from: {message}"):
        check_wiring(*DIFFERENT[message])
