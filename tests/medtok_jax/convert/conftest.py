"""A tokenizer and patients made by hand, written once."""

import pytest

from medtok_jax.convert.request import make_request
from tests.helpers import small_tokenizer, small_visits


@pytest.fixture(scope="session")
def small_tokenizer_dir(tmp_path_factory):
    """A tokenizer of 19 codes, 36 tokens, K = 2, d = 4."""
    return small_tokenizer.write(tmp_path_factory.mktemp("small") / "tokenizer")


@pytest.fixture(scope="session")
def small_meds(tmp_path_factory):
    """The patients of `small_visits`; 1 and 3 for training, 2 for tuning, 4 held out."""
    splits = {1: "train", 2: "tuning", 3: "train", 4: "held_out", 5: "train"}
    return small_visits.write(tmp_path_factory.mktemp("small") / "meds", files=2, splits=splits)


@pytest.fixture
def ask(small_tokenizer_dir, small_meds, tmp_path):
    """A function that makes the request of a conversion of both."""

    def request(unmapped="keep", events=small_meds, **options):
        return make_request(
            output=tmp_path / "out",
            tokenizer=small_tokenizer_dir,
            events=events,
            unmapped=unmapped,
            overwrite=True,
            options=options,
        )

    return request
