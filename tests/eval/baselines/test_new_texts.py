"""New descriptions, encoded by the model of a tokenizer directory as `MedTokTokenizer` encodes them."""

import numpy as np
import pytest

from eval.baselines import new_texts
from eval.common.representation import load
from medtok_jax.inference import vocabulary
from medtok_jax.inference.new_codes import NewCode
from medtok_jax.inference.trained import TrainedModel
from medtok_jax.tokenizer import MedTokTokenizer
from medtok_jax.training import setup
from tests.helpers.small_run import small_config

TEXTS = ["sugar sickness of the old", "broken left ankle", "sugar sickness of the old"]


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory) -> TrainedModel:
    """A model as it is initialized."""
    workdir = tmp_path_factory.mktemp("new_texts")
    ready = setup.set_up(small_config(data_dir), workdir, progress=False)
    metadata = ready.metadata | {"step": 0}
    return TrainedModel(workdir, ready.config, ready.inputs, ready.programs, ready.state, metadata)


def test_as_the_tokenizer_encodes_them(trained, tmp_path):
    for name, with_model in (("with", True), ("without", False)):
        vocabulary.write_tokenizer(trained, tmp_path / name, with_model=with_model, progress=False)
    assert new_texts.encode(load(tmp_path / "without"), TEXTS) is None
    opened = load(tmp_path / "with")
    assert opened.about["trained_on"] == ["gem_exact", "gem_approximate"]
    found = new_texts.encode(opened, TEXTS)
    tokenizer = MedTokTokenizer.from_pretrained(tmp_path / "with")
    for row, text in enumerate(TEXTS):
        (wanted,) = tokenizer.encode_new([NewCode("any system", "any code", text)])
        assert wanted.source == "model: text"
        np.testing.assert_array_equal(found["tokens"][row], wanted.ids)
        np.testing.assert_allclose(found["weights"][row], wanted.weights, atol=1e-5)
    before = tokenizer.new_code_encoder.encode([NewCode("any system", "any code", text) for text in TEXTS]).unquantized
    before[:, 1] = 0.0  # A text has no graph.
    np.testing.assert_allclose(found["vectors"], before.reshape(3, opened.vectors.shape[1]), atol=1e-5)
    np.testing.assert_allclose(found["vectors"][0], found["vectors"][2], atol=1e-5)
    assert not np.allclose(found["vectors"][0], found["vectors"][1], atol=1e-2)
