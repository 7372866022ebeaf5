from __future__ import annotations

import math

import pytest

from repo_builder import yaml_strict
from repo_builder.errors import SourceMissingError, SpecError
from repo_builder.yaml_strict import Number


def read(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return yaml_strict.read(path)


def value(tmp_path, text):
    return read(tmp_path, f"v: {text}\n").data["v"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("n", "n"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("12", 12),
        ("-3", -3),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-10-01", "2024-10-01"),
        ("1e-5", 1e-5),
        ("1.5E3", 1500.0),
        (".5", 0.5),
        ("+1.", 1.0),
        ("-.inf", -math.inf),
        ("'12'", "12"),
        ("<<", "<<"),
        ("=", "="),
    ],
)
def test_scalars_of_yaml_1_2(tmp_path, text, expected):
    found = value(tmp_path, text)
    assert found == expected
    assert isinstance(found, type(expected))


def test_nan(tmp_path):
    assert math.isnan(value(tmp_path, ".nan"))


def test_a_float_remembers_how_it_was_written(tmp_path):
    found = value(tmp_path, "24.10")
    assert isinstance(found, Number)
    assert (found, found.text) == (24.1, "24.10")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "s.yaml:3:1: the key 'a' stands here twice"),
        ("m:\n  - {x: 1, x: 2}\n", "s.yaml:2:12: the key 'x' stands here twice"),
        ("1: a\n", "s.yaml:1:1: the key 1 is not a string"),
        ("true: a\n", "s.yaml:1:1: the key True is not a string"),
        ("? [a]\n: b\n", "s.yaml:1:3: the key ['a'] is not a string"),
        ("a: &x [1]\nb: *x\n", "s.yaml:2:4: aliases (*name) are not taken here"),
        ("a: {<<: *x}\n", "s.yaml:1:9: aliases (*name) are not taken here"),
        ("a: [1\nb: 2\n", "s.yaml:2:2: expected ',' or ']', but got ':'"),
        ("a: 1\n\tb: 2\n", "s.yaml:2:1: found character '\\t' that cannot start any token"),
        ("a: 1\n---\nb: 2\n", "s.yaml:2:1: but found another document"),
        (
            "a: !!python/object/apply:os.mkdir [x]\n",
            "s.yaml:1:4: tags (tag:yaml.org,2002:python/object/apply:os.mkdir) are not taken here",
        ),
        ("a: !!int nonsense\n", "s.yaml:1:4: tags (tag:yaml.org,2002:int) are not taken here"),
        ("!mine {a: 1}\n", "s.yaml:1:1: tags (!mine) are not taken here"),
        (f"a: {'9' * 5000}\n", "s.yaml:1:4: 99999999999999999999... has too many digits"),
        ("a: \x01\n", "unacceptable character"),
    ],
)
def test_refusals_name_line_and_column(tmp_path, text, message):
    with pytest.raises(SpecError) as caught:
        read(tmp_path, text)
    assert message in caught.value.found
    assert caught.value.stage == "spec"
    assert caught.value.mend


def test_a_merge_key_is_a_key_like_any_other(tmp_path):
    assert read(tmp_path, "a: {<<: {b: 1}}\n").data == {"a": {"<<": {"b": 1}}}


def test_aliases_cannot_grow_without_bound(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(SpecError, match="aliases"):
        read(tmp_path, "\n".join(lines))


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~\n"])
def test_empty(tmp_path, text):
    with pytest.raises(SpecError) as caught:
        read(tmp_path, text)
    assert caught.value.found == f"{tmp_path / 's.yaml'} is empty"
    assert caught.value.expected == "a spec with `models:`"


def test_not_utf8(tmp_path):
    with pytest.raises(SpecError, match=r"is not UTF-8 text \(.*0xff in position 3"):
        read(tmp_path, b"a: \xff\n")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    assert read(tmp_path, b"\xef\xbb\xbfa: 1\n").data == {"a": 1}


def test_too_large(tmp_path):
    with pytest.raises(SpecError, match="has 1,048,579 bytes") as caught:
        read(tmp_path, b"a: " + b"x" * (1 << 20))
    assert caught.value.expected == "a YAML spec of at most 1 MiB"


def test_nested_too_deeply(tmp_path):
    with pytest.raises(SpecError, match="is nested too deeply"):
        read(tmp_path, "[" * 5000)


def test_missing(tmp_path):
    for path in (tmp_path / "nope.yaml", tmp_path):
        with pytest.raises(SourceMissingError, match="there is no file"):
            yaml_strict.read(path)


def test_lines_of_keys(tmp_path):
    document = read(tmp_path, "a:\n  - b: 1\n  - c:\n      d: [x,\n        y]\ntop: 1\n")
    assert [
        document.line(location)
        for location in ((), ("top",), ("a",), ("a", 0), ("a", 1, "c"), ("a", 1, "c", "d"), ("a", 1, "c", "d", 1))
    ] == [None, 6, 1, 2, 3, 4, 5]
    assert document.line(("a", 1, "nope", "deeper")) == 3
    assert document.line(("a", 7)) == 1
    assert document.line(("nope",)) is None
