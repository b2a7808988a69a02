"""The token table against bags of tokens, and what it says of damaged files."""

import collections

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medtok_jax.regions import Regions
from medtok_jax.vocabulary import FILE, TokenTable, embedding_names
from preprocessing.errors import InputError

K = 3
REGIONS = Regions(text=4, graph=4, shared=5)
KEYS = ["ICD10CM/E11.9", "ICD10CM/E11", "ICD10CM/E11.90", "ICD9CM/250.00", "ICD9Proc/25.000", "ICD9CM/V10", "X/10"]
METADATA = {"regions": "4,4,5", "num_tokens": "3"}


def columns(seed: int = 0) -> dict:
    """Random tokens; the two cross embeddings draw from one small region, so that they meet."""
    rng = np.random.default_rng(seed)
    starts, sizes = (0, 4, 8, 8), (4, 4, 5, 5)
    draw = lambda size: rng.choice(size, K, replace=False)  # noqa: E731
    ids = np.array(
        [np.concatenate([start + draw(size) for start, size in zip(starts, sizes, strict=True)]) for _ in KEYS],
        np.int32,
    )
    weights = rng.dirichlet(np.ones(K), (len(KEYS), 4)).reshape(len(KEYS), -1).astype(np.float32)
    return {
        "key": pa.array(KEYS),
        "description": pa.array([f"about {key}" for key in KEYS]),
        "ids": pa.FixedSizeListArray.from_arrays(pa.array(ids.ravel()), 4 * K),
        "weights": pa.FixedSizeListArray.from_arrays(pa.array(weights.ravel()), 4 * K),
    }


def write(folder, table: dict, metadata: dict | None = METADATA):
    pq.write_table(pa.table(table).replace_schema_metadata(metadata), folder / FILE)


@pytest.fixture
def tokens(tmp_path):
    write(tmp_path, columns())
    return TokenTable.read(tmp_path)


def test_read(tokens):
    assert tokens.key.tolist() == KEYS
    assert tokens.description[0] == "about ICD10CM/E11.9"
    assert tokens.ids.shape == tokens.weights.shape == (len(KEYS), 4 * K)
    np.testing.assert_array_equal(tokens.ids[1], columns()["ids"][1].as_py())
    assert (tokens.regions, tokens.num_tokens) == (REGIONS, K)


def bag(ids, weights) -> collections.Counter:
    """Token -> weight, each embedding's weights made to sum to one."""
    found = collections.Counter()
    for start in range(0, 4 * K, K):
        total = sum(weights[start : start + K])
        for token, weight in zip(ids[start : start + K], weights[start : start + K], strict=True):
            found[int(token)] += weight / total
    return found


@pytest.mark.parametrize("kind", ["top_k", "residual"])
def test_overlap_of_bags(tokens, kind):
    ids, weights = tokens.ids.copy(), tokens.weights.copy()
    if kind == "residual":  # All weights 1, and a token may come twice in an embedding.
        weights[:] = 1.0
        ids[:, 1] = ids[:, 0]
        ids[2] = ids[0]
    table = TokenTable(tokens.key, tokens.description, ids, weights, REGIONS, K)
    bags = [bag(*pair) for pair in zip(ids, weights, strict=True)]
    assert any(len(one) < 4 * K for one in bags), "some token comes twice in a code"
    for row, mine in enumerate(bags):
        wanted = [
            sum(min(mine[t], other[t]) for t in range(13)) / sum(max(mine[t], other[t]) for t in range(13))
            for other in bags
        ]
        np.testing.assert_allclose(table.overlap(row), wanted, atol=1e-6)
        assert table.overlap(row)[row] == pytest.approx(1.0)


def test_reading_overlap_changes_nothing(tokens):
    before = tokens.ids.copy(), tokens.weights.copy()
    tokens.overlap(0)
    np.testing.assert_array_equal(tokens.ids, before[0])
    np.testing.assert_array_equal(tokens.weights, before[1])


@pytest.mark.parametrize(
    ("code", "key"),
    [
        ("ICD10CM/E11.9", "ICD10CM/E11.9"),
        ("E11.9", "ICD10CM/E11.9"),
        ("E119", "ICD10CM/E11.9"),
        ("e11.9", "ICD10CM/E11.9"),
        (" icd10cm/e119 ", "ICD10CM/E11.9"),
        ("E11", "ICD10CM/E11"),
        ("E11.90", "ICD10CM/E11.90"),
        ("ICD9Proc/25.000", "ICD9Proc/25.000"),
        ("ICD9CM/25000", "ICD9CM/250.00"),
        ("10", "X/10"),
    ],
)
def test_find(tokens, code, key):
    assert KEYS[tokens.find(code)] == key


@pytest.mark.parametrize("code", ["", "E1", "1", "CM/E11.9", "ICD9CM/E11.9", "ICD10CM", "/"])
def test_find_nothing(tokens, code):
    with pytest.raises(InputError, match=r"is not among the 7 tokenized codes; keys look like ICD10CM/E11\.9\."):
        tokens.find(code)


def test_find_a_code_of_several_systems(tokens):
    with pytest.raises(InputError, match=r"25000 is a code of several systems: ICD9CM/250\.00, ICD9Proc/25\.000"):
        tokens.find("25000")


def test_no_table(tmp_path):
    with pytest.raises(InputError, match=r"There is no token table .*tokens\.parquet; train first"):
        TokenTable.read(tmp_path)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def _scribble(path):
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage", [_cut, _scribble, lambda path: path.write_bytes(b"")], ids=["cut", "scribbled", "empty"]
)
def test_a_damaged_file(tmp_path, damage):
    write(tmp_path, columns())
    damage(tmp_path / FILE)
    with pytest.raises(InputError, match=r"(?s)The token table .* is damaged .*run the training command again\."):
        TokenTable.read(tmp_path)


@pytest.mark.parametrize("lost", ["key", "description", "ids", "weights"])
def test_a_lost_column(tmp_path, lost):
    table = columns()
    del table[lost]
    write(tmp_path, table)
    with pytest.raises(InputError, match="is damaged"):
        TokenTable.read(tmp_path)


@pytest.mark.parametrize(
    "metadata",
    [None, {"num_tokens": "3"}, {"regions": "4,4", "num_tokens": "3"}, {"regions": "4,4,x", "num_tokens": "3"}],
)
def test_wrong_metadata(tmp_path, metadata):
    write(tmp_path, columns(), metadata)
    with pytest.raises(InputError, match="is damaged"):
        TokenTable.read(tmp_path)


def test_names_of_the_embeddings():
    assert embedding_names(2) == [
        *("text_specific", "text_specific", "graph_specific", "graph_specific"),
        *("text_cross", "text_cross", "graph_cross", "graph_cross"),
    ]
