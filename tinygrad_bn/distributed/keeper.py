"""A process that sees how a rank ends.

Where a rank dies, mpiexec ends the others at once; and what it says afterwards names one of them as
often as the one that died. So before it talks with others a rank goes on as a child of the process
that mpiexec has started. This one waits, says how the child has ended if that was not as a program
ends, and only then goes itself.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux
_ENDING = 0.5  # seconds
_FORWARDED = (signal.SIGINT, signal.SIGTERM)


def keep(name: str) -> Callable[[], None]:
    """Go on as a child that is kept. Returns a function with which it says that it ends as it
    should, or has told why not; `name` is how it is called else."""
    if not hasattr(os, "fork"):  # on Windows
        return lambda: None
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    keeper, child = os.getpid(), os.fork()
    if child:
        os.close(writing)
        _wait(child, reading, name)
    os.close(reading)
    os.setpgid(0, 0)  # signals come by way of the keeper, and once
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)
    return lambda: os.write(writing, b".") and None


def _wait(child: int, reading: int, name: str) -> None:
    """Be the keeper; this ends the process."""
    for number in _FORWARDED:
        signal.signal(number, lambda number, _: os.kill(child, number))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not os.read(reading, 1):  # nothing, once the child has gone
        if status < 0:
            how = f"by signal {-status}, {signal.strsignal(-status)}"
        else:
            time.sleep(_ENDING)  # if it is MPI that ends all, this does not wake up
            how = f"with status {status}, before the others"
        os.write(2, f"tinygrad_bn ends all ranks: {name} ended {how}\n".encode())
        status = status or 1
    os._exit(status if status >= 0 else 128 - status)
