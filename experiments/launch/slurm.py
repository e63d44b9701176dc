"""Trains one run with SLURM, through submitit: on some nodes, one process a GPU, and on after every preemption.

    python experiments/launch/slurm.py --nodes=2 --gpus=4 --hours=12 --partition=gpu --logs=runs/slurm -- \
        --config=configs/word_lm.py --workdir=runs/words

What follows `--` are flags of `lstm-research train`. The job is queued and its number printed; it ends by itself.
Before its time is up SLURM sends SIGUSR2: the run is told to stop, saves, and the job is queued again, as often as
`--restarts` says. A job that the scheduler preempts gets SIGTERM instead, and saves too; whether it is queued again is
the partition's choice (PreemptMode=REQUEUE), and then it goes on as well. `--executor=local` does the same on this
machine, with one process.
"""

import argparse
import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import submitit

PREEMPTED = 143


class Training:
    """`lstm-research train` as what submitit calls, and queues again."""

    def __init__(self, flags: Sequence[str]):
        self.flags = list(flags)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Trains; returns 0.

        Raises:
          RuntimeError: the run did not end well; says how, so that the job is not taken for a finished one.
        """
        command = [sys.executable, "-m", "lstm_research", "train", *self.flags]
        # By the way SLURM tracks processes, a signal comes to this one alone, or to the run as well, and what asks for
        # a checkpoint would end the run.
        signal.signal(signal.SIGTERM, self._hand_on)
        self._process = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN))
        code = self._process.wait()
        if code == PREEMPTED:
            raise RuntimeError("the run was told to stop, and saved: submit it again to go on")
        if code != 0:
            raise RuntimeError(f"training ended with exit code {code}")
        return code

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Lets the run save before the time is up, and asks for it to be queued again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            # Not by wait(): this is called from a signal's handler, and `__call__` waits there with its lock held.
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(Training(self.flags))


def make_executor(arguments: argparse.Namespace) -> Any:
    """Returns the executor, with what SLURM is asked for."""
    here = arguments.executor == "local"
    executor = submitit.AutoExecutor(
        arguments.logs,
        cluster=arguments.executor,
        **{f"{arguments.executor}_max_num_timeout": arguments.restarts},
    )
    executor.update_parameters(
        name="lstm-research",
        nodes=arguments.nodes,
        tasks_per_node=1 if here else max(arguments.gpus, 1),
        timeout_min=math.ceil(60 * arguments.hours),
    )
    if not here:
        executor.update_parameters(cpus_per_task=arguments.cpus, slurm_signal_delay_s=arguments.notice)
    if arguments.gpus:
        executor.update_parameters(gpus_per_node=arguments.gpus)
    if arguments.partition:
        executor.update_parameters(slurm_partition=arguments.partition)
    return executor


def main(argv: Sequence[str] | None = None) -> int:
    """Queues the job, waits for it if it is to run here, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0, help="of a node; one process each")
    parser.add_argument("--cpus", type=int, default=4, help="of a process")
    parser.add_argument("--hours", type=float, default=12.0, help="until SLURM ends the job, if it is not queued again")
    parser.add_argument("--notice", type=int, default=120, help="seconds before that, in which the run saves")
    parser.add_argument("--restarts", type=int, default=100, help="how often the job is queued again at most")
    parser.add_argument("--partition")
    parser.add_argument("--logs", default="runs/slurm", help="folder of what the processes say; on a shared disk")
    parser.add_argument("--executor", choices=("slurm", "local"), default="slurm")
    parser.add_argument("flags", nargs="+", metavar="-- FLAGS", help="of lstm-research train")
    arguments = parser.parse_args(argv)
    flags = arguments.flags
    if arguments.executor == "slurm" and arguments.nodes * max(arguments.gpus, 1) > 1:
        flags = [*flags, "--distributed"]
    try:
        job = make_executor(arguments).submit(Training(flags))
    except (RuntimeError, ValueError) as error:  # no SLURM here, or it does not take the job
        parser.error(" ".join(str(error).split()))
    print(f"job {job.job_id}, logs in {arguments.logs}", flush=True)
    return job.result() if arguments.executor == "local" else 0


if __name__ == "__main__":
    sys.exit(main())
