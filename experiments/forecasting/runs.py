"""What this study runs; `experiments/study.py` runs it."""

from study import Run

OTHERS = ("household_power", "beijing", "traffic", "temperatures", "peyton", "sunspots")

GROUPS: dict[str, list[Run]] = {
    "etth1": [Run("etth1-96", "forecasting.py")],
    "horizons": [
        Run(f"etth1-{horizon}", "forecasting.py", (f"task.horizon={horizon}",), seeds=(0,))
        for horizon in (24, 48, 168, 336, 720)
    ],
    "distributions": [
        Run(f"etth1-{name}", f"forecasting.py:{name}", seeds=(0,)) for name in ("quantiles", "gaussian", "student_t")
    ],
    "data_sets": [Run(name, f"forecasting.py:{name}", seeds=(0,)) for name in OTHERS],
    "models": [
        Run("temperatures-encoder_decoder", "forecasting.py:temperatures,encoder_decoder", seeds=(0,)),
        Run("temperatures-deepar", "forecasting.py:temperatures,deepar", seeds=(0,)),
    ],
}
