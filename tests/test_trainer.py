"""Trainer: the steps it takes, what it records, whom it tells, and how it stops."""

from __future__ import annotations

import csv
import os
import signal
import threading

import numpy as np
import pytest

import softmax_ext
from softmax_ext import SoftmaxModel, Trainer, plots, reference
from softmax_ext.arguments import Csr
from softmax_ext.training import (
    History,
    HistoryRow,
    StopTraining,
    TrainingEvent,
    TrainingInterrupted,
)

N, D, C = 203, 6, 4


@pytest.fixture(autouse=True)
def ctrl_c():
    """Ctrl-C as a terminal has it; a process in the background may have it switched off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def make_data(dtype=np.float32, n=N):
    """Four blobs that a linear model can nearly tell apart."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, C, n)
    centres = rng.normal(size=(C, D)) * 2
    X = centres[y] + rng.normal(size=(n, D))
    if dtype == np.uint8:
        X = np.clip(X * 20 + 128, 0, 255)
    return X.astype(dtype), y


def fit(trainer_options=None, model=None, data=None, **fit_options):
    """Train a fresh model with the reference; return it and the history."""
    X, y = make_data() if data is None else data
    model = SoftmaxModel.zeros(D, C) if model is None else model
    options = {"epochs": 3, "batch_size": 50, "kernels": reference, **(trainer_options or {})}
    history = Trainer(**options).fit(model, X, y, **fit_options)
    return model, history


class Recorder:
    """The reference kernels; remembers the arguments of each gradient call."""

    def __init__(self):
        self.calls = []
        self.results = []

    def __getattr__(self, name):
        return getattr(reference, name)

    def linear_cross_entropy_with_grad(self, X, W, b, target, **options):
        result = reference.linear_cross_entropy_with_grad(X, W, b, target, **options)
        self.calls.append({"X": X, "target": target, **options})
        self.results.append(result)
        return result

    @property
    def rows(self):
        return [call["rows"].tolist() for call in self.calls]


def assert_same_weights(a, b):
    assert a.W.tobytes() == b.W.tobytes()
    assert (a.b is None and b.b is None) or a.b.tobytes() == b.b.tobytes()


def assert_same_rows(a, b):
    """Equal to the bit, but for the time it took."""
    assert np.array_equal([row[:5] for row in a], [row[:5] for row in b], equal_nan=True)


# The steps --------------------------------------------------------------------------------------


def plain_loop(
    W, b, X, y, *, epochs, batch_size, learning_rate, momentum, weight_decay, seed, x_scale,
    sample_weight=None,
):  # fmt: skip
    """Do what the trainer promises, written as one would without it; return loss and accuracy."""
    W, b = W.copy(), None if b is None else b.copy()
    vW, vb = np.zeros_like(W), None if b is None else np.zeros_like(b)
    rng = np.random.default_rng(seed)
    history = []
    for epoch in range(1, epochs + 1):
        order = rng.permutation(len(X))
        rate = learning_rate(epoch) if callable(learning_rate) else learning_rate
        loss_sum, weight_sum, n_correct = 0.0, 0.0, 0
        for start in range(0, len(X), batch_size):
            rows = order[start : start + batch_size]
            loss, dW, db, _, total_weight, correct = reference.linear_cross_entropy_with_grad(
                X[rows], W, b, y[rows], x_scale=x_scale,
                sample_weight=None if sample_weight is None else sample_weight[rows],
            )  # fmt: skip
            loss_sum, weight_sum = loss_sum + loss * total_weight, weight_sum + total_weight
            n_correct += correct
            vW = momentum * vW + (dW + weight_decay * W)
            W = W - rate * vW
            if b is not None:
                vb = momentum * vb + (db + weight_decay * b)
                b = b - rate * vb
        history.append((loss_sum / weight_sum, n_correct / len(X)))
    return W, b, history


SETTINGS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "decay": {"weight_decay": 0.01},
    "both": {"momentum": 0.5, "weight_decay": 0.1, "learning_rate": 0.05},
    "schedule": {"learning_rate": lambda epoch: 0.2 / epoch},
    "one batch": {"batch_size": 1000},
    "seed": {"seed": 7},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_the_trajectory_is_the_plain_loops(kernels, settings, dtype, bias):
    X, y = make_data(dtype)
    x_scale = 1 / 255 if dtype == np.uint8 else 1.0
    W_dtype = np.float64 if dtype == np.float64 else np.float32
    W = np.random.default_rng(9).normal(size=(D, C)).astype(W_dtype)
    model = SoftmaxModel(W, np.zeros(C, W_dtype) if bias else None, x_scale=x_scale)
    settings = {
        "epochs": 4, "batch_size": 50, "learning_rate": 0.1, "momentum": 0.0,
        "weight_decay": 0.0, "seed": 0, **settings,
    }  # fmt: skip
    W, b, expected = plain_loop(model.W, model.b, X, y, x_scale=x_scale, **settings)
    history = Trainer(**settings, kernels=kernels).fit(model, X, y)

    if kernels is reference:
        assert model.W.tobytes() == W.tobytes()
        assert model.b is None or model.b.tobytes() == b.tobytes()
        assert [(row.train_loss, row.train_accuracy) for row in history] == expected
    else:
        # Roundings of 20 steps on weights of about 1, each some eps: far below 1000 eps.
        tolerance = 1000 * np.finfo(W_dtype).eps
        np.testing.assert_allclose(model.W, W, rtol=tolerance, atol=tolerance)
        if b is not None:
            np.testing.assert_allclose(model.b, b, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(history.train_loss, [e[0] for e in expected], rtol=tolerance)
        np.testing.assert_allclose(history.train_accuracy, [e[1] for e in expected], atol=1.5 / N)


def test_it_learns(kernels):
    model, history = fit({"epochs": 20, "kernels": kernels})
    X, y = make_data()
    assert history.train_loss[0] > 2 * history.train_loss[-1]
    assert model.accuracy(X, y) > 0.95


def test_the_models_kernels_are_the_default():
    recorder = Recorder()
    model = SoftmaxModel.zeros(D, C, kernels=recorder)
    fit({"kernels": None}, model)
    assert len(recorder.calls) == 3 * 5
    fit({"kernels": reference}, model)
    assert len(recorder.calls) == 3 * 5


def test_the_package_kernels_are_the_last_default(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(softmax_ext, "kernels", recorder)
    fit({"kernels": None})
    assert recorder.calls


@pytest.mark.parametrize("order", ["C", "F"])
def test_weights_change_in_place_and_keep_their_order(order):
    model = SoftmaxModel(np.zeros((D, C), order=order), np.zeros(C))
    W, b = model.W, model.b
    fit({"momentum": 0.9, "weight_decay": 0.1}, model)
    assert model.W is W
    assert model.b is b
    assert W.any()
    assert W.flags[f"{order}_CONTIGUOUS"]


def test_the_order_is_the_seeds_permutations():
    recorder = Recorder()
    fit({"seed": 3, "kernels": recorder, "epochs": 2})
    rng = np.random.default_rng(3)
    expected = np.concatenate([rng.permutation(N), rng.permutation(N)])
    assert np.concatenate(recorder.rows).tolist() == expected.tolist()
    assert [len(rows) for rows in recorder.rows] == [50, 50, 50, 50, 3] * 2


def test_without_shuffle_rows_come_in_order():
    recorder = Recorder()
    fit({"shuffle": False, "kernels": recorder, "epochs": 2})
    assert np.concatenate(recorder.rows).tolist() == [*range(N), *range(N)]


def test_the_same_twice(kernels):
    first, first_history = fit({"kernels": kernels, "momentum": 0.9})
    second, second_history = fit({"kernels": kernels, "momentum": 0.9})
    assert_same_weights(first, second)
    assert_same_rows(first_history, second_history)


def test_a_trainer_starts_afresh_in_each_fit():
    trainer = Trainer(epochs=2, momentum=0.9, kernels=reference)
    models = [SoftmaxModel.zeros(D, C) for _ in range(2)]
    histories = [trainer.fit(model, *make_data()) for model in models]
    assert_same_weights(*models)
    assert [len(history) for history in histories] == [2, 2]
    assert trainer.model is models[1]
    assert trainer.history is histories[1]


def test_another_seed_is_another_order():
    assert fit({"seed": 0})[0].W.tobytes() != fit({"seed": 1})[0].W.tobytes()
    assert fit({"seed": None})[0].W.tobytes() != fit({"seed": None})[0].W.tobytes()


def test_nothing_is_copied_or_allocated_anew():
    """The minibatch is gathered in the kernel, into the arrays of the step before."""
    recorder = Recorder()
    images = np.zeros((N, 2, 3), np.uint8)
    fit({"kernels": recorder, "momentum": 0.9, "epochs": 1}, data=(images, make_data()[1]))
    assert all(np.shares_memory(call["X"], images) for call in recorder.calls)
    for earlier, call in zip(recorder.results[:-1], recorder.calls[1:], strict=True):
        assert call["out"] is earlier


def test_other_numbers_are_converted_once():
    recorder = Recorder()
    X, y = make_data(np.uint8)
    expected, _ = fit(data=(X.astype(np.float64), y), model=SoftmaxModel.zeros(D, C, x_scale=0.01))
    for dtype in (np.int64, np.uint16, ">f8"):
        recorder = Recorder()
        model = SoftmaxModel.zeros(D, C, x_scale=0.01)
        fit({"kernels": recorder}, model, (X.astype(dtype), y))
        assert_same_weights(model, expected)
        assert len({id(call["X"]) for call in recorder.calls}) == 1
        assert recorder.calls[0]["X"].dtype == np.float64


def test_lists_are_welcome():
    X, y = make_data(np.float64)
    model, _ = fit(data=(X.tolist(), y.tolist()), sample_weight=[1.0] * N)
    expected, _ = fit(data=(X, y))
    np.testing.assert_allclose(model.W, expected.W, rtol=1e-6)


# Labels and weights -----------------------------------------------------------------------------


def test_sample_weight():
    weight = np.random.default_rng(11).uniform(0, 2, N)
    X, y = make_data()
    model, history = fit({"epochs": 2}, sample_weight=weight)
    W, b, expected = plain_loop(
        np.zeros((D, C), np.float32), np.zeros(C, np.float32), X, y, epochs=2, batch_size=50,
        learning_rate=0.1, momentum=0.0, weight_decay=0.0, seed=0, x_scale=1.0,
        sample_weight=weight,
    )  # fmt: skip
    assert model.W.tobytes() == W.tobytes()
    assert model.b.tobytes() == b.tobytes()
    assert history.train_loss.tolist() == [loss for loss, _ in expected]


def test_rows_of_weight_zero_are_as_good_as_absent():
    X, y = make_data()
    weight = (np.arange(N) % 3 > 0).astype(float)
    kept = weight > 0
    options = {"shuffle": False, "batch_size": N, "epochs": 5}
    weighted, _ = fit(options, sample_weight=weight)
    without, _ = fit(options, data=(X[kept], y[kept]))
    np.testing.assert_allclose(weighted.W, without.W, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("classes", [["d", "b", "c", "a"], [5, -1, 3, 9]], ids=["text", "numbers"])
def test_class_labels(classes):
    X, y = make_data()
    expected, expected_history = fit(data=(X, y), validation_data=(X, y))
    model = SoftmaxModel.zeros(D, C, classes=classes, kernels=reference)
    labels = np.array(classes)[y]
    _, history = fit(model=model, data=(X, labels), validation_data=(X, labels))
    assert_same_weights(model, expected)
    assert_same_rows(history, expected_history)


def test_probabilities_as_labels():
    X, y = make_data()
    model, history = fit(data=(X, np.eye(C)[y]), validation_data=(X, np.eye(C)[y]))
    expected, expected_history = fit(data=(X, y), validation_data=(X, y))
    np.testing.assert_allclose(model.W, expected.W, rtol=1e-5, atol=1e-6)
    assert history.train_accuracy.tolist() == expected_history.train_accuracy.tolist()
    assert history.validation_accuracy.tolist() == expected_history.validation_accuracy.tolist()


def test_ignored_labels_do_not_count():
    X, y = make_data()
    ignored = np.arange(N) % 4 == 1
    X[ignored] = np.nan
    y[ignored] = -100
    # The first minibatch has no label at all: its loss, nan, is none of the epoch's.
    y[:10] = -100
    model, history = fit({"epochs": 5, "shuffle": False, "batch_size": 10}, data=(X, y))
    assert np.isfinite(model.W).all()
    assert np.isfinite(history.train_loss).all()
    recorder = Recorder()
    fit({"epochs": 1, "shuffle": False, "batch_size": 10, "kernels": recorder}, data=(X, y))
    n_correct = sum(result.n_correct for result in recorder.results)
    assert history.train_accuracy[0] == n_correct / np.count_nonzero(y != -100)


def test_only_ignored_labels():
    with pytest.warns(RuntimeWarning, match="^loss is nan in epoch 1; no row counts$"):
        model, history = fit({"epochs": 1}, data=(make_data()[0], np.full(N, -100)))
    assert not model.W.any()
    assert np.isnan([history[0].train_loss, history[0].train_accuracy]).all()


# What is recorded -------------------------------------------------------------------------------


def test_validation(kernels):
    X, y = make_data()
    X_new, y_new = make_data(n=57)
    weights = []
    _, history = fit(
        {"kernels": kernels, "callbacks": [lambda event: weights.append(event.model.W.copy())]},
        validation_data=(X_new, y_new),
        model=(model := SoftmaxModel.zeros(D, C, kernels=kernels)),
    )
    assert len(set(history.validation_loss)) == 3
    assert history[-1].validation_loss == model.loss(X_new, y_new)
    assert history[-1].validation_accuracy == model.accuracy(X_new, y_new)
    assert {type(value) for value in history[-1][1:]} == {float}
    assert not np.array_equal(weights[0], weights[1])
    without, _ = fit({"kernels": kernels}, data=(X, y))
    assert_same_weights(model, without)


def test_no_validation_is_nan():
    _, history = fit()
    assert np.isnan(history.validation_loss).all()
    assert np.isnan(history.validation_accuracy).all()


def test_no_epochs():
    model, history = fit({"epochs": 0})
    assert len(history) == 0
    assert not model.W.any()


def test_times_are_recorded(monkeypatch):
    clock = iter(np.arange(100.0))
    monkeypatch.setattr(softmax_ext.training.loop.time, "perf_counter", lambda: float(next(clock)))
    _, history = fit()
    assert history.seconds.tolist() == [1.0, 1.0, 1.0]
    assert history.examples_per_second.tolist() == [N, N, N]


ROWS = [
    HistoryRow(1, 0.5, 0.75, 0.625, 0.5, 2.0, 100.0),
    HistoryRow(2, 0.25, 0.8, 0.5, 0.7, 4.0, 50.0),
]


def test_history_is_a_sequence_with_columns():
    history = History(ROWS)
    assert len(history) == 2
    assert list(history) == ROWS
    assert history[-1] == ROWS[1]
    assert list(history[1:]) == ROWS[1:]
    assert isinstance(history[1:], History)
    assert history.epoch.tolist() == [1, 2]
    assert history.epoch.dtype == np.int64
    for name in HistoryRow._fields:
        assert getattr(history, name).tolist() == [getattr(row, name) for row in ROWS]
    assert History().train_loss.shape == (0,)
    with pytest.raises(AttributeError, match="'History' object has no attribute 'loss'"):
        _ = history.loss


def test_history_prints_as_a_table():
    assert repr(History(ROWS)).splitlines() == [
        "epoch  train_loss  train_accuracy  validation_loss  validation_accuracy  seconds"
        "  examples_per_second",
        "    1      0.5000          0.7500           0.6250               0.5000     2.00"
        "                  100",
        "    2      0.2500          0.8000           0.5000               0.7000     4.00"
        "                   50",
    ]
    assert "validation" not in repr(fit()[1])
    assert repr(History()).split() == [
        "epoch", "train_loss", "train_accuracy", "seconds", "examples_per_second",
    ]  # fmt: skip


def test_history_to_csv(tmp_path):
    rows = [*ROWS, HistoryRow(3, 1 / 3, 0.8, np.nan, np.nan, 4.0, 50.0)]
    History(rows).to_csv(tmp_path / "history.csv")
    with open(tmp_path / "history.csv", newline="") as file:
        names, *lines = csv.reader(file)
    assert names == list(HistoryRow._fields)
    values = [tuple(float(cell) for cell in line) for line in lines]
    assert np.array_equal(values, rows, equal_nan=True)
    assert lines[0][0] == "1"
    assert b"\r" not in (tmp_path / "history.csv").read_bytes()


def test_history_plots_itself(monkeypatch):
    history = History(ROWS)
    monkeypatch.setattr(plots, "plot_history", lambda drawn: ("figure of", drawn))
    assert history.plot() == ("figure of", history)


# Callbacks --------------------------------------------------------------------------------------


class Listener:
    def __init__(self):
        self.batches = []
        self.epochs = []

    def on_batch_end(self, event):
        self.batches.append(event)

    def on_epoch_end(self, event):
        self.epochs.append((event, len(event.history)))


def test_callbacks_are_told():
    listener, called = Listener(), []
    recorder = Recorder()
    model, history = fit({"callbacks": [listener, called.append], "kernels": recorder})
    assert [(e.epoch, e.batch) for e in listener.batches] == [
        (epoch, batch) for epoch in (1, 2, 3) for batch in (1, 2, 3, 4, 5)
    ]
    assert {(e.epochs, e.batches) for e in listener.batches} == {(3, 5)}
    assert called == [event for event, _ in listener.epochs]
    # The row is there when the epoch's end is told.
    assert [(e.epoch, n) for e, n in listener.epochs] == [(1, 1), (2, 2), (3, 3)]
    for event, row in zip(called, history, strict=True):
        assert isinstance(event, TrainingEvent)
        assert event.model is model
        assert event.history is history
        assert (event.batch, event.batches) == (5, 5)
        assert (event.loss, event.accuracy) == (row.train_loss, row.train_accuracy)
        assert event.examples_per_second == row.examples_per_second
    # Running averages over the epoch so far.
    for i, event in enumerate(listener.batches):
        results = recorder.results[5 * (event.epoch - 1) : i + 1]
        n = sum(result.total_weight for result in results)
        loss = sum(result.loss * result.total_weight for result in results) / n
        assert event.loss == pytest.approx(loss, rel=1e-12)
        assert event.accuracy == sum(result.n_correct for result in results) / n
        assert event.examples_per_second == pytest.approx(n / event.seconds)


def test_callbacks_of_one_method():
    class Batches:
        n = 0

        def on_batch_end(self, event):
            self.n += 1

    class Epochs:
        n = 0

        def on_epoch_end(self, event):
            self.n += 1

        def __call__(self, event):
            raise AssertionError("an object with methods is not called itself")

    batches, epochs = Batches(), Epochs()
    fit({"callbacks": [batches, epochs]})
    assert (batches.n, epochs.n) == (15, 3)


def test_batch_events_are_not_made_for_nobody(monkeypatch):
    monkeypatch.delattr(softmax_ext.training.loop.Loop, "_batch_event")
    fit({"callbacks": [lambda event: None]})


def test_stop_at_an_epochs_end():
    def stop(event):
        if event.epoch == 2:
            raise StopTraining

    model, history = fit({"callbacks": [stop], "epochs": 10})
    expected, _ = fit({"epochs": 2})
    assert history.epoch.tolist() == [1, 2]
    assert_same_weights(model, expected)


class StopAt:
    """Raises in a given minibatch, counted from the start of the training."""

    def __init__(self, n, error=StopTraining):
        self.n = n
        self.error = error

    def on_batch_end(self, event):
        self.n -= 1
        if self.n == 0:
            raise self.error


def test_stop_halfway_leaves_no_row():
    recorder = Recorder()
    _, history = fit({"callbacks": [StopAt(7)], "kernels": recorder})
    assert history.epoch.tolist() == [1]
    assert len(recorder.calls) == 7


def test_errors_of_callbacks_pass():
    trainer = Trainer(callbacks=[StopAt(2, ZeroDivisionError)], kernels=reference)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(SoftmaxModel.zeros(D, C), *make_data(n=1000))


# Schedules --------------------------------------------------------------------------------------


def test_a_schedule_is_called_once_an_epoch():
    epochs = []
    fit({"learning_rate": lambda epoch: epochs.append(epoch) or 0.1, "epochs": 4})
    assert epochs == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("rate", "error"), [(-1.0, ValueError), (np.nan, ValueError), (None, TypeError)]
)
def test_a_schedule_that_gives_no_rate_is_refused(rate, error):
    model = SoftmaxModel.zeros(D, C)
    with pytest.raises(error, match=r"learning_rate\(1\): "):
        fit({"learning_rate": lambda epoch: rate}, model)
    assert not model.W.any()


# Divergence -------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_divergence_warns_once(momentum):
    X, y = make_data()
    with pytest.warns(RuntimeWarning) as caught:
        _, history = fit(
            {"learning_rate": 1e38, "momentum": momentum, "epochs": 5}, data=(X * 100, y)
        )
    assert len(history) == 5
    assert len(caught) == 1
    assert str(caught[0].message).endswith("in epoch 1; lower the learning rate")
    assert str(caught[0].message).startswith(("loss is nan", "loss is inf"))
    assert caught[0].filename == __file__


# Being interrupted ------------------------------------------------------------------------------


def weights_after(n_steps):
    model = SoftmaxModel.zeros(D, C)
    fit({"callbacks": [StopAt(n_steps)], "momentum": 0.9}, model)
    return model


def test_ctrl_c_without_a_checkpoint_passes():
    model = SoftmaxModel.zeros(D, C)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit({"callbacks": [StopAt(7, KeyboardInterrupt)], "momentum": 0.9}, model)
    assert not isinstance(caught.value, TrainingInterrupted)
    assert_same_weights(model, weights_after(7))


class SignalInKernel(Recorder):
    """Ctrl-C while the kernel computes a minibatch."""

    def linear_cross_entropy_with_grad(self, *args, **options):
        if len(self.calls) == 7:
            signal.raise_signal(signal.SIGINT)
        return super().linear_cross_entropy_with_grad(*args, **options)


def test_ctrl_c_in_the_kernel_stops_before_the_step():
    model = SoftmaxModel.zeros(D, C)
    with pytest.raises(KeyboardInterrupt):
        fit({"kernels": SignalInKernel(), "momentum": 0.9}, model)
    assert_same_weights(model, weights_after(7))


def interrupt_within_step(monkeypatch, at):
    """Send Ctrl-C in the midst of a step: W has been changed, b has not."""
    steps = []
    step = softmax_ext.training.sgd.SGD.step

    def interrupted_step(self, gradients, rate):
        steps.append(rate)
        everything = self.parameters, self.velocities
        self.parameters, self.velocities = self.parameters[:1], self.velocities[:1]
        step(self, gradients, rate)
        if len(steps) == at:
            signal.raise_signal(signal.SIGINT)
        self.parameters, self.velocities = ([part[1]] for part in everything)
        step(self, gradients[1:], rate)
        self.parameters, self.velocities = everything

    monkeypatch.setattr(softmax_ext.training.sgd.SGD, "step", interrupted_step)


def test_ctrl_c_within_a_step_waits_for_its_end(monkeypatch):
    expected = weights_after(7)
    interrupt_within_step(monkeypatch, 7)
    model = SoftmaxModel.zeros(D, C)
    with pytest.raises(KeyboardInterrupt):
        fit({"momentum": 0.9}, model)
    assert_same_weights(model, expected)


def test_the_signal_handler_is_put_back():
    calls = []

    def handler(number, frame):
        calls.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        fit({"kernels": SignalInKernel()})
        assert signal.getsignal(signal.SIGINT) is handler
        # The user's own handler was called, and did not want to stop.
        assert calls == [signal.SIGINT]
        with pytest.raises(ZeroDivisionError):
            fit({"callbacks": [StopAt(2, ZeroDivisionError)]})
        assert signal.getsignal(signal.SIGINT) is handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        fit({"kernels": SignalInKernel()})
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_train_too():
    expected, _ = fit()
    model = SoftmaxModel.zeros(D, C)
    thread = threading.Thread(target=fit, kwargs={"model": model})
    thread.start()
    thread.join()
    assert_same_weights(model, expected)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_after_use(kernels):
    """A forked child of a process that has trained trains likewise."""
    expected, _ = fit({"kernels": kernels})
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            model, _ = fit({"kernels": kernels})
            os.write(writer, model.W.tobytes())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        received = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    assert received == expected.W.tobytes()


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": -1}, ValueError, "epochs: -1 came, an integer from 0"),
        ({"epochs": 1.5}, TypeError, "epochs: float came, an integer was wanted"),
        ({"batch_size": 0}, ValueError, "batch_size: 0 came, an integer from 1"),
        ({"batch_size": "big"}, TypeError, "batch_size: str came, an integer was wanted"),
        ({"learning_rate": -0.1}, ValueError, "learning_rate: -0.1 came, a finite number"),
        ({"learning_rate": np.inf}, ValueError, "learning_rate: inf came, a finite number"),
        ({"learning_rate": "0.1"}, TypeError, "learning_rate: str came, a number was wanted"),
        ({"momentum": np.complex128(1j)}, TypeError, "momentum: complex128 came, a number"),
        ({"momentum": -1}, ValueError, "momentum: -1 came, a finite number"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing: 1.5 came, a number from 0 to 1"),
        ({"weight_decay": np.nan}, ValueError, "weight_decay: nan came, a finite number"),
        ({"seed": -1}, ValueError, "seed: -1 came, an integer from 0"),
        ({"seed": 1 << 63}, ValueError, "seed: 9223372036854775808 came,"),
        ({"callbacks": ["print"]}, TypeError, "callbacks: 'print' came, a callable"),
        ({"checkpoint": 3}, TypeError, "PathLike"),
    ],
    ids=str,
)
def test_settings_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        Trainer(**options)


def test_numpy_numbers_are_settings():
    trainer = Trainer(epochs=np.int8(2), learning_rate=np.float32(0.5), seed=np.uint64(3))
    assert (trainer.epochs, trainer.learning_rate, trainer.seed) == (2, 0.5, 3)


X0, Y0 = make_data()
SOFT = np.eye(C)[Y0]


def csr(dense):
    """The same in compressed sparse rows, all elements stored."""
    n, d = dense.shape
    return Csr(dense.ravel(), np.tile(np.arange(d), n), np.arange(0, n * d + 1, d), (n, d))


def at_9(array, value):
    """A float64 copy of an array with another value somewhere in row 9."""
    array = array.astype(np.float64)
    array.reshape(N, -1)[9, -1] = value
    return array


@pytest.mark.parametrize(
    ("X", "y", "options", "error", "message"),
    [
        (X0[:, :5], Y0, {}, ValueError, r"X: shape \(203, 5\) came, \(N, 6\)"),
        (X0[:0], Y0[:0], {}, ValueError, "X: no rows"),
        (X0, Y0[:5], {}, ValueError, r"y: int64 of shape \(5,\) came, labels \(203,\)"),
        (X0, Y0 + (np.arange(N) == 200) * 10, {}, IndexError, "y: label 1[0-9] at row 200 is out"),
        (X0, Y0 - (np.arange(N) == 17) * 10, {}, IndexError, r"at row 17 is outside \[0, 4\)"),
        (X0, Y0.astype(float), {}, TypeError, "y: dtype float64 came, integer"),
        (X0.astype(complex), Y0, {}, TypeError, "X"),
        (X0, Y0, {"sample_weight": np.ones(5)}, ValueError, "sample_weight"),
        (
            X0,
            Y0,
            {"sample_weight": 8 - np.arange(N)},
            ValueError,
            "^sample_weight: -1.0 came at row 9",
        ),
        (
            X0,
            Y0,
            {"sample_weight": at_9(Y0, -1.0)},
            ValueError,
            "^sample_weight: -1.0 came at row 9",
        ),
        (
            X0,
            Y0,
            {"sample_weight": at_9(Y0, np.nan)},
            ValueError,
            "^sample_weight: nan came at row 9",
        ),
        (
            X0,
            Y0,
            {"sample_weight": at_9(Y0, np.inf)},
            ValueError,
            "^sample_weight: inf came at row 9",
        ),
        (X0, Y0, {"validation_data": (X0, Y0 + 9)}, IndexError, "validation_data: y: label"),
        (X0, Y0, {"validation_data": (X0[:, :5], Y0)}, ValueError, "validation_data: X: shape"),
        (X0, Y0, {"validation_data": (X0,)}, ValueError, "validation_data: "),
    ],
)
def test_data_that_is_refused_leaves_the_model_alone(kernels, X, y, options, error, message):
    model = SoftmaxModel.zeros(D, C)
    with pytest.raises(error, match=message):
        fit({"kernels": kernels}, model, (X, y), **options)
    assert not model.W.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: (at_9(X0, x), Y0, {}), "^X: NaN or infinity came in row 9"),
        (lambda x: (at_9(X0, x).astype(np.float32), SOFT, {}), "^X: NaN or infinity came in row 9"),
        (lambda x: (csr(at_9(X0, x)), Y0, {}), "^X: NaN or infinity came in row 9"),
        (lambda x: (X0, at_9(SOFT, x), {}), "^y: NaN or infinity came in row 9"),
        (
            lambda x: (X0, Y0, {"validation_data": (at_9(X0, x), Y0)}),
            "^validation_data: X: NaN or infinity came in row 9",
        ),
        (
            lambda x: (X0, Y0, {"validation_data": (X0, at_9(SOFT, x))}),
            "^validation_data: y: NaN or infinity came in row 9",
        ),
    ],
)
def test_data_that_is_not_finite_is_named(kernels, make, message, value):
    X, y, options = make(value)
    with pytest.raises(ValueError, match=message):
        fit({"kernels": kernels, "momentum": 0.9}, data=(X, y), **options)


def test_data_that_is_not_finite_is_not_trained_on():
    model, good = SoftmaxModel.zeros(D, C), SoftmaxModel.zeros(D, C)
    options = {"shuffle": False, "batch_size": 3, "epochs": 1}
    with pytest.raises(ValueError, match="^X: NaN or infinity came in row 9"):
        fit(options, model, (at_9(X0, np.nan).astype(np.float32), Y0))
    fit(options, good, (X0[:9], Y0[:9]))
    assert_same_weights(model, good)


def test_a_model_that_is_not_finite_is_refused():
    model = SoftmaxModel(np.full((D, C), np.nan), None)
    with pytest.raises(ValueError, match="^W, b: .* nan or infinite"):
        fit(model=model)


class Given:
    """Default kernels that keep which targets and weights they were given."""

    def __init__(self):
        self.targets, self.weights = [], []

    def __getattr__(self, name):
        return getattr(softmax_ext.kernels, name)

    def linear_cross_entropy(self, X, W, b, target, **options):
        self.targets.append(target)
        return softmax_ext.linear_cross_entropy(X, W, b, target, **options)

    def linear_cross_entropy_with_grad(self, X, W, b, target, **options):
        self.targets.append(target)
        self.weights.append(options["sample_weight"])
        return softmax_ext.linear_cross_entropy_with_grad(X, W, b, target, **options)


@pytest.mark.parametrize(
    ("X", "W_dtype"),
    [
        (X0, np.float32),
        (X0.astype(np.float64), np.float32),
        (X0, np.float64),
        (X0.astype(np.uint8), np.float32),
    ],
    ids=["32-32", "64-32", "32-64", "8-32"],
)
@pytest.mark.parametrize("given", [np.float16, np.float32, np.float64, ">f8"])
def test_targets_and_weights_are_converted_once(X, W_dtype, given):
    """To what the kernels read in place; two floating dtypes are that already."""
    kernels = Given()
    y, weight = SOFT.astype(given), np.ones(N, given)
    model = SoftmaxModel.zeros(D, C, dtype=W_dtype)
    options = {"sample_weight": weight, "validation_data": (X, y)}
    fit({"kernels": kernels, "epochs": 2}, model, (X, y), **options)
    assert len({id(array) for array in kernels.targets}) <= 2
    assert len({id(array) for array in kernels.weights}) == 1
    wanted = np.result_type(np.dtype(given).newbyteorder("="), np.float32)
    assert {array.dtype for array in kernels.targets} == {wanted}
    assert kernels.weights[0].dtype == np.float64


def test_a_trainer_that_has_not_trained_has_no_model():
    trainer = Trainer()
    for name in ("model", "history"):
        with pytest.raises(AttributeError, match="has not trained a model yet"):
            getattr(trainer, name)


class TestAveraging:
    """average=True: the mean of the last epoch's weights instead of the last ones."""

    def steps(self, epochs: int) -> list[np.ndarray]:
        """The weights after each step of the last epoch of a plain run."""
        X, y = np.eye(6, dtype=np.float32), np.arange(6) % 3
        seen: list[np.ndarray] = []

        class Watch:
            def on_batch_end(self, event: object) -> None:
                seen.append(event.model.W.astype(np.float64))  # type: ignore[attr-defined]

        model = SoftmaxModel.zeros(6, 3)
        Trainer(epochs=epochs, batch_size=2, callbacks=[Watch()]).fit(model, X, y)
        return seen[-3:]

    def test_the_model_ends_with_the_mean_of_the_last_epochs_steps(self) -> None:
        X, y = np.eye(6, dtype=np.float32), np.arange(6) % 3
        model = SoftmaxModel.zeros(6, 3)
        history = Trainer(epochs=4, batch_size=2, average=True).fit(model, X, y)
        plain = Trainer(epochs=4, batch_size=2).fit(SoftmaxModel.zeros(6, 3), X, y)
        np.testing.assert_array_equal(model.W, np.mean(self.steps(4), axis=0).astype(np.float32))
        np.testing.assert_array_equal(history.train_loss, plain.train_loss)

    def test_the_last_validation_sees_the_mean(self) -> None:
        X, y = np.eye(6, dtype=np.float32), np.arange(6) % 3
        model = SoftmaxModel.zeros(6, 3)
        trainer = Trainer(epochs=3, batch_size=2, average=True)
        history = trainer.fit(model, X, y, validation_data=(X, y))
        assert history.validation_loss[-1] == model.loss(X, y)

    def test_a_run_stopped_within_the_last_epoch_resumes_bitwise(self, tmp_path) -> None:
        X, y = np.eye(6, dtype=np.float32), np.arange(6) % 3
        whole = SoftmaxModel.zeros(6, 3)
        Trainer(epochs=3, batch_size=2, average=True, momentum=0.5).fit(whole, X, y)

        class Stop:
            def on_batch_end(self, event: object) -> None:
                if event.epoch == 3 and event.batch == 2:  # type: ignore[attr-defined]
                    raise softmax_ext.StopTraining

        path = tmp_path / "run.npz"
        part = SoftmaxModel.zeros(6, 3)
        Trainer(
            epochs=3, batch_size=2, average=True, momentum=0.5, callbacks=[Stop()], checkpoint=path
        ).fit(part, X, y)
        trainer = Trainer.resume(path)
        trainer.fit(trainer.model, X, y)
        assert trainer.model.W.tobytes() == whole.W.tobytes()
        assert trainer.model.b.tobytes() == whole.b.tobytes()


def test_label_smoothing_is_a_soft_label() -> None:
    X, y = np.eye(6), np.arange(6) % 3
    soft = 0.7 * np.eye(3)[y] + 0.1
    models = [SoftmaxModel.zeros(6, 3, dtype=np.float64) for _ in range(2)]
    smoothed = Trainer(epochs=3, batch_size=2, label_smoothing=0.3).fit(models[0], X, y)
    plain = Trainer(epochs=3, batch_size=2).fit(models[1], X, soft)
    np.testing.assert_allclose(models[0].W, models[1].W, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(smoothed.train_loss, plain.train_loss)


def test_the_bias_need_not_decay() -> None:
    """Without gradients, only what decays changes."""
    X, y = np.zeros((4, 2)), np.full((4, 3), 1 / 3)
    for decay_bias in (True, False):
        model = SoftmaxModel(np.ones((2, 3)), np.ones(3))
        Trainer(
            epochs=1, batch_size=4, learning_rate=0.5, weight_decay=0.5, decay_bias=decay_bias
        ).fit(model, X, y)
        np.testing.assert_allclose(model.W, 0.75)
        np.testing.assert_allclose(model.b, 0.75 if decay_bias else 1.0)


def test_a_minibatch_without_weight_changes_nothing() -> None:
    X, y, weight = np.eye(4), np.arange(4) % 2, np.array([1.0, 1.0, 0.0, 0.0])
    model, half = (SoftmaxModel.zeros(4, 2, dtype=np.float64) for _ in range(2))
    history = Trainer(epochs=2, batch_size=2, shuffle=False).fit(model, X, y, sample_weight=weight)
    Trainer(epochs=2, batch_size=2, shuffle=False).fit(half, X[:2], y[:2])
    assert model.W.tobytes() == half.W.tobytes()
    assert np.isfinite(history.train_loss).all()
