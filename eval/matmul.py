"""What this machine's matrix multiplication reaches: the limit that other figures are a fraction of."""

import jax
import jax.numpy as jnp

from eval.timing import repeat

# Wide enough for the best rate, small enough for a fraction of a second.
WIDTHS = {"cpu": 2048, "gpu": 8192, "tpu": 8192}


def jax_flops(dtype=jnp.float32, *, repeats: int = 7) -> float:
    """Most floating-point operations a second of JAX's product of two square matrices."""
    device = jax.devices()[0]
    width = WIDTHS.get(device.platform, 4096)
    a, b = (jax.random.normal(jax.random.key(seed), (width, width), dtype) for seed in (0, 1))
    product = jax.jit(jnp.matmul)
    return 2.0 * width**3 / min(repeat(lambda: jax.block_until_ready(product(a, b)), repeats))


def torch_flops(device, dtype=None, *, repeats: int = 7) -> float:
    """The same of PyTorch."""
    import torch

    width = WIDTHS["gpu" if device.type == "cuda" else "cpu"]
    a, b = (torch.randn(width, width, device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()

    return 2.0 * width**3 / min(repeat(product, repeats))
