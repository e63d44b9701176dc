"""A language model that shares in the search of a recogniser, by the flags that `predict` and `evaluate` share."""

from typing import Any

from absl import flags

from lstm_research.common.errors import UserError


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_string("language_model", None, "Of speech recognition: the workdir of a language model that helps.")
    flags.DEFINE_float("lm_weight", None, "How much its log-probabilities count; 0.5 if left out.", lower_bound=0.0)
    flags.DEFINE_float("length_bonus", None, "What every symbol or word that it prices gets; 0 if left out.")


def fusion(trained: Any) -> Any:
    """Returns the `Fusion` of the language model that the flags name, for a recogniser; None without one.

    Raises:
      UserError: the other run is no language model, or not one of this recogniser's symbols; weights without a model.
    """
    FLAGS = flags.FLAGS
    if FLAGS.language_model is None:
        for name in ("lm_weight", "length_bonus"):
            if FLAGS[name].present:
                raise UserError(f"--{name} means nothing without --language_model=WORKDIR; leave it out")
        return None
    from lstm_research.decoding.fusion import make_fusion
    from lstm_research.training.trained_run import TrainedRun

    try:
        model = TrainedRun.load(FLAGS.language_model)
    except UserError as error:
        raise UserError(f"--language_model: {error}") from error
    if model.config.task.name != "language_modelling":
        raise UserError(
            f"--language_model={FLAGS.language_model} is a run of {model.config.task.name}; name one of "
            "language_modelling"
        )
    task = trained.task
    return make_fusion(
        model.task.predict,
        model.params,
        model.task.initial_carry(model.params, 1),
        model.task.vocabulary,
        task.vocabulary,
        blank_id=task.blank_id,
        weight=0.5 if FLAGS.lm_weight is None else FLAGS.lm_weight,
        length_bonus=FLAGS.length_bonus or 0.0,
    )
