import pytest

from preprocessing.common.errors import InputError
from preprocessing.common.rejects import Rejects
from preprocessing.sources.umls import read_concepts, read_umls_mondo


def concept(cui, source, code):
    """A row of MRCONSO.RRF with made-up wording."""
    return f"{cui}|ENG|P|L1|PF|S1|Y|A1||{code}||{source}|PT|{code}|made up|0|N|256|"


def test_concepts(tmp_path):
    path = tmp_path / "MRCONSO.RRF"
    rows = [
        concept("C0011860", "ICD10CM", "E11"),
        concept("C0011860", "MSH", "D003924"),
        "C0011860|ENG",
        concept("C0011860", "SNOMEDCT_US", "44054006"),
    ]
    path.write_text("\n".join(rows) + "\n")
    rejects = Rejects(None)
    found = list(read_concepts(path, ("ICD10CM", "SNOMEDCT_US"), rejects, progress=False))
    assert found == [("C0011860", "ICD10CM", "E11"), ("C0011860", "SNOMEDCT_US", "44054006")]
    assert rejects.summary() == [("MRCONSO.RRF", "wrong column count", "rejected", 1)]


def test_umls_mondo(tmp_path):
    path = tmp_path / "umls_mondo.csv"
    path.write_text("umls_id,mondo_id\nC0011860,5148\nC0011849,MONDO:0005015\nC0000001,5015.0\nX,1\nC0000002,\n")
    rejects = Rejects(None)
    assert list(read_umls_mondo(path, rejects)) == [
        (2, "C0011860", "MONDO:0005148"),
        (3, "C0011849", "MONDO:0005015"),
        (4, "C0000001", "MONDO:0005015"),
    ]
    assert rejects.summary() == [("umls_mondo.csv", "malformed identifier", "rejected", 2)]
    path.write_text("umls,mondo_id\n")
    with pytest.raises(InputError, match="no column 'umls_id'"):
        list(read_umls_mondo(path, rejects))
