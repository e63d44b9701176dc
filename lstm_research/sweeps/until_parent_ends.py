"""`python -m lstm_research.sweeps.until_parent_ends PARENT COMMAND…` becomes a command that ends with its parent.

When the parent, with this process number, ends in whatever way, the command gets SIGTERM, on which a run saves its
state. Only Linux can do that; elsewhere the command runs on alone.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Becomes the command, unless the parent has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            return
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
