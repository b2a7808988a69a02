"""Configure a real training that takes seconds: packaged data, the real MiniLM, a tiny model."""

from pathlib import Path

from configs import default

DATA_SET = "medtok_codes/icd-sample_600"


def small_config(data_dir: Path, **overrides):
    """Return a small variant of the default configuration; `overrides` are dotted fields with `__` for the dot."""
    config = default.get_config().copy_and_resolve_references()
    config.unlock()
    config.data.name = DATA_SET
    config.data.data_dir = str(data_dir)
    config.data.length_buckets = (64,)
    config.data.cache_dtype = "float32"
    for name in ("embedding_dim", "graph_width", "cross_width"):
        config.model[name] = 16
    config.model.codebook_size = 120
    config.model.graph_encoder_type = "gat"
    config.model.graph_layers = 1
    config.model.cross_layers = 1
    config.model.kmeans_step = 3
    config.model.kmeans_refit = True
    config.model.kmeans_samples = 200
    config.train.batch_size = 64
    config.train.steps = 12
    config.train.warmup_steps = 2
    config.train.log_every = 2
    config.train.eval_every = 6
    config.train.checkpoint_every = 4
    config.train.gradient_norms_every = 0
    for name, value in overrides.items():
        section, _, field = name.partition("__")
        if field:
            config[section][field] = value
        else:
            config[section] = value
    return config.lock()


def get_config(data_dir: str):
    """The configuration of the run that tests share; to a command it is `small_run.py:DATA_DIR`."""
    return small_config(Path(data_dir), train__grad_accum_steps=2)
