"""Files as people have them: encodings, line ends, compression, JSON's edges, and the values of Parquet."""

from __future__ import annotations

import bz2
import datetime
import gzip
import json
import lzma
from decimal import Decimal

import pyarrow
import pyarrow.parquet
import pytest

from trimtab.data import load_prompts, read_rows
from trimtab.errors import DataError

LINE = '{"prompt": "hi\u2028é", "n": 4}\n'
ITEM = {"prompt": "hi\u2028é", "n": 4}
LIST = f"[{LINE},{LINE}]"


def zstd(content):
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.jsonl", b"\xef\xbb\xbf" + (LINE * 2).encode()),
        ("bom.json", b"\xef\xbb\xbf" + LIST.encode()),
        ("crlf.jsonl", (LINE * 2).replace("\n", "\r\n").encode()),
        ("cr.jsonl", (LINE * 2).replace("\n", "\r").encode()),
        ("blank.jsonl", f"\n \n{LINE}\n\n{LINE}\n".encode()),
        ("utf16.jsonl", (LINE * 2).encode("utf-16")),
        ("utf16be.json", b"\xfe\xff" + LIST.encode("utf-16-be")),
        ("utf32.jsonl", (LINE * 2).encode("utf-32")),
        ("lines.json", (LINE * 2).encode()),
        ("list.jsonl", LIST.encode()),
        ("rows.ndjson", (LINE * 2).encode()),
        ("rows.jsonl.gz", gzip.compress((LINE * 2).encode(), mtime=0)),
        ("rows.json.bz2", bz2.compress(LIST.encode())),
        ("rows.jsonl.xz", lzma.compress((LINE * 2).encode())),
        ("rows.jsonl.zst", zstd((LINE * 2).encode())),
    ],
)
def test_the_same_two_rows_in_every_file(tmp_path, name, content):
    """R33: byte-order marks, line ends, blank lines, UTF-16 and 32, a list or lines, compressed."""
    (tmp_path / name).write_bytes(content)
    assert [row.values for row in read_rows(tmp_path / name)] == [ITEM, ITEM]
    assert len(read_rows(tmp_path)) == 2


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_text(tmp_path, delimiter):
    """R33: CSV with a header, quoted cells, line ends in cells; an empty cell is null."""
    path = tmp_path / "rows.csv"
    path.write_text('prompt,answer\n"hi\nyou",4\n"a ""b""",\n'.replace(",", delimiter), encoding="utf-8")
    assert [row.values for row in read_rows(path)] == [
        {"prompt": "hi\nyou", "answer": "4"},
        {"prompt": 'a "b"', "answer": None},
    ]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", LINE + '{"prompt": "a",}\n', r"a\.jsonl:2: .*remove the comma"),
        ("a.jsonl", LINE.replace("}\n", "},\n"), r"a\.jsonl:1: .*remove the comma"),
        ("a.json", f"[{LINE},\n]", r"line \d.*remove the comma"),
        ("a.jsonl", LINE + '{"prompt": "a", "prompt": "b"}', r"a\.jsonl:2: the key 'prompt' stands twice"),
        ("a.jsonl", f'{LINE}{{"n": {"1" * 5000}}}', r"a\.jsonl:2: not readable"),
        ("a.jsonl", LINE.encode() + b'{"prompt": "\xff"}', r"a\.jsonl:2 is not UTF-8 text"),
        ("a.jsonl", LINE.encode("utf-16-le"), "looks like UTF-16"),
        ("a.json", json.dumps({"rows": [ITEM]}), r"its rows may be in 'rows'"),
        ("a.jsonl.gz", gzip.compress(LINE.encode() * 99, mtime=0)[:-9], "cannot be unpacked"),
        ("a.jsonl.gz", LINE, "cannot be unpacked"),
        ("a.jsonl.zst", LINE, "cannot be read"),
        ("a.csv", "prompt,answer\na,b,c\n", r"a\.csv:2: 3 cells, but the header has 2"),
        ("a.csv", "prompt,prompt\na,b\n", "names a column twice"),
        ("a.txt", "hi", "the ending '.txt', which is not read"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, name, content, words):
    """R33: with the line, and the fix."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=words) as caught:
        read_rows(path)
    assert "\n" not in str(caught.value)


def test_numbers_that_json_does_not_know(tmp_path):
    """R33: NaN as other tools write it is read; as a prompt it is a missing one."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a", "x": NaN, "n": 123456789012345678901234567890}', encoding="utf-8")
    values = read_rows(path)[0].values
    assert values["x"] != values["x"] and values["n"] == 123456789012345678901234567890
    path.write_text('{"prompt": NaN}', encoding="utf-8")
    with pytest.raises(DataError, match="'prompt' is missing"):
        load_prompts(path)


def column(tmp_path, values, kind=None):
    path = tmp_path / "rows.parquet"
    array = pyarrow.array(values, kind)
    table = pyarrow.table({"prompt": ["a"] * len(values), "x": array})
    pyarrow.parquet.write_table(table, path)
    return [prompt.columns["x"] for prompt in load_prompts(path)]


NANOS = 1_700_000_000_123_456_789  # 2023-11-14 22:13:20.123456789 UTC


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([NANOS // 10**6, None], pyarrow.timestamp("ms"), ["2023-11-14T22:13:20.123000", None]),
        ([NANOS // 10**3], pyarrow.timestamp("us"), ["2023-11-14T22:13:20.123456"]),
        ([NANOS], pyarrow.timestamp("ns"), ["2023-11-14T22:13:20.123456789"]),
        ([NANOS], pyarrow.timestamp("ns", "Europe/Paris"), ["2023-11-14T22:13:20.123456789+00:00"]),
        ([0], pyarrow.timestamp("us", "Nowhere/Land"), ["1970-01-01T00:00:00+00:00"]),
        ([-1], pyarrow.timestamp("ns"), ["1969-12-31T23:59:59.999999999"]),
        ([2**52], pyarrow.timestamp("ms"), ["4503599627370496 ms since 1970"]),
        ([datetime.date(2024, 1, 2)], None, ["2024-01-02"]),
        ([3_600_000_000_001], pyarrow.time64("ns"), ["01:00:00.000000001"]),
        ([1500], pyarrow.duration("ms"), ["1.5"]),
        ([Decimal("4.50")], None, ["4.50"]),
        ([b"hi", b"\xff"], None, ["hi", b"\xff"]),
        ([[("k", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int32()), [{"k": 1}]),
        ([{"a": 1, "b": None}, {"a": None, "b": [2, None]}], None, [{"a": 1}, {"b": [2, None]}]),
        ([{"t": datetime.datetime(2024, 1, 1), "b": None}], None, [{"t": "2024-01-01T00:00:00"}]),
        ([[datetime.datetime(2024, 1, 1)], None], None, [["2024-01-01T00:00:00"], None]),
        ([2**63], pyarrow.uint64(), [2**63]),
    ],
)
def test_values_of_parquet_are_plain(tmp_path, values, kind, expected):
    """R33: times of any unit, decimals, bytes, maps; null keys of a struct are those of other rows."""
    assert column(tmp_path, values, kind) == expected


def test_enumerations_are_their_words(tmp_path):
    """R33: a column of a few words that Parquet stores as numbers."""
    path = tmp_path / "rows.parquet"
    table = pyarrow.table({"prompt": ["a", "b"], "x": pyarrow.array(["up", "down"]).dictionary_encode()})
    pyarrow.parquet.write_table(table, path)
    assert [prompt.columns["x"] for prompt in load_prompts(path)] == ["up", "down"]


def test_messages_of_parquet_have_only_their_own_keys(tmp_path):
    """R33: `content: null` and `tool_calls: null` that a column of structs adds are not the row's."""
    call = {"type": "function", "function": {"name": "get", "arguments": {"a": "1"}}}
    rows = [
        {"prompt": [{"role": "user", "content": "q"}]},
        {
            "prompt": [
                {"role": "user", "content": "w"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": "4", "tool_call_id": "x"},
            ]
        },
    ]
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    first, second = load_prompts(path)
    assert first.messages == ({"role": "user", "content": "q"},)
    assert second.messages[1] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert second.messages[2] == {"role": "tool", "content": "4", "tool_call_id": "x"}


def test_the_nearest_file_is_near_by_its_name(tmp_path):
    """In a directory with a long path only names count, of files that can be data."""
    for name in ("notes.txt", ".npm", "unrelated.jsonl"):
        (tmp_path / name).write_text("{}\n")
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / "x.jsonl")
    assert "did you mean" not in str(caught.value)
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"did you mean '.*/pairs\.jsonl'"):
        read_rows(tmp_path / "pears.jsonl")
