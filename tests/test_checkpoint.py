"""Checkpoints: a run that was stopped, by whatever means, ends as if it had not been."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import softmax_ext
from softmax_ext import ModelFormatError, SoftmaxModel, Trainer, reference
from softmax_ext.training import StopTraining, TrainingInterrupted

N, D, C = 203, 6, 4
BATCHES = 5


@pytest.fixture(autouse=True)
def ctrl_c():
    """Ctrl-C as a terminal has it; a process in the background may have it switched off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def make_data(dtype=np.float32):
    rng = np.random.default_rng(5)
    y = rng.integers(0, C, N)
    X = rng.normal(size=(C, D))[y] * 2 + rng.normal(size=(N, D))
    return X.astype(dtype), y


def schedule(epoch):
    return 0.3 / epoch


class StopAt:
    """Raises after a given minibatch, counted from the start of the training."""

    def __init__(self, n, error=KeyboardInterrupt):
        self.n = n
        self.error = error

    def on_batch_end(self, event):
        self.n -= 1
        if self.n == 0:
            raise self.error


def train(path, kernels=reference, model=None, data=None, fit_options=None, **options):
    X, y = make_data() if data is None else data
    model = SoftmaxModel.zeros(D, C) if model is None else model
    options = {"epochs": 4, "batch_size": 50, "checkpoint": path, "kernels": kernels, **options}
    trainer = Trainer(**options)
    history = trainer.fit(model, X, y, **(fit_options or {}))
    return model, history


def interrupt(path, n_steps, **options):
    """Train until Ctrl-C after so many steps."""
    with pytest.raises(TrainingInterrupted) as caught:
        train(path, callbacks=[StopAt(n_steps)], **options)
    return caught.value


def resume(path, data=None, fit_options=None, kernels=reference, **options):
    trainer = Trainer.resume(path, kernels=kernels, **options)
    X, y = make_data() if data is None else data
    history = trainer.fit(trainer.model, X, y, **(fit_options or {}))
    return trainer.model, history


def assert_same_run(a, b):
    (model_a, history_a), (model_b, history_b) = a, b
    assert model_a.W.tobytes() == model_b.W.tobytes()
    assert (model_a.b is None) == (model_b.b is None)
    assert model_a.b is None or model_a.b.tobytes() == model_b.b.tobytes()
    # All but the times.
    columns = [np.array([row[:5] for row in history]) for history in (history_a, history_b)]
    assert np.array_equal(*columns, equal_nan=True)


# Resuming ---------------------------------------------------------------------------------------

RUNS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "decay": {"weight_decay": 0.1, "momentum": 0.5},
    "smoothed": {"weight_decay": 0.1, "decay_bias": False, "label_smoothing": 0.2},
    "in order": {"shuffle": False},
    "schedule": {"learning_rate": schedule},
    "no seed": {"seed": 17},
}


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("n_steps", [1, 4, 5, 6, 10, 13, 19, 20])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path, options, n_steps):
    whole = train(None, **options)
    path = tmp_path / "run.npz"
    model = SoftmaxModel.zeros(D, C)
    interrupt(path, n_steps, model=model, **options)
    rate = {"learning_rate": schedule} if "learning_rate" in options else {}
    # No step is lost, nor done twice.
    assert np.array_equal(Trainer.resume(path, **rate).model.W, model.W)
    assert_same_run(resume(path, **rate), whole)


@pytest.mark.parametrize("planned", [3, 4, 5])
@pytest.mark.parametrize("epochs", [3, 4, 5])
@pytest.mark.parametrize("n_steps", [12, 15])
def test_the_average_is_of_what_becomes_the_last_epoch(tmp_path, planned, epochs, n_steps):
    path = tmp_path / "run.npz"
    interrupt(path, n_steps, epochs=planned, average=True)
    assert_same_run(resume(path, epochs=epochs), train(None, epochs=epochs, average=True))


def test_on_every_kernel_set(tmp_path, kernels):
    options = {"kernels": kernels, "momentum": 0.9}
    interrupt(tmp_path / "run.npz", 7, **options)
    assert_same_run(resume(tmp_path / "run.npz", kernels=kernels), train(None, **options))


def test_interrupted_again_and_again(tmp_path):
    whole = train(None, momentum=0.9)
    path = tmp_path / "run.npz"
    interrupt(path, 3, momentum=0.9)
    for _ in range(5):
        trainer = Trainer.resume(path, kernels=reference, callbacks=[StopAt(3)])
        with pytest.raises(TrainingInterrupted):
            trainer.fit(trainer.model, *make_data())
    assert_same_run(resume(path), whole)


@pytest.mark.parametrize(
    "how", ["bias-free", "float64", "uint8", "F order", "classes", "soft", "weighted", "validated"]
)
def test_kinds_of_models_and_data(tmp_path, how):
    X, y = make_data(np.float64 if how == "float64" else np.float32)
    W = np.zeros((D, C), np.float64 if how == "float64" else np.float32)
    b = None if how == "bias-free" else np.zeros(C, W.dtype)
    classes = None
    fit_options = {}
    if how == "uint8":
        X = np.clip(X * 20 + 128, 0, 255).astype(np.uint8)
    if how == "F order":
        W = np.asfortranarray(W)
    if how == "classes":
        classes = ["d", "c", "b", "a"]
        y = np.array(classes)[y]
    if how == "soft":
        y = np.eye(C, dtype=np.float32)[y] * 0.75 + 0.0625
    if how == "weighted":
        fit_options["sample_weight"] = np.linspace(0, 2, N)
    if how == "validated":
        fit_options["validation_data"] = (X[:50], y[:50])

    def make_model():
        return SoftmaxModel(W, b, classes, x_scale=0.5, kernels=reference)

    options = {"data": (X, y), "fit_options": fit_options}
    whole = train(None, model=make_model(), momentum=0.9, **options)
    path = tmp_path / "run.npz"
    interrupt(path, 7, model=make_model(), momentum=0.9, **options)
    model, history = resume(path, **options)
    assert_same_run((model, history), whole)
    assert model.W.flags["F_CONTIGUOUS"] == whole[0].W.flags["F_CONTIGUOUS"]
    assert np.array_equal(model.classes, whole[0].classes)
    assert model.x_scale == 0.5


def test_the_resumed_trainer_knows_where_it_is(tmp_path):
    path = tmp_path / "run.npz"
    options = {"batch_size": 50, "momentum": 0.25, "weight_decay": 0.5, "learning_rate": 0.01}
    interrupt(path, 7, epochs=9, shuffle=False, seed=None, **options)
    trainer = Trainer.resume(path)
    assert {name: getattr(trainer, name) for name in options} == options
    assert (trainer.epochs, trainer.shuffle, trainer.seed) == (9, False, None)
    assert trainer.checkpoint == str(path)
    assert len(trainer.history) == 1
    assert trainer.model.W.any()


def test_another_model_is_given_the_weights(tmp_path):
    whole = train(None, momentum=0.9)
    path = tmp_path / "run.npz"
    interrupt(path, 7, momentum=0.9)
    model = SoftmaxModel(np.ones((D, C), np.float32), np.ones(C, np.float32), kernels=reference)
    trainer = Trainer.resume(path)
    history = trainer.fit(model, *make_data())
    assert trainer.model is model
    assert_same_run((model, history), whole)


def test_more_epochs(tmp_path):
    path = tmp_path / "run.npz"
    train(path, momentum=0.9, epochs=2)
    assert_same_run(resume(path, epochs=4), train(None, momentum=0.9))
    assert len(Trainer.resume(path).history) == 4


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    path = tmp_path / "run.npz"
    whole = train(path)
    before = path.read_bytes()
    assert_same_run(resume(path), whole)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("n_steps", "begun"), [(4, 1), (6, 2), (7, 2)])
def test_fewer_epochs_than_were_begun_are_refused(tmp_path, n_steps, begun):
    path = tmp_path / "run.npz"
    interrupt(path, n_steps)
    with pytest.raises(
        ValueError,
        match=rf"epochs: {begun - 1} came, at least {begun} was wanted: .* of epoch {begun}$",
    ):
        Trainer.resume(path, epochs=begun - 1)
    assert Trainer.resume(path, epochs=begun).epochs == begun


def test_the_fit_after_that_starts_afresh(tmp_path):
    path = tmp_path / "run.npz"
    whole = train(path)
    trainer = Trainer.resume(path, kernels=reference)
    first = trainer.fit(trainer.model, *make_data())
    model = SoftmaxModel.zeros(D, C)
    history = trainer.fit(model, *make_data())
    assert history is not first
    assert_same_run((model, history), whole)


def test_another_learning_rate(tmp_path):
    path = tmp_path / "run.npz"
    train(path, epochs=2, learning_rate=0.5)
    resumed = resume(path, epochs=4, learning_rate=0.01)
    assert_same_run(resumed, train(None, learning_rate=lambda epoch: 0.5 if epoch < 3 else 0.01))


def test_a_schedule_must_be_handed_over_again(tmp_path):
    path = tmp_path / "run.npz"
    interrupt(path, 7, learning_rate=schedule)
    with pytest.raises(ValueError, match=r"learning_rate: the run in .*run\.npz had a schedule"):
        Trainer.resume(path)


def test_another_place_for_the_checkpoint(tmp_path):
    old, new = tmp_path / "old.npz", tmp_path / "new.npz"
    interrupt(old, 7)
    before = old.read_bytes()
    resume(old, checkpoint=new)
    assert old.read_bytes() == before
    assert len(Trainer.resume(new).history) == 4


@pytest.mark.parametrize("what", ["labels", "rows", "dtype", "weights", "shape"])
def test_other_data_is_refused(tmp_path, what):
    path = tmp_path / "run.npz"
    interrupt(path, 7)
    X, y = make_data()
    fit_options = {}
    if what == "labels":
        y[3] = (y[3] + 1) % C
    elif what == "rows":
        X, y = X[:-1], y[:-1]
    elif what == "dtype":
        X = X.astype(np.float64)
    elif what == "weights":
        fit_options["sample_weight"] = np.ones(N)
    else:
        X = X.reshape(N, 2, 3)[:, :, :2]
    trainer = Trainer.resume(path, kernels=reference)
    with pytest.raises(ValueError, match=r"sample_weight: .* was trained on|X: shape"):
        trainer.fit(trainer.model, X, y, **fit_options)
    # It is still good for the right data.
    history = trainer.fit(trainer.model, *make_data())
    assert_same_run((trainer.model, history), train(None))


def test_labels_of_another_integer_dtype_are_the_same_data(tmp_path):
    path = tmp_path / "run.npz"
    interrupt(path, 7)
    X, y = make_data()
    assert_same_run(resume(path, data=(X, y.astype(np.uint8))), train(None))


@pytest.mark.parametrize(
    "other",
    [
        SoftmaxModel.zeros(D, C, dtype=np.float64),
        SoftmaxModel(np.zeros((D, C), np.float32), None),
        SoftmaxModel.zeros(D, C + 1),
        SoftmaxModel.zeros(D, C, x_scale=2.0),
        SoftmaxModel.zeros(D, C, classes=[1, 2, 3, 4]),
    ],
    ids=["dtype", "bias", "classes", "x_scale", "labels"],
)
def test_a_model_unlike_the_checkpoints_is_refused(tmp_path, other):
    path = tmp_path / "run.npz"
    interrupt(path, 7)
    X, y = make_data()
    labels = y if other.classes is None else other.classes[y]
    with pytest.raises(ValueError, match=r"model: .* came, one like the checkpoint's"):
        Trainer.resume(path, kernels=reference).fit(other, X, labels)
    assert not other.W.any()


# When it is written -----------------------------------------------------------------------------


def test_a_checkpoint_is_written_at_each_epochs_end(tmp_path):
    path = tmp_path / "run.npz"
    epochs = []

    def look(event):
        epochs.append((len(Trainer.resume(path).history), event.epoch))
        assert np.array_equal(Trainer.resume(path).model.W, event.model.W)

    train(path, callbacks=[look])
    assert epochs == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert os.listdir(tmp_path) == ["run.npz"]


def test_ctrl_c_says_where_the_checkpoint_is(tmp_path):
    path = tmp_path / "run.npz"
    interruption = interrupt(path, 7)
    assert interruption.checkpoint == str(path)
    assert str(interruption) == (
        f"interrupted in epoch 2 of 4, after 2 of 5 minibatches; the checkpoint of this step is "
        f"{path}"
    )
    assert isinstance(interruption, KeyboardInterrupt)


@pytest.mark.parametrize("epoch", [1, 4])
def test_ctrl_c_at_an_epochs_end(tmp_path, epoch):
    path = tmp_path / "run.npz"

    def interrupt_epoch(event):
        if event.epoch == epoch:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted, match=f"at the end of epoch {epoch} of 4; the check"):
        train(path, callbacks=[interrupt_epoch])
    assert_same_run(resume(path), train(None))


def test_the_time_before_the_interruption_counts(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    clock = iter(np.arange(0.0, 1000.0, 10.0))
    monkeypatch.setattr(softmax_ext.training.loop.time, "perf_counter", lambda: float(next(clock)))
    # Looked at before the epoch, at the batch event, and at the end.
    interrupt(path, 1)
    _, history = resume(path)
    assert history.seconds.tolist() == [30.0, 10.0, 10.0, 10.0]
    assert history.examples_per_second[0] == N / 30.0


def test_stop_training_halfway_is_resumed_there(tmp_path):
    path = tmp_path / "run.npz"
    model, _ = train(path, callbacks=[StopAt(7, StopTraining)])
    assert np.array_equal(Trainer.resume(path).model.W, model.W)
    assert_same_run(resume(path), train(None))


class SignalInStep:
    """Sends Ctrl-C while a step is half done."""

    def __init__(self, monkeypatch, at):
        step, self.n = softmax_ext.training.sgd.SGD.step, 0

        def signalled_step(sgd, gradients, rate):
            self.n += 1
            if self.n == at:
                signal.raise_signal(signal.SIGINT)
            step(sgd, gradients, rate)

        monkeypatch.setattr(softmax_ext.training.sgd.SGD, "step", signalled_step)


@pytest.mark.parametrize("at", [1, 5, 7, 20])
def test_ctrl_c_within_a_step(tmp_path, monkeypatch, at):
    path = tmp_path / "run.npz"
    whole = train(None, momentum=0.9)
    SignalInStep(monkeypatch, at)
    with pytest.raises(TrainingInterrupted):
        train(path, momentum=0.9)
    monkeypatch.undo()
    assert_same_run(resume(path), whole)


class SignalInValidation:
    """The reference kernels; Ctrl-C while the second epoch is validated."""

    n = 0

    def __getattr__(self, name):
        return getattr(reference, name)

    def linear_cross_entropy(self, *args, **options):
        self.n += 1
        if self.n == 2:
            signal.raise_signal(signal.SIGINT)
        return reference.linear_cross_entropy(*args, **options)


def test_ctrl_c_during_validation(tmp_path):
    path = tmp_path / "run.npz"
    fit_options = {"validation_data": make_data()}
    whole = train(None, fit_options=fit_options)
    with pytest.raises(TrainingInterrupted, match="epoch 2 of 4, after 5 of 5 minibatches"):
        train(path, kernels=SignalInValidation(), fit_options=fit_options)
    assert_same_run(resume(path, fit_options=fit_options), whole)


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_ctrl_c_while_a_checkpoint_is_written(tmp_path, monkeypatch, after):
    path = tmp_path / "run.npz"
    whole = train(None)
    replace, n = os.replace, 0

    def interrupted_replace(source, target):
        nonlocal n
        n += 1
        if n == after:
            signal.raise_signal(signal.SIGINT)
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted_replace)
    with pytest.raises(TrainingInterrupted, match="checkpoint of this step"):
        train(path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["run.npz"]
    assert_same_run(resume(path), whole)


def full_disk(*args, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_ends_the_training_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"

    def fill_disk(event):
        if event.epoch == 2:
            monkeypatch.setattr(os, "fsync", full_disk)

    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        train(path, callbacks=[fill_disk])
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["run.npz"]
    assert len(Trainer.resume(path).history) == 2
    assert_same_run(resume(path), train(None))


@pytest.mark.parametrize("n_steps", [3, 7])
def test_ctrl_c_on_a_full_disk(tmp_path, monkeypatch, n_steps):
    path = tmp_path / "run.npz"

    class FillDisk:
        n = 0

        def on_batch_end(self, event):
            self.n += 1
            if self.n == n_steps:
                monkeypatch.setattr(os, "fsync", full_disk)

    with pytest.raises(TrainingInterrupted) as caught:
        train(path, callbacks=[FillDisk(), StopAt(n_steps)])
    monkeypatch.undo()
    message = str(caught.value)
    assert os.strerror(errno.ENOSPC) in message
    if n_steps == 3:
        assert caught.value.checkpoint is None
        assert "there is no checkpoint" in message
        assert os.listdir(tmp_path) == []
    else:
        assert caught.value.checkpoint == str(path)
        assert f"the checkpoint of the end of epoch 1 is {path}" in message
        assert_same_run(resume(path), train(None))


def test_ctrl_c_on_a_full_disk_in_a_resumed_run(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    interrupt(path, 7)
    trainer = Trainer.resume(path, kernels=reference, callbacks=[StopAt(1)])
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(TrainingInterrupted, match="checkpoint of minibatch 2 of epoch 2 is"):
        trainer.fit(trainer.model, *make_data())
    monkeypatch.undo()
    assert_same_run(resume(path), train(None))


@pytest.mark.filterwarnings("ignore:loss is:RuntimeWarning")
def test_weights_that_are_not_finite_do_not_replace_finite_ones(tmp_path):
    path = tmp_path / "run.npz"
    options = {"learning_rate": lambda epoch: 0.1 if epoch < 3 else 3e38}
    model, _ = train(path, **options)
    assert not np.isfinite(model.W).all()
    trainer = Trainer.resume(path, learning_rate=0.1)
    assert np.isfinite(trainer.model.W).all()
    assert len(trainer.history) == 2
    # Ctrl-C then points at that one.
    interruption = interrupt(path, 18, **options)
    assert "the checkpoint of the end of epoch 2 is" in str(interruption)


# Processes that are killed ----------------------------------------------------------------------

PROGRAM = """
    import os, signal, sys, time
    import numpy as np
    from softmax_ext import SoftmaxModel, Trainer, reference

    path, pause, n_epochs = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    rng = np.random.default_rng(5)
    y = rng.integers(0, 4, 203)
    X = (rng.normal(size=(4, 6))[y] * 2 + rng.normal(size=(203, 6))).astype(np.float32)

    class Slow:
        def on_batch_end(self, event):
            time.sleep(pause)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("ready", flush=True)
    if os.path.exists(path):
        trainer = Trainer.resume(path, callbacks=[Slow()], kernels=reference)
        model = trainer.model
    else:
        trainer = Trainer(
            epochs=n_epochs, batch_size=50, momentum=0.9, callbacks=[Slow()],
            checkpoint=path, kernels=reference,
        )
        model = SoftmaxModel.zeros(6, 4)
    trainer.fit(model, X, y)
"""


def start(path, pause, n_epochs):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), path, str(pause), str(n_epochs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_145_killed_at_any_moment(tmp_path):
    """kill -9, and on from the file, until the run has come to its end."""
    path = tmp_path / "run.npz"
    n_epochs = 150
    whole = train(None, momentum=0.9, epochs=n_epochs)
    moments = random.Random(1)
    n_killed = 0
    for attempt in range(100):
        process = start(path, 0.0, n_epochs)
        try:
            # The last attempts run to the end.
            process.wait(moments.uniform(0.0, 0.1) if attempt < 6 else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            n_killed += 1
        process.communicate()
        if path.exists():
            Trainer.resume(path)
        if process.returncode == 0:
            break
    assert n_killed > 0
    assert_same_run(resume(path), whole)


def test_ctrl_c_of_a_process(tmp_path):
    path = tmp_path / "run.npz"
    process = start(path, 0.01, 100)
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "TrainingInterrupted: interrupted " in stderr
    assert f"the checkpoint of this step is {path}" in stderr
    assert_same_run(resume(path), train(None, momentum=0.9, epochs=100))


# Damaged and hostile files ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The content of a good checkpoint."""
    path = tmp_path_factory.mktemp("sound") / "run.npz"
    interrupt(path, 7, momentum=0.9)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path, sound):
    """A file with it."""
    path = tmp_path / "run.npz"
    path.write_bytes(sound)
    return path


def test_models_and_checkpoints_are_not_confused(path):
    with pytest.raises(ModelFormatError, match="a softmax_ext checkpoint file, not a softm"):
        SoftmaxModel.load(path)
    SoftmaxModel.zeros(D, C).save(path)
    with pytest.raises(ModelFormatError, match="a softmax_ext model file, not a softmax_ext check"):
        Trainer.resume(path)


def test_missing_files_are_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        Trainer.resume(tmp_path / "none.npz")


@settings(max_examples=200)
@given(position=st.floats(0, 1, exclude_max=True), flipped=st.integers(1, 255), cut=st.booleans())
def test_142_damage(tmp_path_factory, sound, position, flipped, cut):
    path = tmp_path_factory.mktemp("damage") / "run.npz"
    damaged = bytearray(sound)
    place = int(position * len(sound))
    damaged[place] ^= flipped
    if cut:
        del damaged[place:]
    path.write_bytes(damaged)
    try:
        trainer = Trainer.resume(path)
    except ModelFormatError:
        return
    # Only what no reader looks at may have changed.
    resaved = path.with_name("again.npz")
    trainer.checkpoint = str(resaved)
    softmax_ext.training.checkpoint.write(trainer.checkpoint, trainer, trainer._run)
    assert resaved.read_bytes() == sound


def npy(array):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version=(1, 0))
    return file.getvalue()


def forge(path, changes):
    """Change entries of a checkpoint and give it the right digest; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        entries = {name[:-4]: archive.read(name) for name in archive.namelist()}
    del entries["sha256"]
    entries.update((name, None if new is None else npy(new)) for name, new in changes.items())
    entries = {name: data for name, data in entries.items() if data is not None}
    digest = hashlib.sha256(b"".join(f"{name}\n".encode() + data for name, data in entries.items()))
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**entries, "sha256": npy(digest.hexdigest())}.items():
            archive.writestr(f"{name}.npy", data)


def test_a_forged_file_without_changes_is_sound(path):
    """What follows are changes of this one."""
    forge(path, {})
    assert_same_run(resume(path), train(None, momentum=0.9))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"W": np.full((D, C), np.nan, np.float32)}, "nan or infinite"),
        ({"W": np.ones((D, C + 1), np.float32)}, "b: shape"),
        ({"velocity_W": None}, "velocity_W and momentum do not fit"),
        ({"velocity_b": None}, "velocity_b and momentum do not fit"),
        ({"momentum": 0.0}, "velocity_W and momentum do not fit"),
        ({"velocity_W": np.ones((D, 1), np.float32)}, r"velocity_W: float32 of shape \(6, 1\)"),
        ({"velocity_W": np.ones((D, C))}, r"velocity_W: float64 of shape"),
        ({"momentum": -1.0}, "momentum: -1.0 came"),
        ({"learning_rate": np.inf}, "learning_rate: inf came"),
        ({"batch_size": 0}, "batch_size: 0 came"),
        ({"epochs": [4]}, r"epochs: shape \(1,\) came, a single value"),
        ({"seed": -2}, "seed: -2 came"),
        ({"batch": -1}, "a count is negative"),
        ({"n_correct": -1}, "a count is negative"),
        ({"n_correct": 1.0}, "n_correct.npy has the dtype '<f8'"),
        ({"epoch": 2}, r"a history of shape \(1, 7\) after 2 epochs"),
        ({"epoch": -1}, "a count is negative"),
        ({"history": np.ones((1, 6))}, r"a history of shape \(1, 6\)"),
        ({"history": np.full((1, 7), np.nan)}, "NaN"),
        ({"history": np.full((1, 7), np.inf)}, "infinity"),
        ({"generator_state": np.zeros(5, np.uint64)}, r"generator_state: shape \(5,\)"),
        ({"data": ["a", "b"]}, r"data: shape \(2,\)"),
        ({"loss_sum": None}, "the entry 'loss_sum' is missing"),
        ({"format_version": 2}, "format version 2"),
        ({"extra": 1}, "unknown entry 'extra.npy'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_143_what_does_not_fit_is_refused(path, changes, message):
    forge(path, changes)
    with pytest.raises(ModelFormatError, match=message) as caught:
        Trainer.resume(path)
    assert str(path) in str(caught.value)
