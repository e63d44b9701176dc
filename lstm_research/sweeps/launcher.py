"""What the driver asks of a place where trials run."""

import abc
from collections.abc import Sequence

from lstm_research.sweeps.trial import Trial


class Job(abc.ABC):
    """What runs a trial's command."""

    @abc.abstractmethod
    def has_ended(self) -> bool:
        """Whether it is over."""

    @property
    @abc.abstractmethod
    def code(self) -> int | None:
        """Exit code of the command once it is over, below 0 for a signal; None if nobody knows it."""

    @abc.abstractmethod
    def stop(self) -> bool:
        """Asks it to save and to end; returns whether this process can ask it. Asking again changes nothing."""


class Launcher(abc.ABC):
    """Where trials run.

    Attributes:
      slots: how many at a time.
    """

    slots: int

    @abc.abstractmethod
    def start(self, trials: Sequence[Trial]) -> Sequence[Job]:
        """Starts the commands of trials; what it sets in `Trial.job` is recorded."""

    @abc.abstractmethod
    def adopt(self, trial: Trial) -> Job | None:
        """Returns the job of a trial that a former driver started, if it still runs."""
