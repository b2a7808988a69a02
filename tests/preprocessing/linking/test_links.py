"""Linking to a made-up graph in PrimeKG's form, with cross-references in their true formats."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from preprocessing.codes import CodeRecord
from preprocessing.common.errors import InputError
from preprocessing.common.rejects import Rejects
from preprocessing.graph.knowledge_graph import from_facts, node_table
from preprocessing.linking.evidence import METHODS, gather
from preprocessing.linking.links import LINK_SCHEMA, anchors_of, coverage, link_codes, read_codes
from preprocessing.linking.rules import Code, ancestors
from preprocessing.linking.targets import LinkTargets
from tests.helpers.forked import run_module

NODES = (
    ("disease", "diabetes mellitus", "MONDO", "5015"),  # 0
    ("disease", "type 2 diabetes mellitus", "MONDO", "5148"),  # 1
    ("disease", "osteochondrosis", "MONDO_grouped", "10079_16781_16207"),  # 2
    ("effect/phenotype", "Seizure", "HPO", "1250"),  # 3
    ("drug", "Metformin", "DrugBank", "DB00331"),  # 4
    ("drug", "Acetylsalicylic acid", "DrugBank", "DB00945"),  # 5
    ("drug", "Sodium chloride", "DrugBank", "DB09153"),  # 6
    ("drug", "Sodium", "DrugBank", "DB14516"),  # 7
    ("anatomy", "Appendix", "UBERON", "1154"),  # 8
    ("gene/protein", "SEIZURE", "NCBI", "1"),  # 9
    ("effect/phenotype", "Diabetes mellitus", "HPO", "819"),  # 10
    ("drug", "Glimepiride", "DrugBank", "DB00222"),  # 11
)
SSSOM_HEADER = "# mapping_set_id: made up\nsubject_id\tsubject_label\tpredicate_id\tobject_id\n"
MONDO = (
    ("5148", "skos:exactMatch", "ICD10CM:E11"),
    ("5015", "skos:broadMatch", "ICD10CM:E11"),
    ("5015", "oboInOwl:hasDbXref", "ICD9:250"),
    ("5015", "skos:relatedMatch", "ICD9:250"),
    ("5015", "skos:exactMatch", "SCTID:73211009"),
    ("16781", "skos:exactMatch", "ICD10CM:M42"),
    ("99", "skos:exactMatch", "ICD10CM:A00"),
    ("5015", "skos:exactMatch", "ICD10CM:E08-E13"),
)
HP = """\
format-version: 1.2

[Term]
id: HP:0001250
name: Seizure
synonym: "Epileptic fit" EXACT []
xref: SNOMEDCT_US:91175000
xref: UMLS:C0036572
"""
DRUGBANK = """\
DrugBank ID,Accession Numbers,Common name,CAS,UNII,Synonyms,Standard InChI Key
DB00945,,Acetylsalicylic acid,,,Aspirin,
"""


def graph():
    return from_facts(node_table(NODES), {"r": np.array([[0, 1], [4, 5]])}, {"r": "r"})


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "crossreferences"
    (path / "MONDO").mkdir(parents=True)
    (path / "HPO").mkdir()
    rows = "".join(f"MONDO:{int(number):07}\tx\t{how}\t{target}\n" for number, how, target in MONDO)
    (path / "MONDO" / "mondo_all.sssom.tsv").write_text(SSSOM_HEADER + rows)
    (path / "HPO" / "hp.obo").write_text(HP)
    (path / "drugbank vocabulary.csv").write_text(DRUGBANK)
    return path


def code(key, description="", **attributes):
    system, _, value = key.partition("/")
    return Code(CodeRecord(system, value, description), attributes)


def link(folders, codes, rejects=None, **options):
    """key -> [(node, method, confidence, exact, via)], best first."""
    targets = LinkTargets(graph())
    evidence = gather(folders, targets, rejects or Rejects(None), progress=False)
    table = link_codes(codes, targets, evidence, progress=False, **options)
    assert table.schema == LINK_SCHEMA
    found = {c.record.key: [] for c in codes}
    for row in table.to_pylist():
        assert row["rank"] == len(found[row["key"]])
        links = (row["node_id"], row["method"], round(row["confidence"], 4), row["exact"], row["via"])
        found[row["key"]].append(links)
    return found


def one(folders, wanted, *others, **options):
    return link(folders, [wanted, *others], **options)[wanted.record.key]


def test_mondo_by_predicate(folder):
    assert one([folder], code("ICD10CM/E11")) == [
        (1, "mondo_exact", 1.0, True, ""),
        (0, "mondo_broad", 0.5, False, ""),
    ]
    assert one([folder], code("ICD9CM/250")) == [(0, "mondo_xref", 0.75, False, "")]
    assert one([folder], code("SNOMED/73211009")) == [(0, "mondo_exact", 1.0, True, "")]


def test_a_group_of_diseases_is_not_the_code_itself(folder):
    assert one([folder], code("ICD10CM/M42")) == [(2, "mondo_exact", 1.0, False, "")]
    # But a name that is the description would show it.
    assert one([folder], code("ICD10CM/M42", "Osteochondrosis")) == [(2, "mondo_exact", 1.0, True, "")]


def test_names_and_synonyms_fit_the_system(folder):
    assert one([folder], code("ICD10CM/R56.9", "Seizures, unspecified")) == [(3, "name", 0.95, True, "")]
    assert one([folder], code("ICD10CM/R56.8", "Epileptic fits")) == [(3, "synonym", 0.85, False, "")]
    assert one([folder], code("CPT4/44950", "Appendix")) == [(8, "name", 0.95, True, "")]
    assert one([folder], code("ICD10CM/K38", "Appendix")) == []
    assert one([folder], code("ICD10PCS/0DTJ0ZZ", "Appendix removal")) == []
    tagged = code("SNOMED/66754008", "Appendix", semantic_tag="body structure")
    assert one([folder], tagged) == [(8, "name", 0.95, True, "")]
    assert one([folder], code("SNOMED/66754008", "Appendix", semantic_tag="disorder")) == []


def test_hpo_references(folder):
    assert one([folder], code("SNOMED/91175000")) == [(3, "hpo_xref", 0.85, False, "")]


def test_drugs(folder):
    assert one([folder], code("RxNorm/6809", "metformin")) == [(4, "name", 0.95, True, "")]
    clinical = code("RxNorm/860975", "24 HR metformin hydrochloride 500 MG Extended Release Oral Tablet")
    assert one([folder], clinical) == [(4, "ingredient", 0.8, False, "")]
    both = code("RxNorm/1", "aspirin 81 MG / sodium chloride 9 MG/ML Oral Tablet")
    assert one([folder], both) == [(5, "ingredient", 0.8, False, ""), (6, "ingredient", 0.8, False, "")]
    package = code("NDC/00002143380", "Some Brand", generic="Metformin Hydrochloride", ingredients=["ASPIRIN 81 mg/1"])
    assert [entry[0] for entry in one([folder], package)] == [4, 5]
    assert one([folder], code("HCPCS/J7030", "Infusion, sodium chloride, 1000 cc"))[0][:2] == (6, "ingredient")
    assert one([folder], code("HCPCS/E0001", "Metformin pump")) == []


def test_a_drug_package_takes_links_of_its_concept_and_product(folder):
    concept = code("RxNorm/6809", "metformin")
    package = code("NDC/00002143380", "Brand", rxcui="6809")
    assert one([folder], package, concept) == [(4, "rxcui", 0.9025, False, "RxNorm/6809")]
    product = code("NDC/000021433", "Brand", generic="metformin")
    assert one([folder], code("NDC/00002143381", "Brand"), product) == [(4, "ancestor", 0.64, False, "NDC/000021433")]


def test_ancestors_hand_down_with_less_confidence(folder):
    assert one([folder], code("ICD10CM/E11.65")) == [
        (1, "ancestor", 0.64, False, "ICD10CM/E11"),
        (0, "ancestor", 0.32, False, "ICD10CM/E11"),
    ]
    nearer = code("ICD10CM/E11.6", "Seizure")
    assert one([folder], code("ICD10CM/E11.65"), nearer) == [(3, "ancestor", 0.76, False, "ICD10CM/E11.6")]
    assert [entry[0] for entry in one([folder], code("ICD10CM/E11.6", "Seizure"))] == [3]


def test_atc_classes_take_their_members(folder):
    members = [code("ATC/A10BA02", "metformin"), code("ATC/A10BB12", "glimepiride")]
    found = link([folder], [*members, code("ATC/A10B", "made up"), code("ATC/A10BA", ""), code("ATC/A10BA99", "new")])
    half = 0.475
    assert found["ATC/A10BA"] == [(4, "member", half, False, "ATC/A10BA02")]
    assert {entry[0] for entry in found["ATC/A10B"]} == {4, 11}
    assert found["ATC/A10BA99"] == [(4, "ancestor", 0.38, False, "ATC/A10BA02")]


def test_ancestors_of_codes():
    assert list(ancestors("ICD10CM", "E11.65")) == ["ICD10CM/E11.6", "ICD10CM/E11"]
    assert list(ancestors("ICD9CM", "E849.0")) == ["ICD9CM/E849"]
    assert list(ancestors("ICD9Proc", "00.10")) == ["ICD9Proc/00.1", "ICD9Proc/00"]
    assert list(ancestors("ICD10CM", "E11")) == list(ancestors("SNOMED", "73211009")) == []
    assert list(ancestors("ATC", "A10BA02")) == ["ATC/A10BA", "ATC/A10B", "ATC/A10", "ATC/A"]
    assert list(ancestors("NDC", "00002143380")) == ["NDC/000021433"]
    assert list(ancestors("NDC", "000021433")) == []


def umls_row(cui, source, value):
    return f"{cui}|ENG|P|L1|PF|S1|Y|A1||{value}||{source}|PT|{value}|made up|0|N|256|\n"


def test_umls(folder, tmp_path):
    umls = tmp_path / "umls"
    umls.mkdir()
    (umls / "umls_mondo.csv").write_text("umls_id,mondo_id\nC0011849,5015\nC0000009,404\n")
    (umls / "MRCONSO.RRF").write_text(
        umls_row("C0011849", "CPT", "82947")
        + umls_row("C0025598", "RXNORM", "6809")
        + umls_row("C0025598", "DRUGBANK", "DB00331")
        + umls_row("C0036572", "ICD9CM", "780.39")
        + umls_row("C0036572", "ICD9CM", "00.10")
        + umls_row("C0012345", "ICD10CM", "R56")
        + umls_row("C0012345", "HPO", "HP:0001250")
        + umls_row("C0012346", "ICD10CM", "E08-E13")
    )
    keys = ("CPT4/82947", "RxNorm/6809", "ICD9CM/780.39", "ICD9Proc/00.10", "ICD10CM/R56")
    rejects = Rejects(None)
    found = link([folder, umls], [code(key) for key in keys], rejects)
    assert [found[key] for key in keys] == [[(node, "umls", 0.9, True, "")] for node in (0, 4, 3, 3, 3)]
    assert rejects.counts["umls_mondo.csv", "id not in the graph"] == 1


def test_full_rxnorm_names_drugbank_ids_and_atc_codes(folder, tmp_path):
    (folder / "RXNCONSO.RRF").write_text(umls_row("77", "DRUGBANK", "DB00331") + umls_row("77", "ATC", "A10BA02"))
    found = link([folder], [code("RxNorm/77", "made up"), code("ATC/A10BA02", "made up")])
    assert found["RxNorm/77"] == [(4, "drugbank_id", 1.0, True, "")]
    assert found["ATC/A10BA02"] == [(4, "rxcui", 0.95, False, "RxNorm/77")]


def test_ids_that_the_graph_lacks_are_rejected_and_ranges_counted(folder):
    rejects = Rejects(None)
    targets = LinkTargets(graph())
    evidence = gather([folder], targets, rejects, progress=False)
    assert rejects.summary() == [("mondo_all.sssom.tsv", "id not in the graph", "rejected", 1)]
    assert evidence.counts["references to what is no code of ICD10CM"] == 1


def test_the_order_of_codes_does_not_matter_and_the_best_are_kept(folder):
    codes = [code("ICD10CM/E11", "Seizure"), code("ICD9CM/250", "Diabetes mellitus"), code("ICD10CM/E11.9")]
    found = link([folder], codes)
    assert link([folder], codes[::-1]) == found
    assert [entry[0] for entry in found["ICD10CM/E11"]] == [1, 3, 0]
    # One disease and one phenotype bear the name; equal confidence goes by node.
    assert [entry[0] for entry in found["ICD9CM/250"]] == [0, 10]
    for most in (1, 2):
        assert link([folder], codes, most=most) == {key: links[:most] for key, links in found.items()}


def test_anchors(folder, tmp_path):
    codes = [
        code("ICD9CM/250", "Diabetes mellitus"),
        code("ICD10CM/E11", "Seizure"),
        code("CPT4/00001"),
        code("ICD10CM/E11.9"),
    ]
    targets = LinkTargets(graph())
    links = link_codes(codes, targets, gather([folder], targets, Rejects(None), progress=False), progress=False)
    records = [entry.record for entry in codes]
    anchors, self_node = anchors_of(records, links)
    # The second exact one of a code would show the name that the first must hide.
    assert anchors.tolist() == [[0, -1, -1], [1, 0, -1], [-1, -1, -1], [1, 3, 0]]
    assert self_node.tolist() == [0, 0, -1, -1]
    assert (anchors.dtype, self_node.dtype) == (np.int32, np.int32)
    path = tmp_path / "links.parquet"
    pq.write_table(links, path)
    assert all(np.array_equal(a, b) for a, b in zip(anchors_of(records, path), (anchors, self_node), strict=True))
    assert anchors_of(records[2:3], links)[0].tolist() == [[-1]]
    assert anchors_of([], links)[0].shape == (0, 1)
    path.write_bytes(b"no links")
    with pytest.raises(InputError, match=r"preprocessing\.linking"):
        anchors_of(records, path)


def test_every_method_is_worth_less_than_the_one_before():
    confidences = [method.confidence for method in METHODS.values()]
    assert confidences == sorted(confidences, reverse=True)
    exact = [method.exact for method in METHODS.values()]
    assert exact == sorted(exact, reverse=True)


def test_reading_codes(tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text('system,code,description,attributes\nNDC,00002143380,"A, B","{""rxcui"":""1""}"\nATC,A10,x,{\n')
    rejects = Rejects(None)
    assert read_codes(path, rejects) == [code("NDC/00002143380", "A, B", rxcui="1"), code("ATC/A10", "x")]
    assert rejects.summary() == [("codes.csv", "malformed attributes", "rejected", 1)]
    path.write_text("system,code\n")
    with pytest.raises(InputError, match="no column 'description'"):
        read_codes(path, rejects)


@pytest.mark.integration
def test_command_line(folder, tmp_path):
    graph().save(tmp_path / "graph")
    with (tmp_path / "codes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("system", "code", "description", "attributes"))
        writer.writerows([("ICD10CM", "E11.9", "", ""), ("ICD10CM", "E11", "", ""), ("CPT4", "00001", "", "")])
    output = tmp_path / "links"
    command = ["preprocessing.linking", f"--input={tmp_path}/codes.csv", f"--output={output}"]
    command += [f"--graph={tmp_path}/graph", f"--crossreferences={folder}"]
    done = run_module(*command)
    assert done.returncode == 0, done.stderr
    assert "ancestor" in done.stdout
    report = json.loads((output / "coverage.json").read_text())
    assert report["systems"] == {
        "ICD10CM": {"codes": 2, "linked": 2, "mondo_exact": 1, "ancestor": 1},
        "CPT4": {"codes": 1, "linked": 0},
    }
    assert report["systems"] == coverage(
        read_codes(tmp_path / "codes.csv", Rejects(None)), pq.read_table(output / "links.parquet")
    )
    before = {file.name: file.read_bytes() for file in output.iterdir()}
    strict = run_module(*command, "--strict")
    assert strict.returncode == 1
    assert "id not in the graph" in strict.stderr
    assert {file.name: file.read_bytes() for file in output.iterdir()} == before
    assert b"mondo_all.sssom.tsv,9," in before["rejects.csv"]
    absent = run_module(*command, "--umls=nowhere")
    assert absent.returncode == 2
    assert "nowhere is not a folder" in absent.stderr
