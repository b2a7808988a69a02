"""Settings are checked before any work, and a folder keeps to one benchmark."""

import dataclasses

import pytest

from eval.ehr.settings import CELLS, DECLARED, Settings, check_folder, claim, declare
from preprocessing.common.errors import InputError


@pytest.fixture
def settings(tmp_path):
    return Settings(dataset="eicu_demo", dataset_dir=None, output=tmp_path, tokenizers=("codes", "words"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dataset": "eicu_dem"}, "--dataset=eicu_dem is unknown; did you mean 'eicu_demo'"),
        ({"dataset": "xyz"}, "choose from: mimic3, mimic4"),
        ({"regimes": ("full", "few_shots")}, "--regime=few_shots is unknown; did you mean 'few_shot'"),
        ({"protocol": "clinic"}, "did you mean 'clinical'"),
        ({"tokenizers": ()}, "--tokenizers is empty"),
        ({"tokenizers": ("codes", "words", "codes")}, "--tokenizers names codes twice"),
        ({"models": ()}, "--models is empty; name at least one, such as --models=logistic"),
        ({"regimes": ()}, "--regime is empty"),
        ({"regimes": ("full", "full")}, "--regime names full twice"),
        ({"tasks": ("mortality", "mortality")}, "--tasks names mortality twice"),
        ({"predictions": ("mortality=X=a", "mortality=X=b")}, "--predictions names mortality=X twice"),
    ],
)
def test_what_cannot_be_used_is_refused(settings, change, told):
    with pytest.raises(InputError, match=told):
        dataclasses.replace(settings, **change)


def test_a_folder_keeps_to_one_benchmark(settings):
    check_folder(settings)
    claim(settings)
    more = dataclasses.replace(settings, tokenizers=("rollup",), regimes=("few_shot",), seeds=3, models=("behrt",))
    check_folder(more)
    with pytest.raises(InputError, match="holds a benchmark with --dataset=eicu_demo, not planted; give another"):
        check_folder(dataclasses.replace(settings, dataset="planted"))
    with pytest.raises(InputError, match="with --smoke=False, not True"):
        check_folder(dataclasses.replace(settings, smoke=True))
    (settings.output / "settings.json").write_text("{")
    with pytest.raises(InputError, match=r"settings\.json cannot be read"):
        check_folder(settings)


def test_comparisons_are_declared_before_anything_is_fitted(settings):
    """More may be added at any time; what is left out or replaced later is told with the number of fitted cells."""
    family = {"tokenizer": "run", "others": ("codes", "words"), "setups": (("mortality", "before"),)}
    assert declare(settings, family) == declare(settings, family) == 0
    fewer = family | {"others": ("codes",)}
    assert declare(settings, fewer) == 0, "nothing was fitted yet"
    for number in range(3):
        (settings.output / CELLS / str(number)).mkdir(parents=True)
    more = family | {"setups": (*family["setups"], ("readmission", "bedside"))}
    assert declare(settings, fewer) == declare(settings, more) == 0
    for other in (fewer, more | {"tokenizer": "other"}, more | {"setups": (("mortality", "coded"),)}):
        (settings.output / DECLARED).unlink()
        assert declare(settings, more) == 0
        assert declare(settings, other) == 3
        assert declare(settings, more) == 3, "what was told once is not forgotten"
    (settings.output / DECLARED).write_text("{}")
    with pytest.raises(InputError, match=f"{DECLARED} cannot be read"):
        declare(settings, family)
