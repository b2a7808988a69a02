from preprocessing.common.rejects import Rejects
from preprocessing.sources.drugbank import Drug, read_vocabulary

TEXT = """\
DrugBank ID,Accession Numbers,Common name,CAS,UNII,Synonyms,Standard InChI Key
DB00331,APRD01099,Metformin,657-24-9,9100L32L2N,"1,1-dimethylbiguanide | Metformin | Metformine",XZWYZXLIPXDOLR
DB00945,APRD00264 | EXPT00475,Acetylsalicylic acid,50-78-2,R16CO5Y76E,Aspirin | Acetosal,BSYNRYMUTXBXSQ
,X,Nothing,,,,
DB09999,,Short row
DB00030,,Insulin human,,,,
"""


def test_vocabulary(tmp_path):
    path = tmp_path / "drugbank vocabulary.csv"
    path.write_text(TEXT)
    rejects = Rejects(None)
    assert read_vocabulary(path, rejects) == [
        Drug(("DB00331", "APRD01099"), ("Metformin", "1,1-dimethylbiguanide", "Metformine")),
        Drug(("DB00945", "APRD00264", "EXPT00475"), ("Acetylsalicylic acid", "Aspirin", "Acetosal")),
        Drug(("DB00030",), ("Insulin human",)),
    ]
    assert {(kind, n) for _, kind, _, n in rejects.summary()} == {("no DrugBank ID", 1), ("wrong column count", 1)}
