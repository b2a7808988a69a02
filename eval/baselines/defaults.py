"""Read from `configs/default.py`, in one place, the sizes and lengths that baselines share with the default MedTok.

Every baseline was tried once, with these settings: none was tuned.
"""

from configs import default
from medtok_jax.config import total_steps
from medtok_jax.regions import parts_of, positions_of

DEFAULT_CONFIG = default.get_config()
SIZE: int = DEFAULT_CONFIG.model.codebook_size  # N, rows of the codebook.
WIDTH: int = DEFAULT_CONFIG.model.embedding_dim  # d, width of the rows.
TOKENS: int = len(positions_of(parts_of(DEFAULT_CONFIG.model)))  # T, tokens of a code.
KMEANS_SAMPLES: int = DEFAULT_CONFIG.model.kmeans_samples
KMEANS_ITERATIONS: int = DEFAULT_CONFIG.model.kmeans_iterations
JOINT_FIT_ROUNDS: int = DEFAULT_CONFIG.model.joint_fit_rounds
BATCH_SIZE: int = DEFAULT_CONFIG.train.batch_size
LEARNING_RATE: float = DEFAULT_CONFIG.train.lr
# Settings of each baseline that were tried before its figures were reported.
TRIALS = 1


def steps_for(num_codes: int, batch_size: int) -> int:
    """Return the steps in which batches hold as many codes as all batches of the default MedTok do.

    Args:
        num_codes: number of training codes.
        batch_size: codes of a batch.
    """
    config = DEFAULT_CONFIG.copy_and_resolve_references().unlock()
    config.train.batch_size = batch_size
    return max(total_steps(config, num_codes), 1)
