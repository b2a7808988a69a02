"""Large CSV files in blocks: compressed ones, headers in capitals, and columns that may be absent."""

import gzip

import pytest

from preprocessing.common.errors import InputError
from preprocessing.common.large_csv import read_blocks
from preprocessing.common.rejects import Rejects

LINES = ["ID,Name,Extra", *(f'{i},"a, ""{i}""",x{i % 7}' for i in range(1000)), "bad,line"]


@pytest.fixture(params=["plain", "gzipped"])
def path(request, tmp_path):
    content = "\r\n".join(LINES).encode()
    path = tmp_path / ("t.csv" if request.param == "plain" else "t.csv.gz")
    path.write_bytes(content if request.param == "plain" else gzip.compress(content))
    return path


@pytest.mark.parametrize("block_bytes", [100, 5000, 1 << 20])
def test_compressed_files_read_alike(path, block_bytes):
    rejects = Rejects(None)
    options = {"optional": ["extra", "further"], "fold_case": True}
    blocks = list(read_blocks(path, ["name"], rejects, block_bytes, **options))
    assert {tuple(block.columns) for block in blocks} == {("name", "extra")}
    names = [name for block in blocks for name in block.columns["name"].to_pylist()]
    assert names == [f'a, "{i}"' for i in range(1000)]
    assert [int(line) for block in blocks for line in block.lines] == list(range(2, 1002))
    assert sum(block.size for block in blocks) == path.stat().st_size
    assert rejects.counts == {(path.name, "wrong column count"): 1}
    assert sum(block.rows for block in blocks) == len(LINES) - 1


@pytest.mark.parametrize("block_bytes", [10, 1 << 20])
def test_all_rows_are_counted_but_blank_lines(tmp_path, block_bytes):
    (tmp_path / "t.csv").write_bytes(b'a,b\n1,2\n\n3,"\nx\0,4\n\r\n5\n6,7')
    blocks = list(read_blocks(tmp_path / "t.csv", ["a"], Rejects(None), block_bytes))
    assert [value for block in blocks for value in block.columns["a"].to_pylist()] == ["1", "6"]
    assert sum(block.rows for block in blocks) == 5


def test_case_matters_unless_it_is_folded(path):
    with pytest.raises(InputError, match=r"has no column 'name' in its header, .*none of its 3 cells"):
        next(read_blocks(path, ["name"], Rejects(None)))


def test_a_damaged_archive_is_told(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress("\n".join(LINES).encode())[:-200])
    with pytest.raises(InputError, match="is damaged or not complete"):
        list(read_blocks(path, ["Name"], Rejects(None), 100))
    path.write_bytes(b"ID,Name\n1,2\n")
    with pytest.raises(InputError, match="is damaged or not complete"):
        list(read_blocks(path, ["Name"], Rejects(None)))


def test_a_file_that_is_no_table_is_told(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"ID,\rName\n1,2\n")
    with pytest.raises(InputError, match="has no header that can be read"):
        list(read_blocks(path, ["Name"], Rejects(None)))


def test_a_stray_carriage_return_costs_its_own_line(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"a,b\r\n1,2\r\n3,\r4\r\n5,\r6,7\r\n8,9\n10,\r")
    rejects = Rejects(None)
    blocks = list(read_blocks(tmp_path / "t.csv", ["a", "b"], rejects))
    assert [value for block in blocks for value in block.columns["a"].to_pylist()] == ["1", "8", "10"]
    assert [int(line) for block in blocks for line in block.lines] == [2, 5, 6]
    assert rejects.counts == {("t.csv", "stray carriage return"): 2}
