"""Train MedTok: `python -m medtok_jax.main --config=configs/default.py --workdir=DIR [--config.FIELD=VALUE ...]`.

Run the same command again to continue after an interruption. The exit status is 0 if training finished, 2 if an
argument or input cannot be used, 1 if the loss became NaN or infinite or another process of the run is gone, and 130 or
143 if training was stopped by Ctrl-C or SIGTERM, with everything saved.
"""

import contextlib

from absl import flags
from ml_collections import config_flags

from medtok_jax import config as configuration
from medtok_jax.devices.huge_pages import restart_with_huge_pages
from preprocessing.common import command_line

CONFIG = config_flags.DEFINE_config_file(
    "config", None, f"Configuration file, FILE[:VARIANT] ({configuration.DEFAULT})."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory for checkpoints, logs, tokens and the summary.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Run as one of several processes (jax.distributed).")
COORDINATOR = flags.DEFINE_string("coordinator_address", None, "host:port of process 0; detected on clusters.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Total number of processes; detected on clusters.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Index of this process; detected on clusters.")
flags.mark_flag_as_required("workdir")


def main(_) -> None:
    # JAX is imported only here, so that a wrong flag is reported at once and not after JAX has started.
    from medtok_jax import train
    from medtok_jax.devices import processes

    with contextlib.ExitStack() as stack:
        if DISTRIBUTED.value:
            stack.enter_context(processes.joined(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value))
        train.train_and_evaluate(CONFIG.value, WORKDIR.value)


if __name__ == "__main__":
    restart_with_huge_pages()
    command_line.run(main, check=configuration.check_arguments)
