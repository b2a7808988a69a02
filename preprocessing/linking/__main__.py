"""Link codes to nodes of a knowledge graph, which are the anchors of their subgraphs.

If the nodes of a graph are the codes themselves, `links.link_by_key` finds them. For PrimeKG,

    python -m preprocessing.linking --input=DIR/processed_codes/codes.csv --graph=DIR/graph \\
        --crossreferences=DIR/crossreferences --output=DIR/links

writes `links.parquet` (`links.LINK_SCHEMA`), `coverage.json` and `rejects.csv`. Cross-reference files are found by
name, anywhere below the folder: MONDO (`*.sssom.tsv`, `mondo*.obo`), HPO (`hp*.obo`), the DrugBank vocabulary, and, if
the user has them, MRCONSO.RRF, `umls_mondo.csv` and RXNCONSO.RRF of the full RxNorm. `evidence.METHODS` lists the
methods by which a code gets its own links; `rules.inherit` describes the links that codes inherit from relatives.
"""

from pathlib import Path

from absl import flags

from preprocessing.common import command_line
from preprocessing.common.atomic import check_replaceable
from preprocessing.common.errors import InputError
from preprocessing.linking.links import LINKS, MOST_ANCHORS, coverage_table, write_links


def main(argv: list[str]) -> None:
    """Link the codes that the flags name."""
    command_line.expect_arguments(argv, 0, "python -m preprocessing.linking --input=codes.csv --graph=DIR/graph ...")
    given = flags.FLAGS
    folders = [Path(folder) for folder in (given.crossreferences, given.umls, given.rxnorm) if folder is not None]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; check the path.")
    output = Path(given.output)
    check_replaceable(output, LINKS)
    console = command_line.table_console()
    report, rejects = write_links(Path(given.input), Path(given.graph), folders, output, most=given.anchors)
    console.print(coverage_table(report["systems"]))
    for name, count in report["references"].items():
        print(f"{name}: {count:,}")
    if rejects.summary():
        console.print(rejects.table())
    print(f"{output / LINKS}: {report['links']:,} links; read {', '.join(report['files']) or 'no cross-references'}")
    rejects.path = output / "rejects.csv"
    rejects.finish(given.strict)


if __name__ == "__main__":
    flags.DEFINE_string("input", None, "codes.csv of preprocessing.process_codes", required=True)
    flags.DEFINE_string("graph", None, "graph of preprocessing.primekg", required=True)
    flags.DEFINE_string("crossreferences", None, "folder of MONDO, HPO and DrugBank files", required=True)
    flags.DEFINE_string("output", None, "folder of links.parquet, which is replaced", required=True)
    flags.DEFINE_string("umls", None, "folder of MRCONSO.RRF and umls_mondo.csv, if not that of --crossreferences")
    flags.DEFINE_string("rxnorm", None, "folder of RXNCONSO.RRF, whose full release names DrugBank ids and ATC codes")
    flags.DEFINE_integer("anchors", MOST_ANCHORS, "maximum number of nodes per code", lower_bound=1, upper_bound=64)
    flags.DEFINE_bool("strict", False, "exit with status 1 when a row was rejected")
    command_line.run(main)
