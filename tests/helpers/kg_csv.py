"""Make a small `kg.csv` of invented edges in the layout of PrimeKG."""

HEADER = "relation,display_relation,x_index,x_id,x_type,x_name,x_source,y_index,y_id,y_type,y_name,y_source"
NODES = (
    ("9796", "gene/protein", "PHYHIP", "NCBI"),
    ("7918", "gene/protein", "GPANK1", "NCBI"),
    ("DB00331", "drug", "Metformin", "DrugBank"),
    ("5148", "disease", '"diabetes mellitus, type 2 (disease)"', "MONDO"),
    ("10079_16781_16207", "disease", "osteochondrosis (disease)", "MONDO_grouped"),
    ("1250", "effect/phenotype", "Seizure", "HPO"),
    ("7", "anatomy", '"""bright"" zone"', "UBERON"),
    ("DB01016", "drug", "Glyburide", "DrugBank"),
    ("5015", "disease", "diabetes mellitus (disease)", "MONDO"),
)
EDGES = (
    ("protein_protein", "ppi", 0, 1),
    ("drug_protein", "target", 2, 0),
    ("drug_protein", "enzyme", 2, 1),
    ("indication", "indication", 2, 3),
    ("indication", "indication", 7, 3),
    ("disease_disease", "parent-child", 3, 8),
    ("disease_disease", "parent-child", 8, 4),
    ("disease_phenotype_positive", "phenotype present", 4, 5),
    ("anatomy_protein_present", "expression present", 6, 0),
    ("contraindication", "contraindication", 2, 3),
)


def row(relation, display, x, y, nodes=NODES, index=str):
    ends = (f"{index(end)},{nodes[end][0]},{nodes[end][1]},{nodes[end][2]},{nodes[end][3]}" for end in (x, y))
    return ",".join((relation, display, *ends))


def lines(edges=EDGES, index=str):
    """Return the header and both rows of every edge, the forward ones first."""
    forward = [row(*edge, index=index) for edge in edges]
    return [HEADER, *forward, *(row(r, d, y, x, index=index) for r, d, x, y in edges)]


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else ("\n".join(text) + "\n").encode())
    return path
