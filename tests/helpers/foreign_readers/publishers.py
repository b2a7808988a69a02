"""List the readers of files of publishers: code systems, ontologies, graphs, and the packages that ship them."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing import common_diagnoses, descriptions, primekg
from preprocessing.codes import CPT4, ICD9CM, ICD9PROC, ICD10CM, ICD10PCS
from preprocessing.common.rejects import Rejects
from preprocessing.dataset import inputs, known_codes, release
from preprocessing.download import archives, manifest, physionet
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from preprocessing.linking import links, ndc_map
from preprocessing.linking.evidence import gather
from preprocessing.linking.targets import LinkTargets
from preprocessing.sources import (
    atc,
    cpt,
    drugbank,
    hcpcs,
    hpo,
    icd,
    icd_editions,
    icd_files,
    mondo,
    ndc,
    rxnorm,
    snomed,
    tabular,
    umls,
)
from tests.helpers import kg_csv, official_files, published, small_world
from tests.helpers.foreign_readers.mutations import ForeignReader

SSSOM = (
    "# mapping_set_id: made up\nsubject_id\tsubject_label\tpredicate_id\tobject_id\tobject_label\n"
    "MONDO:0005148\ttype 2 diabetes mellitus\tskos:exactMatch\tICD10CM:E11\tType 2 diabetes mellitus\n"
    "MONDO:0000004\tadrenocortical insufficiency\toboInOwl:hasDbXref\tICD9:255.4\t\n"
)
OBO = (
    "format-version: 1.2\n\n[Term]\nid: MONDO:0005148\nname: type 2 diabetes mellitus\n"
    'synonym: "NIDDM" EXACT ABBREVIATION [DOID:9352]\nalt_id: MONDO:9\n'
    'xref: ICD10CM:E11 {source="DOID:9352", source="MONDO:equivalentTo"}\nis_a: HP:0000118 ! diabetes\n\n'
    "[Term]\nid: MONDO:0000001\nname: obsolete thing\nis_obsolete: true\n\n[Typedef]\nid: part_of\n"
)
DRUGBANK = (
    "DrugBank ID,Accession Numbers,Common name,CAS,UNII,Synonyms,Standard InChI Key\n"
    'DB00331,,Metformin,,,"Dimethylbiguanide | Made, up",\n'
)
HPOA = (
    "#description: made up\n#version: 1\ndatabase_id\tdisease_name\tqualifier\thpo_id\treference\taspect\n"
    "OMIM:619340\tMade-up illness\t\tMONDO:0005148\tPMID:1\tP\nOMIM:619340\tMade-up illness\tNOT\tHP:0002187\t\tP\n"
)
GENES = (
    "ncbi_gene_id\tgene_symbol\thpo_id\thpo_name\tfrequency\tdisease_id\n10\tNAT2\tMONDO:0005148\tx\t-\tOMIM:619340\n"
)
TABULAR = """<?xml version="1.0" encoding="utf-8"?>
<ICD10CM.tabular><version>1</version>
<chapter><name>1</name><desc>Certain illnesses (A00-B99)</desc><section id="A00-A09"><desc>Of the gut (A00-A09)</desc>
<diag><name>A00</name><desc>Cholera</desc><excludes1><note>typhoid fever (A01.0-A01.1)</note></excludes1>
<diag><name>A00.0</name><desc>Made-up cholera</desc><sevenChrDef><extension char="A">initial</extension>
<note>goes on</note></sevenChrDef><inclusionTerm><note>Another name</note></inclusionTerm></diag></diag>
<diag><name>A01</name><desc>Fever</desc></diag></section></chapter></ICD10CM.tabular>
"""
GEM = (
    '"{0}","{1}","flags","approximate","no_map","combination","scenario","choice_list"\n'
    '"{2}","{3}","00000",0,0,0,0,0\n"{2}","{3}","10000",1,0,1,1,2\n"{2}","NoDx","11000",1,1,0,0,0\n'
)
CCS = (
    "Appendix A\n\nRevised\n\n1    Tuberculosis\n     01000 01001 01002\n\n"
    "2    Septicemia (except in labor)\n     0031 0202\n"
)
HCPCS_CSV = "HCPC,RECID,LONG DESCRIPTION,SHORT DESCRIPTION,TERM DT\nJ1100,3,Dexa,D,\nJ1100,4,goes on,,\n"
COMPLEX = (
    "ICD_Code,ICD_Code_Description,DX_PR,CCC_Category,CCC_Subcategory,ICD9_ICD10,Tech_Dep,Transplant\n"
    '135,Sarcoidosis,DX,hemato_immu,Sarcoidosis,9,0,0\n0T180Z8,"Bypass, Open",PR,renal ,Other,0,0,0\n'
)
CHRONIC = (
    "Chronic Condition Indicator,,\n'ICD-9-CM CODE','ICD-9-CM CODE DESCRIPTION','CATEGORY DESCRIPTION'\n"
    "'0420 ',\"HIV W/SPECIF  INFECTIONS (Begin 1986 End 1994)\",'1'\n'7806'\n"
)
CODES = (
    "system,code,description,attributes\nICD10CM,E11.9,Type 2 diabetes,\n"
    'NDC,00021433800,Trulicity,"{""generic"":""Dulaglutide"",""ingredients"":[""DULAGLUTIDE .75 mg/.5mL""]}"\n'
)
OWN = "key;description\nICD10CM/E11.9;My sugar\n250.00;\n"
NDC_MAP = "ndc,rxnorm,atc\n0002-1433-80,1551300,A10BJ05\n00021434801,1551304,\n"
CHECKSUMS = f"{'0' * 64}  hosp/patients.csv.gz\n{'a' * 64} *icu/icustays.csv.gz\n"


@contextlib.contextmanager
def package(folder: Path, *modules: ModuleType) -> Iterator[None]:
    """Let modules find the files of packages in a folder."""

    def found(_: str, pattern: str) -> Path:
        return next(folder.glob(PurePosixPath(pattern).name))

    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.enter_context(mock.patch.object(module, "package_file", found))
        yield


def text_file(name: str, content: str | bytes, read: Callable[[Path], object], weight: float = 1.0) -> ForeignReader:
    """Return a reader of one file."""
    content = content.encode() if isinstance(content, str) else content
    return ForeignReader(
        lambda folder: (folder / name).write_bytes(content), lambda folder: read(folder / name), weight
    )


def official(systems: tuple[str, ...], read: Callable[[Path], object]) -> ForeignReader:
    """Return a reader of the official files of some systems."""
    files = {name: content for name, content in official_files.FILES.items() if name.partition("/")[0] in systems}
    return ForeignReader(lambda folder: official_files.write_files(folder, files), read)


def _entries(read: Callable[..., object]) -> Callable[[Path], object]:
    return lambda folder: list(read(folder, Rejects(None)) or ())


def _listed(read: Callable[..., object]) -> Callable[[Path], object]:
    return lambda path: list(read(path, Rejects(None)))


def _in_package(read, *modules: ModuleType) -> Callable[[Path], object]:
    def reading(folder: Path) -> object:
        with package(folder.parent if folder.is_file() else folder, *modules):
            return read.__wrapped__()

    return reading


def _write_hpo(folder: Path) -> None:
    for name, text in {"hp.obo": OBO, "phenotype.hpoa": HPOA, "genes_to_phenotype.txt": GENES}.items():
        (folder / name).write_text(text)


def _write_tabular(folder: Path) -> None:
    (folder / "code-list-April-2026.txt").write_text("A00-A09\nA00\nA00.0 x\nA000XXA\nA01\n")
    (folder / "icd10c-tabular-April-1-2026.xml").write_text(TABULAR)


def _write_gem(folder: Path) -> None:
    (folder / "icd9toicd10cmgem.csv").write_text(GEM.format("icd9cm", "icd10cm", "0010", "A000"))
    (folder / "icd10cmtoicd9gem.csv").write_text(GEM.format("icd10cm", "icd9cm", "A000", "0010"))


def _read_tabular(folder: Path) -> None:
    tabular.note_edges(_in_package(tabular.read_tabular, tabular)(folder))


def _read_gems(folder: Path) -> None:
    for read in (icd.read_gem, icd.read_backward_gem, icd.read_forward_gem):
        _in_package(read, icd)(folder)


def _write_graph(folder: Path) -> None:
    small_world.world_graph().save(folder / "graph")


def _read_graph(folder: Path) -> None:
    graph = KnowledgeGraph.load(folder / "graph")
    graph.node_keys()
    graph.node_type_ids()
    graph.sources()
    graph.relation.sum(), graph.indices.sum()


def _write_release(folder: Path) -> None:
    pq.write_table(pa.Table.from_pylist(published.release_rows(12)), folder / release.FILE)


def _write_evidence(folder: Path) -> None:
    texts = {
        "a.sssom.tsv": SSSOM,
        "mondo.obo": OBO,
        "hp.obo": OBO,
        "drugbank vocabulary.csv": DRUGBANK,
        "RXNCONSO.RRF": official_files.RXNCONSO,
        "umls_mondo.csv": "umls_id,mondo_id\nC0011860,5148\n",
        "MRCONSO.RRF": official_files.conso("C0011860", "ICD10CM", "PT", "E11", "x"),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)


def _read_evidence(folder: Path) -> None:
    gather([folder], LinkTargets(small_world.world_graph()), Rejects(None), progress=False)


def _write_links(folder: Path) -> None:
    row = ("ICD10CM/E11.9", 1, "name", 0.9, 0, True, "")
    columns = [pa.array([value], field.type) for field, value in zip(links.LINK_SCHEMA, row, strict=True)]
    pq.write_table(pa.Table.from_arrays(columns, schema=links.LINK_SCHEMA), folder / "links.parquet")


def _write_known(folder: Path) -> None:
    values = {"key": "ICD10CM/E11.9", "kind": "code"}
    columns = {field.name: pa.array([values.get(field.name, "")], field.type) for field in known_codes.SCHEMA}
    known_codes.write_known_codes(folder, pa.table(columns).cast(known_codes.SCHEMA))


def _read_known(folder: Path) -> None:
    table = known_codes.read_known_codes(folder)
    known_codes.count_kinds(table)
    known_codes.count_ambiguous(table)


def _write_coverage(folder: Path) -> None:
    (folder / "links").mkdir()
    (folder / inputs.COVERAGE).write_text('{"systems": {"NDC": {"codes": 1}}}')


def _write_zip(folder: Path) -> None:
    import zipfile

    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/one.txt", "one\n" * 50)
        archive.writestr("two.txt", "two")


def _read_zip(folder: Path) -> None:
    import shutil

    archives.member_names(folder / "a.zip")
    try:
        archives.unzip(folder / "a.zip", folder / "unpacked", max_bytes=1 << 20)
    finally:
        shutil.rmtree(folder / "unpacked", ignore_errors=True)


def _write_manifest(folder: Path) -> None:
    found = manifest.Manifest.read(folder)
    found.record("a.txt", source="https://example.org/a.txt", version="1", license="CC0", size=3, sha256="0" * 64)
    found.write()


def _read_icd9(folder: Path) -> None:
    for system in (ICD9CM, ICD9PROC):
        list(icd_files.read_icd9(system, folder, Rejects(None)) or ())


def _read_ndc(folder: Path) -> None:
    list(ndc.read_ndc(folder / "NDC", Rejects(None), folder / "RxNorm"))


def _read_atc_of_rxnorm(folder: Path) -> None:
    list(atc.read_atc(folder / "no", Rejects(None), folder) or ())


def _describe(path: Path) -> None:
    descriptions.describe(path, path.with_name("out.csv"), Rejects(None), progress=False)


def _parent(read: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda path: read(path.parent)


def _read_concepts(path: Path) -> None:
    list(umls.read_concepts(path, ("ATC",), Rejects(None), progress=False))


def _read_code_list(path: Path) -> None:
    icd.parse_code_list(ICD9CM, path)


def _read_chronic(path: Path) -> None:
    list(icd_editions.parse_chronic_indicator(ICD9CM, path))


def _read_primekg(path: Path) -> None:
    primekg.read_primekg(path, Rejects(None), progress=False)


def _read_release(folder: Path) -> None:
    release.read_release(folder / release.FILE, Rejects(None), progress=False)


def _read_diagnoses(path: Path) -> None:
    common_diagnoses._read(path.parent, "D.csv", ("SUBJECT_ID", "ICD9_CODE"))


READERS = {
    "icd9": official(("ICD9CM",), _read_icd9),
    "icd10cm": official((ICD10CM,), lambda folder: list(icd_files.read_icd10(ICD10CM, folder, Rejects(None)))),
    "icd10pcs": official((ICD10PCS,), lambda folder: list(icd_files.read_icd10(ICD10PCS, folder, Rejects(None)))),
    "rxnorm": official(("RxNorm",), _entries(rxnorm.read_rxnorm)),
    "ndc": official(("NDC", "RxNorm"), _read_ndc),
    "snomed": official(("SNOMED",), _entries(snomed.read_snomed)),
    "atc": official(("ATC",), _entries(atc.read_atc)),
    "atc of rxnorm": official(("RxNorm",), _read_atc_of_rxnorm),
    "cpt list": official((CPT4,), _entries(cpt.read_cpt)),
    "cpt table": text_file("cpt.csv", "CPT Code,Long\n99213,Made-up visit\n", _parent(_entries(cpt.read_cpt))),
    "hcpcs": official(("HCPCS",), _entries(hcpcs.read_hcpcs)),
    "hcpcs table": text_file("h.csv", HCPCS_CSV, _parent(_entries(hcpcs.read_hcpcs))),
    "sssom": text_file("a.sssom.tsv", SSSOM, _listed(mondo.read_sssom)),
    "obo": text_file("mondo.obo", OBO, _listed(mondo.read_obo)),
    "drugbank": text_file("d.csv", DRUGBANK, _listed(drugbank.read_vocabulary)),
    "mrconso": text_file("MRCONSO.RRF", official_files.RXNCONSO, _read_concepts),
    "umls_mondo": text_file(
        "u.csv", "umls_id,mondo_id\nC0011860,5148\nC0011860,MONDO:0005148\n", _listed(umls.read_umls_mondo)
    ),
    "evidence": ForeignReader(_write_evidence, _read_evidence),
    "hpo": ForeignReader(_write_hpo, _in_package(hpo.read_hpo, hpo)),
    "tabular": ForeignReader(_write_tabular, _read_tabular),
    "gem": ForeignReader(_write_gem, _read_gems),
    "ccsr": text_file("dx_cat1_mapping.json", '{"A000": "DIG001", "A001": "DIG001"}', _in_package(icd.read_ccsr, icd)),
    "ccs": text_file("CCS-SingleDiagnosisGrouper.txt", CCS, _in_package(icd.read_ccs, icd)),
    "package code list": text_file("l.txt", official_files.ICD9_DX.encode("cp1252"), _read_code_list),
    "complex conditions": text_file("c.csv", COMPLEX, lambda path: list(icd_editions.parse_complex_conditions(path))),
    "chronic indicator": text_file("c.csv", CHRONIC, _read_chronic),
    "primekg": text_file("kg.csv", "\n".join(kg_csv.lines()), _read_primekg),
    "knowledge graph": ForeignReader(_write_graph, _read_graph),
    "release": ForeignReader(_write_release, _read_release),
    "links": ForeignReader(_write_links, lambda folder: links.anchors_of([], folder / "links.parquet")),
    "known codes": ForeignReader(_write_known, _read_known),
    "codes.csv for links": text_file("codes.csv", CODES, _listed(links.read_codes)),
    "codes.csv for descriptions": text_file("codes.csv", CODES, _describe),
    "own descriptions": text_file("own.csv", OWN, _listed(descriptions.read_own)),
    "processed descriptions": text_file(
        "p.csv", "system,code,description\nICD10CM,E11.9,Sugar\n", _listed(inputs._described_codes)
    ),
    "coverage": ForeignReader(_write_coverage, inputs._link_coverage),
    "ndc map": text_file("map.csv", NDC_MAP, ndc_map.NdcMap),
    "common diagnoses": text_file("D.csv", "ROW_ID,SUBJECT_ID,ICD9_CODE\n1,2,4019\n", _read_diagnoses),
    "checksums": text_file("SHA256SUMS.txt", CHECKSUMS, physionet.read_checksums),
    "archive": ForeignReader(_write_zip, _read_zip),
    "manifest": ForeignReader(_write_manifest, manifest.Manifest.read),
}
