"""Meet another process, and then wait for it or fail, as the flags say: the shortest run of two processes."""

import os
import signal
import threading

import numpy as np
from absl import flags

from preprocessing.common import command_line
from preprocessing.common.errors import InputError

# Both fail in the same way, or one of them does, by itself or by a signal.
ALIKE, ALONE = "alike", "alone"
# Seconds of grace: there is no work that would have to end.
GRACE = 2


def main(_) -> None:
    from jax.experimental import multihost_utils

    from medtok_jax.devices import processes

    processes.GRACE = GRACE
    given = flags.FLAGS
    with processes.joined(given.coordinator_address, given.num_processes, given.process_id):
        multihost_utils.process_allgather(np.int32(1))
        if given.fault == ALIKE or (given.fault == ALONE and given.process_id == given.actor):
            raise InputError("this cannot be used.")
        if given.process_id == given.actor:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.Signals[given.fault])).start()
            threading.Event().wait()
        multihost_utils.process_allgather(np.int32(1))


if __name__ == "__main__":
    flags.DEFINE_bool("distributed", True, "")
    flags.DEFINE_string("coordinator_address", None, "")
    flags.DEFINE_string("fault", None, "")
    for name in ("num_processes", "process_id", "actor"):
        flags.DEFINE_integer(name, 0, "")
    command_line.run(main)
