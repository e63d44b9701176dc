"""Floor 5: what is learnt. A new task is one file here and one row below."""

from collections.abc import Mapping

from lstm_research.tasks.forecasting import Forecasting
from lstm_research.tasks.language_modelling import LanguageModelling
from lstm_research.tasks.speech_recognition import SpeechRecognition
from lstm_research.tasks.synthetic import Synthetic
from lstm_research.tasks.task import Task
from lstm_research.tasks.text_classification import TextClassification
from lstm_research.tasks.translation import MachineTranslation

TASKS: Mapping[str, type[Task]] = {
    "forecasting": Forecasting,
    "language_modelling": LanguageModelling,
    "speech_recognition": SpeechRecognition,
    "synthetic": Synthetic,
    "text_classification": TextClassification,
    "translation": MachineTranslation,
}
"""Every task by the name that configs use."""

__all__ = [
    "TASKS",
    "Forecasting",
    "LanguageModelling",
    "MachineTranslation",
    "SpeechRecognition",
    "Synthetic",
    "Task",
    "TextClassification",
]
