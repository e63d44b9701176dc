"""Recurrent models that forecast series."""

from lstm_research.models.forecaster.base import Forecast, Forecaster, Window, WindowSizes
from lstm_research.models.forecaster.deepar import DeepAR
from lstm_research.models.forecaster.direct import DirectForecaster
from lstm_research.models.forecaster.encoder_decoder import EncoderDecoderForecaster

FORECASTERS = {"direct": DirectForecaster, "encoder_decoder": EncoderDecoderForecaster, "deepar": DeepAR}
"""Every forecaster by the name that configs use."""

__all__ = [
    "FORECASTERS",
    "DeepAR",
    "DirectForecaster",
    "EncoderDecoderForecaster",
    "Forecast",
    "Forecaster",
    "Window",
    "WindowSizes",
]
