"""Write small files in the format of the published ones: `kg.csv` of PrimeKG and `all_codes_mappings.parquet`.

The names and the edges are invented; the columns, types, sources and relations are the official ones.
"""

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ENDS = [f"{end}_{column}" for end in "xy" for column in ("index", "id", "type", "name", "source")]
# x_index is the position.
NODES = (
    ("9796", "gene/protein", "PHYHIP", "NCBI"),
    ("7918", "gene/protein", "GPANK1", "NCBI"),
    ("5148", "disease", "type 2 diabetes mellitus", "MONDO"),
    ("5015", "disease", "diabetes mellitus (disease)", "MONDO"),
    ("13924_12592", "disease", "osteogenesis imperfecta", "MONDO_grouped"),
    ("1945", "effect/phenotype", "Dehydration", "HPO"),
    ("DB00331", "drug", "Metformin", "DrugBank"),
    ("DB00030", "drug", "Insulin human", "DrugBank"),
    ("2107", "anatomy", "liver", "UBERON"),
    ("6006", "biological_process", "glucose metabolic process", "GO"),
    ("5158", "molecular_function", "insulin receptor binding", "GO"),
    ("R-HSA-163685", "pathway", "Integration of energy metabolism", "REACTOME"),
)
EDGES = (
    ("protein_protein", "ppi", 0, 1),
    ("disease_disease", "parent-child", 2, 3),
    ("disease_protein", "associated with", 2, 0),
    ("disease_phenotype_positive", "phenotype present", 2, 5),
    ("indication", "indication", 6, 2),
    ("indication", "indication", 7, 3),
    ("contraindication", "contraindication", 7, 4),
    ("anatomy_protein_present", "expression present", 8, 0),
    ("anatomy_protein_present", "expression present", 8, 1),
    ("bioprocess_protein", "interacts with", 9, 0),
    ("molfunc_protein", "interacts with", 10, 1),
    ("pathway_protein", "interacts with", 11, 1),
    ("drug_drug", "synergistic interaction", 6, 7),
)


def write_kg(path: Path, nodes=NODES, edges=EDGES) -> None:
    """Write `kg.csv` with each edge in both directions."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["relation", "display_relation", *ENDS])
        for relation, shown, a, b in edges:
            for x, y in ((a, b), (b, a)):
                ends = [(end, *nodes[end]) for end in (x, y)]
                cells = [(index, node_id, kind, name, source) for index, node_id, kind, name, source in ends]
                writer.writerow([relation, shown, *cells[0], *cells[1]])


def release_rows(count: int = 60) -> list[dict]:
    """Return rows like those of the release, of every system in turn, with node lists of 0 to 5 indices."""
    shapes = (
        ("ICD10CM", lambda i: f"E{i % 90 + 10}.{i % 10}"),
        ("ICD9", lambda i: f"{i % 900 + 100}.{i % 10}"),
        ("ICD10PCS", lambda i: f"0{i % 10}1607{i % 9}"),
        ("ATC", lambda i: f"A{i % 90 + 10}BA{i % 90 + 10}"),
        ("NDC", lambda i: f"{i:011d}"),
        ("CPT", lambda i: f"{10000 + i}"),
        ("RxNorm", lambda i: f"{1000 + i}"),
        ("LOCAL", lambda i: f"L{i}"),
    )
    rows = []
    for i in range(count):
        system, code = shapes[i % len(shapes)]
        nodes = [(i + 3 * step) % len(NODES) for step in range(i % 6)]
        own = nodes[-1] if nodes and i % 2 else None
        rows.append(
            {
                "med_code": code(i),
                "desc": f"description of {code(i)}",
                "pkg_index_list": nodes,
                "code_system": system,
                "med_code_node_mapping": own,
            }
        )
    return rows


def write_release(folder: Path, rows=None) -> Path:
    """Write `kg.csv` and `all_codes_mappings.parquet` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_kg(folder / "kg.csv")
    pq.write_table(
        pa.Table.from_pylist(release_rows() if rows is None else rows), folder / "all_codes_mappings.parquet"
    )
    return folder
