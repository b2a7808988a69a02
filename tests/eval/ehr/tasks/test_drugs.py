"""Orders of the five drugs are found by code, ingredient, parent and name, and other forms are not."""

import polars as pl
import pytest

from eval.ehr.tasks.drugs import DRUGS, orders

NAMES = list(DRUGS)


def found(code: str, text: str | None = None, route: str | None = None, **about) -> list[str]:
    events = pl.DataFrame(
        {"code": [code], "text_value": [text], "route": [route]},
        schema=dict.fromkeys(("code", "text_value", "route"), pl.String),
    )
    return [NAMES[place] for place in orders(events, **about)["drug"]]


def test_the_targets_are_those_of_the_paper():
    assert {name: drug.atc for name, drug in DRUGS.items()} == {
        "vancomycin": "J01XA01",
        "levofloxacin": "J01MA12",
        "heparin": "B01AB01",
        "metoprolol": "C07AB02",
        "atorvastatin": "C10AA05",
    }


@pytest.mark.parametrize(
    ("code", "text", "route", "expected"),
    [
        ("ATC/J01XA01", None, None, ["vancomycin"]),
        ("RxNorm/6918", None, None, ["metoprolol"]),
        ("NDC/00002143380", "Heparin Flush (10 units/ml)", "IV", ["heparin"]),
        ("NDC/00002143380", "Enoxaparin", "SC", []),
        ("MEDICATION//START//Toprol XL", None, None, ["metoprolol"]),
        ("MEDICATION//HICL//7", "ATORVASTATIN 20MG TAB", None, ["atorvastatin"]),
        ("MEDICATION//Vancomycin//Administered", None, None, ["vancomycin"]),
        ("NDC/00002143380", "Vancomycin", "PO", []),
        ("NDC/00002143380", "Vancomycin Oral Liquid", None, []),
        ("NDC/00002143380", "Levofloxacin 0.5% ophth. soln", None, []),
        ("NDC/00002143380", "Levofloxacin", "OS", []),
        ("NDC/00002143380", "Levaquin", "PO", ["levofloxacin"]),
        ("LAB//1//HEPARIN", "heparin", None, []),
        ("TREATMENT//heparin", None, None, []),
        ("NDC/00002143380", None, None, []),
    ],
)
def test_orders(code, text, route, expected):
    assert found(code, text, route) == expected


def test_a_description_or_a_parent_names_the_drug():
    assert found("NDC/00002143380", names={"NDC/00002143380": "Lipitor 10 MG"}) == ["atorvastatin"]
    assert found("RxNorm/866924", "5", names={"RxNorm/866924": "metoprolol tartrate 25 MG Oral Tablet"}) == [
        "metoprolol"
    ]
    assert found("RxNorm/866924", parents={"RxNorm/866924": ["RxNorm/1", "RxNorm/6918"]}) == ["metoprolol"]
    assert found("NDC/00002143380", parents={"NDC/00002143380": ["ATC/C10AA05"]}) == ["atorvastatin"]


def test_a_data_set_without_routes():
    events = pl.DataFrame({"code": ["NDC/1"], "text_value": ["vancomycin"]})
    assert len(orders(events)) == 1
