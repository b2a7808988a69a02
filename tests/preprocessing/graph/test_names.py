import pytest

from preprocessing.graph.names import by_normal_form, category_name, normal_form, prefix_name, shared_words


def test_shared_words_ignore_case_and_punctuation_at_the_edges():
    assert shared_words(["Cholera", "due", "to", "x"], ["Cholera,", "unspecified"]) == ["Cholera"]
    assert shared_words(["a"], ["b"]) == []


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("Bypass Cerebral Ventricle to", "Bypass Cerebral Ventricle"),
        ("Other and", ""),
        (
            "Diabetes mellitus without mention of complication, type",
            "Diabetes mellitus without mention of complication",
        ),
        ("Infusion (acute", ""),
        ("Imaging (MRI)", "Imaging (MRI)"),
    ],
)
def test_prefix_names_do_not_dangle(words, name):
    assert prefix_name(words.split()) == name


def test_category_name_prefers_prefix_then_residual_then_the_first_two():
    assert category_name(["Cholera due to x", "Cholera, unspecified"], "Cholera, unspecified") == "Cholera"
    assert category_name(["Goiter", "Struma"], "Thyroid disorder, unspecified") == "Thyroid disorder"
    assert category_name(["Goiter", "Struma"], "Unspecified thyroid disorder") == "Thyroid disorder"
    assert category_name(["Goiter", "Struma", "Nodule"], "Other") == "Goiter; Struma"


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("Ménière's disease, unspecified", "meniere disease", True),
        ("Pilonidal cysts", "Pilonidal cyst", True),
        ("Shigellosis NOS", "shigellosis", True),
        ("Arthritis", "Arthriti", False),
        ("Type 1 diabetes", "Type 2 diabetes", False),
    ],
)
def test_normal_form(left, right, equal):
    assert (normal_form(left) == normal_form(right)) == equal


def test_short_names_do_not_match():
    assert by_normal_form([("Flu", 1), ("Gout", 2), ("gout", 2), ("Gout, unspecified", 3)]) == {"gout": [2, 3]}
