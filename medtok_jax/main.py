"""Trains MedTok: `python -m medtok_jax.main --config=configs/default.py --workdir=DIR [--config.FIELD=VALUE ...]`.

Run the same command again to go on after an interruption. Exit status: 0 finished, 2 something asked for cannot be
done, 1 the loss became no number, 130 or 143 stopped by Ctrl-C or SIGTERM with everything saved.
"""

from absl import flags
from ml_collections import config_flags

from medtok_jax import config as configuration
from medtok_jax.devices.huge_pages import restart_with_huge_pages
from preprocessing.common import command_line

CONFIG = config_flags.DEFINE_config_file(
    "config", None, f"Configuration file, FILE[:VARIANT] ({configuration.DEFAULT})."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, logs, tokens and the summary go.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Whether this is one of several processes (jax.distributed).")
COORDINATOR = flags.DEFINE_string("coordinator_address", None, "host:port of process 0; found by itself on clusters.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes in all; found by itself on clusters.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process; found by itself on clusters.")
flags.mark_flag_as_required("workdir")


def main(_) -> None:
    # Imported here, so that a wrong flag is told in a blink and not after JAX has started.
    import jax

    from medtok_jax import train

    if DISTRIBUTED.value:
        jax.distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    train.train_and_evaluate(CONFIG.value, WORKDIR.value)


if __name__ == "__main__":
    restart_with_huge_pages()
    command_line.run(main, check=configuration.check_arguments)
