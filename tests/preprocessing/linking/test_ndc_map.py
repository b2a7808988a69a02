"""A user's map of NDCs to codes of RxNorm and ATC."""

import pytest

from preprocessing.common.errors import InputError
from preprocessing.linking.ndc_map import NdcMap
from tests.helpers.ndc_map import MAP


def test_what_a_map_holds(tmp_path):
    (tmp_path / "map.csv").write_text(MAP)
    found = NdcMap(tmp_path / "map.csv")
    assert (len(found), found.rejected) == (3, 2)
    assert found.codes_of("NDC/0002-1434-80") == ("RxNorm/860975",)
    assert found.codes_of("000021435") == found.codes_of("00002143511") == ("ATC/A10BA02",)
    assert found.codes_of("E11.9") == found.codes_of("00009999999") == ()
    (tmp_path / "keys.tsv").write_text("key\tNDC11\nRxNorm/1\t00002143480\nATC/A10BA02\t00002143480\n")
    assert NdcMap(tmp_path / "keys.tsv").codes_of("00002143480") == ("RxNorm/1", "ATC/A10BA02")


@pytest.mark.parametrize("text", ["ndc,drug\n00002143480,aspirin\n", "rxnorm,atc\n1,A10\n", "ndc,rxnorm\nx,1\n"])
def test_a_map_of_nothing_is_refused(tmp_path, text):
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(InputError, match=r"map\.csv"):
        NdcMap(tmp_path / "map.csv")
