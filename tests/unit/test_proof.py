from __future__ import annotations

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from repo_builder import proof
from repo_builder.errors import RepositoryError
from repo_builder.proof import DEFAULT_TOLERANCE, Case, Proof, Ranking, Tolerance


def text_array(values, shape):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


CASES = (
    Case(
        {
            "x/y": np.arange(6, dtype=np.float32).reshape(2, 3),
            "TEXT": text_array([b"", b"\xff\x00", "é".encode(), b"a"], (2, 2)),
        },
        {
            "scalar": np.array(3, dtype=np.int64),
            "empty": np.zeros((0, 4), np.float16),
            "flags": np.array([[True], [False]]),
        },
    ),
    Case(
        {"x/y": np.asfortranarray(np.ones((2, 3), np.float32)), "TEXT": text_array([b"b"], (1, 1))},
        {"scalar": np.array(4)},
    ),
)
WHOLE = Proof("m", CASES, False, {"b": Tolerance(1e-3, None, 0.9), "a": Tolerance()}, {"a": "mask"}, "torch 2.13.0")


def same(a, b):
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and a[n].shape == b[n].shape and np.array_equal(a[n], b[n]) for n in a
    )


def test_there_and_back(tmp_path):
    proof.save(WHOLE, tmp_path / "p.npz")
    found = proof.load(tmp_path / "p.npz")
    assert (found.model, found.batched, found.reference) == ("m", False, "torch 2.13.0")
    assert found.tolerances == WHOLE.tolerances
    assert found.masks == WHOLE.masks
    assert len(found.cases) == 2
    for a, b in zip(found.cases, CASES, strict=True):
        assert same(a.inputs, b.inputs)
        assert same(a.outputs, b.outputs)


def test_text_comes_back_as_utf8_bytes(tmp_path):
    arrays = {"T": np.array(["é", "日本"]), "B": np.array([b"a", b"bc"])}
    proof.save(Proof("m", (Case(arrays, {}),)), tmp_path / "p.npz")
    found = proof.load(tmp_path / "p.npz").cases[0].inputs
    assert found["T"].tolist() == ["é".encode(), "日本".encode()]
    assert found["B"].tolist() == [b"a", b"bc"]


def test_tensor_names_that_end_like_the_parts_of_a_string(tmp_path):
    arrays = {"a/lengths": np.arange(3), "b/bytes": np.arange(2), "b": text_array([b"x"], (1,)), "-bytes/b": np.ones(1)}
    proof.save(Proof("m", (Case({}, arrays),)), tmp_path / "p.npz")
    assert same(proof.load(tmp_path / "p.npz").cases[0].outputs, arrays)


def test_more_than_ten_cases_keep_their_order(tmp_path):
    proof.save(Proof("m", tuple(Case({"x": np.array([i])}, {}) for i in range(12))), tmp_path / "p.npz")
    assert [int(c.inputs["x"][0]) for c in proof.load(tmp_path / "p.npz").cases] == list(range(12))


def test_what_is_ranked_comes_back(tmp_path):
    proof.save(Proof("m", (Case({}, {}),), ranked={"order": Ranking("values", whole=True)}), tmp_path / "p.npz")
    assert proof.load(tmp_path / "p.npz").ranked == {"order": Ranking("values", whole=True)}


def test_same_proof_same_bytes(tmp_path):
    proof.save(WHOLE, tmp_path / "a.npz")
    proof.save(WHOLE, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_numpy_reads_it_too(tmp_path):
    proof.save(WHOLE, tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz", allow_pickle=False) as archive:
        assert archive["1/outputs/scalar"] == 4


def test_default_tolerance():
    assert WHOLE.tolerance("b") == Tolerance(1e-3, None, 0.9)
    assert WHOLE.tolerance("other") == DEFAULT_TOLERANCE == Tolerance(max_rel_error=1e-4)


def refused(path):
    with pytest.raises(RepositoryError) as caught:
        proof.load(path)
    assert caught.value.found.startswith(f"{path} holds no proof (")
    assert caught.value.expected == "a proof that build wrote"
    return caught.value.found


def test_missing(tmp_path):
    assert "No such file" in refused(tmp_path / "nope.npz")


def test_not_a_zip(tmp_path):
    (tmp_path / "p.npz").write_bytes(b"<html>")
    assert "not a zip file" in refused(tmp_path / "p.npz")


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated(tmp_path, share):
    proof.save(WHOLE, tmp_path / "p.npz")
    whole = (tmp_path / "p.npz").read_bytes()
    (tmp_path / "p.npz").write_bytes(whole[: int(len(whole) * share)])
    refused(tmp_path / "p.npz")


def test_changed_byte(tmp_path):
    proof.save(WHOLE, tmp_path / "p.npz")
    whole = bytearray((tmp_path / "p.npz").read_bytes())
    whole[whole.index(b"0/inputs/x/y.npy") + 40] ^= 0xFF
    (tmp_path / "p.npz").write_bytes(whole)
    refused(tmp_path / "p.npz")


def test_an_archive_of_arrays_that_is_no_proof(tmp_path):
    np.savez(tmp_path / "p.npz", x=np.ones(2))
    assert "proof.json" in refused(tmp_path / "p.npz")


@pytest.mark.parametrize("head", ["[]", "null", "{}", '{"cases": "many"}', '{"cases": -1}', "not json"])
def test_a_head_of_another_shape(tmp_path, head):
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as archive:
        archive.writestr("proof.json", head)
    refused(tmp_path / "p.npz")


@pytest.mark.parametrize(
    "name", ["9/inputs/x.npy", "x.npy", "-1/inputs/x.npy", "0/inputs-lengths/x.npy", "0/other/x.npy"]
)
def test_arrays_that_belong_to_no_case(tmp_path, name):
    proof.save(WHOLE, tmp_path / "p.npz")
    buffer = io.BytesIO()
    np.save(buffer, np.ones(2, np.int64))
    with zipfile.ZipFile(tmp_path / "p.npz", "a") as archive:
        archive.writestr(name, buffer.getvalue())
    refused(tmp_path / "p.npz")


class Poison:
    def __reduce__(self):
        return os.mkdir, ("poisoned",)


def test_pickles_do_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, text_array([Poison()], (1,)), allow_pickle=True)
    assert b"poisoned" in buffer.getvalue()
    proof.save(WHOLE, tmp_path / "p.npz")
    with zipfile.ZipFile(tmp_path / "p.npz", "a") as archive:
        archive.writestr("0/inputs/z.npy", buffer.getvalue())
    assert "allow_pickle" in refused(tmp_path / "p.npz")
    assert not (tmp_path / "poisoned").exists()
    pickle.loads(pickle.dumps(Poison()))
    assert (tmp_path / "poisoned").exists(), "the payload works where pickles run"
