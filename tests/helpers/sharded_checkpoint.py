"""Save a checkpoint whose arrays are cut over four devices: `python -m tests.helpers.sharded_checkpoint WORKDIR`."""

import os
import sys
from pathlib import Path


def main(workdir: Path) -> None:
    """Write the checkpoint; its kernel holds the numbers from 0 to 63."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from medtok_jax.training import checkpoints
    from medtok_jax.training.state import TrainState

    sharding = jax.sharding.NamedSharding(jax.make_mesh((4,), ("data",)), jax.sharding.PartitionSpec("data"))
    params = nnx.state(nnx.Linear(8, 8, use_bias=False, rngs=nnx.Rngs(0)), nnx.Param)
    params = jax.tree.map(lambda _: jax.device_put(jnp.arange(64.0).reshape(8, 8), sharding), params)
    state = TrainState(step=jnp.int32(7), params=params, fixed=nnx.State({}), opt_state=(jnp.ones(3),))
    checkpoints.save(workdir, "last", state, {})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
