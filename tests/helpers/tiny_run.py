"""Configure a training of seconds on 60 invented codes, with a text encoder of one layer, all in one folder."""

from pathlib import Path

from preprocessing import medtok_codes
from tests.helpers.published import write_release
from tests.helpers.small_run import small_config

DATA_SET = "medtok_codes/release"
# What may be in the environment of a run, and nowhere else.
SECRETS = {"HF_TOKEN": "hf_hunter2", "PHYSIONET_USERNAME": "ada.lovelace", "PHYSIONET_PASSWORD": "correct horse"}


def get_config(root: str):
    """The configuration of a run whose data lie in `ROOT/data`; to a command it is `tiny_run.py:ROOT`."""
    config = small_config(Path(root) / "data", loss__positive_relations=()).copy_and_resolve_references()
    config.unlock()
    config.data.update(name=DATA_SET, hard_negatives=0.25, length_buckets=(32,), max_length=32)
    config.model.update(text_encoder_model=str(Path(root) / "encoders" / "tiny"), codebook_size=40, kmeans_step=1)
    config.model.kmeans_samples = 40
    config.train.update(batch_size=16, steps=4, log_every=1, eval_every=2, checkpoint_every=2, num_devices=1)
    return config.lock()


def prepare(root: Path) -> None:
    """Build the data set and the text encoder of a run."""
    from eval.speed.random_text import write_encoder

    write_encoder(root / "encoders", "tiny")
    source = write_release(root / "release")
    medtok_codes.prepare(DATA_SET, root / "data", progress=False, source_dir=source)
