"""Names of tokenizers in tables, and which of them are baselines."""

import pytest

from eval.ehr.tokenizers.names import is_baseline, judged_of, named
from preprocessing.common.errors import InputError


def test_the_judged_tokenizer_is_the_first_that_is_no_baseline():
    assert judged_of(["codes", "runs/default", "other"]) == "runs/default"
    assert judged_of(["codes", "words"]) == "codes"
    assert judged_of(["cooccurrence", "codes"]) == "codes"
    assert judged_of(["cooccurrence"]) == "cooccurrence"
    assert judged_of(["codes", "runs/default+words", "text_pursuit:unweighted"]) == "codes"


def test_a_folder_with_a_plus_is_one_tokenizer(tmp_path):
    path = tmp_path / "d_64+hard"
    path.mkdir()
    assert not is_baseline(str(path))
    assert judged_of(["codes", str(path)]) == str(path)
    # A plus in a name says that two are joined.
    assert named([str(path)]) == {"d_64_hard": str(path)}
    assert named([f"{path}:unweighted"]) == {"d_64_hard:unweighted": f"{path}:unweighted"}
    assert is_baseline("codes+words")


def test_names_and_what_they_are_made_of(tmp_path):
    assert named(["codes", f"own={tmp_path}", "codes+words", "both+words=codes+words"]) == {
        "codes": "codes",
        "own": str(tmp_path),
        "codes+words": "codes+words",
        "both+words": "codes+words",
    }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["codes", "codes"], "codes and codes are both called codes; write NAME=codes"),
        (
            ["words=runs/default"],
            "--tokenizers=words=runs/default: words is a baseline, which no other name stands for",
        ),
        (["text_pursuit:unweighted=runs/default"], "text_pursuit:unweighted is a baseline"),
        (["mine=codes"], "--tokenizers=mine=codes: codes is a baseline, which no other name stands for"),
        (["both=codes+words"], "both=codes.words: a plus in a name says that two are joined, and only then"),
        (["a+b=runs/default"], "a.b=runs/default: a plus in a name says that two are joined"),
        (["code"], "'code' is no tokenizer: .*did you mean 'codes'"),
        (["words:every"], "'words:every' has the suffix 'every'"),
    ],
)
def test_misleading_names_are_refused(given, told):
    with pytest.raises(InputError, match=told):
        named(given)
