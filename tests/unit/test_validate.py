"""The gate's logic against a stand-in of the client; tests/integration has the real server."""

from __future__ import annotations

import inspect
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from repo_builder import validate
from repo_builder.client import Client
from repo_builder.errors import InferenceError, ServerUnavailableError
from repo_builder.proof import Case, Proof, Ranking, Tolerance

W = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


class HonestFakeClient:
    """Stands in for ``repo_builder.client.Client``: runs a function in this process and remembers every request.

    As the server does, it refuses batches above ``max_batch_size`` and inputs whose rows do not agree.
    """

    def __init__(self, answer, max_batch_size=8):
        self.answer, self.size, self.sent, self._lock = answer, max_batch_size, [], threading.Lock()

    def config(self, model):
        assert model == "m"
        return SimpleNamespace(max_batch_size=self.size)

    def infer(self, model, inputs, *, outputs):
        rows = {a.shape[0] if a.ndim else None for a in inputs.values()}
        if self.size and (len(rows) != 1 or max(rows) > self.size):
            raise InferenceError(f"batch-size must be <= {self.size} for '{model}'")
        with self._lock:
            self.sent.append({n: a.copy() for n, a in inputs.items()})
        found = self.answer(inputs)
        return {name: found[name] for name in outputs}


def test_the_stand_in_takes_what_the_real_client_takes():
    for name in ("config", "infer"):
        real = inspect.signature(getattr(Client, name)).parameters
        ours = inspect.signature(getattr(HonestFakeClient, name)).parameters
        assert {n: p.kind for n, p in ours.items()}.items() <= {n: p.kind for n, p in real.items()}.items()


def linear(inputs):
    return {"y": inputs["x"] @ W, "label": (inputs["x"] @ W).argmax(1)}


def proof(rows=(1, 1, 2, 1, 3, 1), source=linear, **fields):
    random = np.random.default_rng(1)
    inputs = [{"x": random.standard_normal((n, 4)).astype(np.float32)} for n in rows]
    return Proof("m", tuple(Case(i, source(i)) for i in inputs), **fields)


def run(answer, stored=None, **options):
    client = HonestFakeClient(answer, **options)
    return validate.validate(client, stored or proof()), client


def test_right_answers_pass():
    report, client = run(linear)
    assert report.passed
    assert report.failures() == []
    assert report.cases == 6
    assert report.requests["alone"] == report.requests["concurrent"] == 6
    assert report.requests["batched"] >= 2
    assert len(client.sent) == 1 + sum(report.requests.values()), "one to warm up"
    assert report.outputs["y"]["max_abs_error"] < 1e-6
    assert report.outputs["label"]["exact"]
    assert set(report.outputs["y"]["by_mode"]) == set(validate.MODES)


def test_batches_mix_cases_and_fill_the_largest_size():
    stored = proof(rows=(1,) * 39)
    _, client = run(linear, stored)
    sizes = [len(sent["x"]) for sent in client.sent if len(sent["x"]) > 1]
    assert sum(sizes) == 39, "every case went into one batch"
    assert max(sizes) == 8
    order = [
        int(np.flatnonzero([(c.inputs["x"] == row).all() for c in stored.cases])[0])
        for sent in client.sent
        if len(sent["x"]) > 1
        for row in sent["x"]
    ]
    assert order != sorted(order), "the cases are shuffled"
    assert sorted(order) == list(range(39))


def test_every_run_sends_the_same_batches():
    first, second = (run(linear, proof(rows=(1,) * 10))[1].sent for _ in range(2))
    shapes = [[s["x"].tobytes() for s in sent if len(s["x"]) > 1] for sent in (first, second)]
    assert shapes[0] == shapes[1]


def test_only_equal_tails_share_a_request():
    cases = [{"x": np.full((1, width), 1.0, np.float32)} for width in (2, 3, 2, 3, 5)]
    stored = Proof("m", tuple(Case(i, {"y": i["x"] * 2}) for i in cases))
    report, client = run(lambda i: {"y": i["x"] * 2}, stored)
    assert report.passed
    assert {sent["x"].shape for sent in client.sent} >= {(2, 2), (2, 3), (1, 5)}


@pytest.mark.parametrize("size", [0, 1])
def test_no_batches_where_the_model_takes_none(size):
    report, _ = run(
        lambda i: {"y": i["x"] * 2},
        Proof("m", (Case({"x": np.ones((1, 3))}, {"y": np.ones((1, 3)) * 2}),) * 3, batched=size > 0),
        max_batch_size=size,
    )
    assert report.passed
    assert "batched" not in report.requests


def test_unbatched_outputs_are_compared_whole():
    stored = Proof("m", (Case({"x": np.ones(3)}, {"y": np.array(3.0)}),) * 2, batched=False)
    assert run(lambda i: {"y": i["x"].sum()}, stored, max_batch_size=0)[0].passed
    report, _ = run(lambda i: {"y": i["x"].sum() + 1}, stored, max_batch_size=0)
    assert not report.passed


def test_wrong_answers():
    report, _ = run(lambda i: linear(i) | {"y": linear(i)["y"] + 0.01})
    assert not report.passed
    assert not report.outputs["y"]["passed"]
    assert report.outputs["label"]["passed"]
    assert report.outputs["y"]["max_abs_error"] == pytest.approx(0.01, rel=1e-3)
    [line] = report.failures()
    assert line.startswith("output y: max abs error 0.01, cosine 0.99")
    assert "(allowed: max_rel_error 0.0001), worst for case " in line


def test_one_wrong_row_of_one_case():
    stored = proof()
    bad = stored.cases[4].inputs["x"][1]

    def answer(inputs):
        found = linear(inputs)
        found["y"][(inputs["x"] == bad).all(1)] += 1.0
        return found

    report, _ = run(answer, stored)
    assert not report.passed
    assert "worst for case 4 (" in report.failures()[0]


def test_wrong_labels_are_counted():
    report, _ = run(lambda i: linear(i) | {"label": np.zeros(len(i["x"]), np.int64) - 1})
    [line] = report.failures()
    assert line.startswith("output label: 100.00% of the elements differ (allowed: equal), worst for case ")


def test_wrong_shape():
    report, _ = run(lambda i: linear(i) | {"y": linear(i)["y"][:, :2]})
    [line] = report.failures()
    assert "output y: shape [1, 2] served, [1, 3] in the source" in line


def test_too_few_rows():
    report, _ = run(lambda i: linear(i) | {"y": linear(i)["y"][:1]})
    assert not report.passed
    assert "shape [" in report.failures()[0]


def test_wrong_dtype():
    report, _ = run(lambda i: linear(i) | {"y": np.zeros((len(i["x"]), 3), np.int32)})
    assert "dtype int32 served, float32 in the source" in report.failures()[0]


def test_nan():
    report, _ = run(lambda i: linear(i) | {"y": np.full((len(i["x"]), 3), np.nan, np.float32)})
    assert "output y: NaN or infinity on one side only" in report.failures()[0]


def test_nan_of_the_source_is_right():
    def nan(inputs):
        return {"y": np.where([True, False, False], np.float32(np.nan), inputs["x"] @ W)}

    assert run(nan, proof(source=nan))[0].passed


def test_permuted_rows_are_caught_by_batches_alone():
    def reverse(inputs):
        return {name: array[::-1] for name, array in linear(inputs).items()}

    report, _ = run(reverse, proof(rows=(1,) * 6))
    assert not report.passed
    by_mode = report.outputs["y"]["by_mode"]
    assert by_mode["alone"]["max_abs_error"] < 1e-6
    assert by_mode["batched"]["max_abs_error"] > 0.1
    assert any("(batched)" in line for line in report.failures())


def test_rows_that_leak_into_each_other_are_caught():
    report, _ = run(lambda i: linear({"x": i["x"] - i["x"].mean(0) + i["x"][:1]}), proof(rows=(1,) * 6))
    assert not report.passed


def test_answers_that_get_mixed_up_between_clients_are_caught():
    """A server that hands one request the answer of another when two run at once."""
    barrier, seen = threading.Barrier(2, timeout=30), threading.local()
    stored = proof(rows=(1, 1), source=lambda i: {"y": i["x"] @ W})
    calls, last, lock = [0], {}, threading.Lock()

    def answer(inputs):
        with lock:
            calls[0] += 1
            turn = calls[0]
        found = inputs["x"] @ W
        if turn <= 1 + 2 + 1:  # one to warm up, two alone, one batch of both
            return {"y": found}
        seen.turn = turn
        last[turn] = found
        barrier.wait()
        return {"y": last[11 - turn]}

    report, _ = run(answer, stored)
    assert calls[0] == 6
    assert not report.passed
    assert all("(concurrent)" in line for line in report.failures())
    assert report.outputs["y"]["by_mode"]["batched"]["max_abs_error"] < 1e-6


def masked_source(inputs):
    return {"tokens": inputs["x"] * 2, "mask": (inputs["x"] > 0).astype(np.int64)}


def masked_proof():
    rows = ([1, 2, 3, 0], [4, 0, 0, 0], [5, 6, 0, 0])
    cases = tuple(Case(i, masked_source(i)) for i in ({"x": np.array([r], np.float32)} for r in rows))
    return Proof("m", cases, masks={"tokens": "mask"})


def test_padding_is_not_compared():
    def answer(inputs):
        found = masked_source(inputs)
        return found | {"tokens": np.where(inputs["x"] > 0, found["tokens"], 99)}

    assert run(answer, masked_proof())[0].passed


def test_padding_may_be_longer_than_the_sources():
    def answer(inputs):
        found = masked_source(inputs)
        return {n: np.pad(a, ((0, 0), (0, 2))) for n, a in found.items()}

    report, _ = run(answer, masked_proof())
    assert report.outputs["tokens"]["passed"]
    assert not report.outputs["mask"]["passed"], "the mask itself is compared as it is"


def test_real_positions_under_a_mask_are_compared():
    report, _ = run(lambda i: masked_source(i) | {"tokens": i["x"] * 2 + 1}, masked_proof())
    assert [line.split(":")[0] for line in report.failures()] == ["output tokens"]


def test_a_mask_that_hides_real_positions_fails():
    def answer(inputs):
        return masked_source(inputs) | {"mask": (inputs["x"] > 4).astype(np.int64)}

    failures = run(answer, masked_proof())[0].failures()
    assert {line.split(":")[0] for line in failures} == {"output tokens", "output mask"}
    assert "shape [" in failures[0]


def test_refused_requests_fail_and_carry_the_servers_words():
    def answer(inputs):
        if len(inputs["x"]) == 3:
            raise InferenceError("the server answered: out of memory")
        return linear(inputs)

    stored = proof(rows=(1, 3, 1))
    report, _ = run(answer, stored)
    assert not report.passed
    assert all(o["passed"] for o in report.outputs.values()), "what was answered was right"
    assert "case 1 (alone): the server answered: out of memory" in report.refused
    assert "case 1 (concurrent): the server answered: out of memory" in report.failures()


def test_nothing_answered():
    def answer(inputs):
        raise InferenceError("no")

    report, _ = run(answer)
    assert not report.passed
    assert report.latency_ms == {}
    assert "output y: no request was answered (allowed: max_rel_error 0.0001), worst for " in report.failures()[0]


def test_a_server_that_is_gone_is_no_failed_proof():
    def answer(inputs):
        raise ServerUnavailableError("gone")

    with pytest.raises(ServerUnavailableError, match="gone"):
        run(answer)


def test_own_tolerances():
    def answer(inputs):
        return linear(inputs) | {"y": linear(inputs)["y"] + 0.01}

    assert run(answer, proof(tolerances={"y": Tolerance(max_abs_error=0.02)}))[0].passed
    assert not run(answer, proof(tolerances={"y": Tolerance(max_abs_error=0.02, cosine=0.9999999)}))[0].passed
    assert not run(answer, proof(tolerances={"other": Tolerance(max_abs_error=0.02)}))[0].passed


def test_texts_in_and_out():
    cases = tuple(
        Case({"t": np.array([[w]], dtype=object)}, {"u": np.array([[w.upper()]], dtype=object)}) for w in (b"a", b"b")
    )

    def upper(inputs):
        return {"u": np.array([[w.upper()] for [w] in inputs["t"]], dtype=object)}

    assert run(upper, Proof("m", cases))[0].passed
    assert not run(lambda i: {"u": i["t"]}, Proof("m", cases))[0].passed


def test_percentiles():
    assert validate._percentiles([]) == {}
    assert validate._percentiles([0.002]) == {"p50": 2.0, "p90": 2.0, "p99": 2.0, "mean": 2.0}
    found = validate._percentiles([i / 1000 for i in range(101)])
    assert found == {"p50": 50.0, "p90": 90.0, "p99": 99.0, "mean": 50.0}


def test_latencies_are_those_of_single_requests():
    report, _ = run(linear)
    assert set(report.latency_ms) == {"p50", "p90", "p99", "mean"}
    assert report.latency_ms["p50"] <= report.latency_ms["p90"] <= report.latency_ms["p99"]


def test_progress_names_every_mode():
    said = []
    validate.validate(HonestFakeClient(linear), proof(), said.append)
    assert [line.rsplit(" ", 1)[1] for line in said] == list(validate.MODES)


@pytest.mark.parametrize("source", [np.full((1, 3), np.nan, np.float32), np.empty((1, 0), np.int64)])
def test_answers_that_tell_nothing_prove_nothing(source):
    """Equal, and yet any model would pass: the proof says so instead of passing."""
    stored = Proof("m", (Case({"x": np.ones((1, 3), np.float32)}, {"y": source}),) * 2)
    report, _ = run(lambda i: {"y": np.concatenate([source] * len(i["x"]))}, stored)
    assert not report.passed
    assert "output y: nothing to compare: the source's answers are empty or NaN in every case" in report.failures()[0]


def test_one_telling_case_is_enough():
    sources = [np.full((1, 3), np.nan, np.float32), np.ones((1, 3), np.float32)]
    stored = Proof("m", tuple(Case({"x": s}, {"y": s}) for s in sources))
    report, _ = run(lambda i: {"y": i["x"]}, stored)
    assert report.passed, report.failures()


def test_an_output_that_cannot_be_asked_for_alone_is_refused():
    class Pruning(HonestFakeClient):
        def infer(self, model, inputs, *, outputs):
            if outputs == ("label",):
                raise InferenceError("in ensemble 'm', unexpected deadlock")
            return super().infer(model, inputs, outputs=outputs)

    report = validate.validate(Pruning(linear), proof())
    assert not report.passed
    assert report.failures() == ["case 0 (separately): in ensemble 'm', unexpected deadlock (asked for label alone)"]
    assert report.requests["separately"] == 2


def test_an_output_that_differs_when_it_is_asked_for_alone_fails():
    class Lying(HonestFakeClient):
        def infer(self, model, inputs, *, outputs):
            found = super().infer(model, inputs, outputs=outputs)
            return {"y": found["y"] + 1} if outputs == ("y",) else found

    report = validate.validate(Lying(linear), proof())
    assert not report.passed
    assert "worst for case 0 (separately)" in report.failures()[0]


RANKED = {"order": np.array([[7, 5, 3, 9]]), "values": np.array([[4.0, 2.0, 2.0 - 1e-7, 1.0]], np.float32)}


def ranked(order, values):
    stored = Proof(
        "m",
        (Case({"x": np.ones((1, 1), np.float32)}, RANKED),),
        tolerances={"values": Tolerance(1e-4)},
        ranked={"order": Ranking("values")},
    )
    served = {"order": np.array([order]), "values": np.array([values], np.float32)}
    return run(lambda _: served, stored)[0]


def test_entries_that_rounding_parts_may_change_places():
    assert ranked([7, 3, 5, 9], [4.0, 2.0 + 1e-6, 2.0, 1.0]).passed


@pytest.mark.parametrize(
    ("order", "values"),
    [
        ([5, 7, 3, 9], [4.0, 2.0, 2.0, 1.0]),
        ([8, 5, 3, 9], [4.0, 2.0, 2.0, 1.0]),
        ([7, 5, 3, 9], [4.0, 2.1, 2.0, 1.0]),
    ],
    ids=["far apart", "another entry", "another value"],
)
def test_other_entries_or_values_fail(order, values):
    assert not ranked(order, values).passed
