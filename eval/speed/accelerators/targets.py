"""Define the devices that programs are compiled for: their peaks, their memory, and how XLA is told of them.

No such device has to be there. Programs for TPUs are compiled by `libtpu`, those for GPUs by JAX's plugin for CUDA and
the assembler of the CUDA toolkit.
"""

import dataclasses
import importlib.util
import types
from pathlib import Path

from preprocessing.common import extras
from preprocessing.common.errors import InputError

TPU, CUDA = "tpu", "cuda"
# A TPU multiplies float32 exactly in six passes of bfloat16, and in one unless it is told otherwise.
TPU_PASSES = types.MappingProxyType({"bfloat16": 1, "default": 1, "three passes": 3, "float32": 6})


@dataclasses.dataclass(frozen=True)
class Target:
    """Hold the facts about one kind of device, as its vendor gives them.

    Attributes:
        name: as `--target` takes it.
        platform: `tpu` or `cuda`.
        topology: of the devices, as XLA is asked for it.
        devices: number of them.
        memory: bytes of main memory of a device.
        bandwidth: bytes a second of main memory of a device.
        rates: floating-point operations a second in matmuls by precision, see `counting.Matmul`.
        source: where these facts are from.
        facts: of a GPU, what XLA's `GpuDeviceInfoProto` needs beyond them, by the name of the field.
    """

    name: str
    platform: str
    topology: str
    devices: int
    memory: int
    bandwidth: float
    rates: dict[str, float]
    source: str
    facts: dict[str, float] = dataclasses.field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """Return environment variables for the process that compiles, which computes nothing.

        It has as many CPU devices as the target has devices, so that batches are made for that many.
        """
        flags = [f"--xla_force_host_platform_device_count={self.devices}"]
        found = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
        # Programs are those that users get; one that is read from a cache cannot be loaded without the device.
        found |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "JAX_ENABLE_COMPILATION_CACHE": "false"}
        if self.platform == TPU:
            # Otherwise libtpu asks the host's metadata service which TPU it has.
            found |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
            # Several processes may compile at once; only a TPU that is there belongs to one of them.
            found |= {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
        else:
            flags.append(f"--xla_gpu_cuda_data_dir={_toolkit()}")
        return found | {"XLA_FLAGS": " ".join(flags)}

    def open(self):
        """Return the devices as `jax.experimental.topologies` describes them. This process must have `environment`.

        Raises:
            InputError: the compiler does not take the description.
        """
        import jax
        from jax.experimental import topologies

        described = {"target_config": self.config_text()} if self.platform == CUDA else {}
        name = {"topology": self.topology} if self.platform == CUDA else {"topology_name": self.topology}
        try:
            return topologies.get_topology_desc(platform=self.platform, **name, **described).devices
        except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"the compiler for {self.name} does not start ({reason}); install the packages of this version of jax:"
                f" pip install 'medtok_jax[{extras.EXTRAS[PACKAGES[self.platform][0]]}]'"
            ) from error

    def compiler_options(self) -> dict[str, str]:
        """Return the options of XLA that compile without the device: it cannot time kernels to choose among them."""
        return {"xla_gpu_autotune_level": "0"} if self.platform == CUDA else {}

    def config_text(self) -> str:
        """Return the `GpuTargetConfigProto` of XLA in text form."""
        info = {"memory_bandwidth": int(self.bandwidth), "device_memory_size": self.memory} | self.facts
        lines = [f"  {name}: {value}" for name, value in info.items()]
        capability = "  cuda_compute_capability { major: 9 minor: 0 }"
        name = f'device_description_str: "NVIDIA {self.name.upper()}"'
        return "\n".join(["gpu_device_info {", capability, *lines, "}", 'platform_name: "CUDA"', name]) + "\n"

    def report(self) -> dict:
        """Return the peaks, for the report."""
        return {"memory": self.memory, "bandwidth": self.bandwidth, "rates": dict(self.rates), "source": self.source}

    def arithmetic_seconds(self, flops: dict[str, float]) -> float:
        """Return the time that matmuls take at the peaks, given their operations by precision."""
        return sum(count / self.rates[precision] for precision, count in flops.items())


def _tpu(name: str, devices: int, flops: float, memory: float, bandwidth: float, page: str) -> Target:
    return Target(
        name=name,
        platform=TPU,
        topology=name,
        devices=devices,
        memory=int(memory),
        bandwidth=bandwidth,
        rates={precision: flops / passes for precision, passes in TPU_PASSES.items()},
        source=f"https://cloud.google.com/tpu/docs/{page}, key specifications",
    )


# Compute capability 9.0 in the CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability";
# multiprocessors, clock and L2 cache of the SXM5 board in NVIDIA's "H100 Tensor Core GPU Architecture" (2022).
_HOPPER = types.MappingProxyType(
    {
        "core_count": 132,
        "fpus_per_core": 128,
        "clock_rate_ghz": 1.98,
        "l2_cache_size": 50 * 2**20,
        "threads_per_warp": 32,
        "threads_per_block_limit": 1024,
        "threads_per_core_limit": 2048,
        "registers_per_block_limit": 65536,
        "registers_per_core_limit": 65536,
        "shared_memory_per_block": 48 * 2**10,
        "shared_memory_per_block_optin": 227 * 2**10,
        "shared_memory_per_core": 228 * 2**10,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
    }
)


def _hopper(name: str, memory: float, bandwidth: float) -> Target:
    """Return an SXM board of the Hopper generation; data sheets give twice these rates, with sparsity."""
    return Target(
        name=name,
        platform=CUDA,
        topology="1x1x1",
        devices=1,
        memory=int(memory),
        bandwidth=bandwidth,
        rates={"bfloat16": 989.5e12, "default": 494.5e12, "three passes": 494.5e12 / 3, "float32": 67e12},
        source=f"NVIDIA {name.upper()} Tensor Core GPU data sheet, column SXM",
        facts=dict(_HOPPER),
    )


# Peaks of each target: operations a second (bfloat16), bytes of memory, bytes a second.
TARGETS = {
    target.name: target
    for target in (
        _tpu("v5e:2x4", 8, 197e12, 16e9, 819e9, "v5e"),
        _tpu("v6e:2x4", 8, 918e12, 32e9, 1638e9, "v6e"),
        _tpu("v5p:2x2x1", 4, 459e12, 95e9, 2765e9, "v5p"),
        _hopper("h100", 80e9, 3.35e12),
        _hopper("h200", 141e9, 4.8e12),
    )
}
# Platform -> packages that compile for it, as they are imported.
PACKAGES = {TPU: ("libtpu",), CUDA: ("jax_plugins.xla_cuda12", "jax_cuda12_plugin", "nvidia.cuda_nvcc")}


def find(name: str | None) -> Target:
    """Return the target of a name, with all that compiling for it needs.

    Raises:
        InputError: there is no such target, or a package is missing.
    """
    if name not in TARGETS:
        given = f"there is no target {name!r}" if name else "--target is missing"
        kinds = " and ".join(
            f"the extra {extras.EXTRAS[PACKAGES[platform][0]]} for {platform}" for platform in PACKAGES
        )
        raise InputError(f"{given}; the targets are {', '.join(TARGETS)}, compiled with {kinds}.")
    target = TARGETS[name]
    for package in PACKAGES[target.platform]:
        if not _is_there(package):
            raise extras.missing(package)
    return target


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        # A parent of the package is missing.
        return False


def _toolkit() -> Path:
    """Return the folder of the assembler and the device library that the package `nvidia.cuda_nvcc` brings."""
    spec = importlib.util.find_spec("nvidia.cuda_nvcc")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("nvidia.cuda_nvcc")
    return Path(spec.submodule_search_locations[0])
