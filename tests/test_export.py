"""A model in other people's forms: ONNX graphs and C headers give what the model gives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import softmax_ext as sx
from softmax_ext import SoftmaxModel

COMPILER = next(filter(None, map(shutil.which, ("gcc", "clang", "cc"))), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")

LABELS = {
    "none": None,
    "strings": ["cat", 'a "quoted" \\ ??/', "犬1", ""],
    "integers": [3, -(2**63), 2**63 - 1, -1],
    "unsigned": np.array([0, 2**64 - 1, 7, 1], np.uint64),
    "floats": [0.5, -2.25, 1e-310, 3.0],
    "bools": [True, False],
}  # fmt: skip


def make_model(labels="none", dtype=np.float32, *, bias=True, x_scale=1.0, order="C", D=30):
    rng = np.random.default_rng(7)
    classes = LABELS[labels]
    C = 4 if classes is None else len(classes)
    W = np.asarray(rng.normal(size=(D, C)).astype(dtype), order=order)
    b = rng.normal(size=C).astype(dtype) if bias else None
    return SoftmaxModel(W, b, classes, x_scale)


def make_rows(dtype, n=50, D=30):
    rng = np.random.default_rng(8)
    if dtype == np.uint8:
        return rng.integers(0, 256, (n, D), np.uint8)
    return rng.normal(size=(n, D)).astype(dtype)


# ONNX -------------------------------------------------------------------------------------------


@pytest.fixture
def session():
    """Opens a file in onnxruntime; the machine's threads are left alone."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1

    def open_file(path):
        return runtime.InferenceSession(os.fspath(path), options, ["CPUExecutionProvider"])

    return open_file


@pytest.fixture
def exported(tmp_path, session):
    pytest.importorskip("onnx")

    def export(model, **options):
        model.to_onnx(tmp_path / "model.onnx", **options)
        return session(tmp_path / "model.onnx")

    return export


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("x_scale", [1.0, 1 / 255])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("input_dtype", [None, "uint8", "float32", "float64"])
def test_onnx_runtime_computes_what_the_model_does(exported, bias, x_scale, dtype, input_dtype):
    model = make_model("strings", dtype, bias=bias, x_scale=x_scale, order="F")
    X = make_rows(np.dtype(input_dtype or dtype))
    label, p = exported(model, input_dtype=input_dtype).run(None, {"X": X})
    assert p.dtype == model.predict_proba(X).dtype
    np.testing.assert_allclose(p, model.predict_proba(X), rtol=0, atol=1e-6)
    assert label.tolist() == model.predict(X).tolist()


@pytest.mark.parametrize("labels", LABELS)
def test_onnx_labels_have_their_dtype(exported, labels):
    model, X = make_model(labels), make_rows(np.float32)
    label = exported(model).run(["label"], {"X": X})[0]
    expected = model.predict(X)
    assert label.tolist() == expected.tolist()
    assert label.dtype == (object if labels == "strings" else expected.dtype)


def test_onnx_takes_any_number_of_rows(exported):
    run = exported(make_model()).run
    for n in (1, 0, 3):
        label, p = run(None, {"X": np.zeros((n, 30), np.float32)})
        assert label.shape == (n,)
        assert p.shape == (n, 4)


@pytest.mark.parametrize("dtype", ["int32", "float16", "U1"])
def test_onnx_refuses_other_inputs(tmp_path, dtype):
    pytest.importorskip("onnx")
    with pytest.raises(TypeError, match=r"input_dtype: .* came, one of \('uint8', 'float32'"):
        make_model().to_onnx(tmp_path / "model.onnx", input_dtype=dtype)
    assert os.listdir(tmp_path) == []


def test_without_the_package_onnx_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'softmax-ext\[onnx\]'"):
        make_model().to_onnx(tmp_path / "model.onnx")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("method", ["to_onnx", "to_c"])
def test_nan_is_not_exported(tmp_path, method):
    model = make_model()
    model.W[2, 1] = np.nan
    with pytest.raises(ValueError, match="nan or infinite"):
        getattr(model, method)(tmp_path / "model")
    assert os.listdir(tmp_path) == []


# scikit-learn's estimators -----------------------------------------------------------------------


@pytest.fixture
def converted(tmp_path, session):
    pytest.importorskip("skl2onnx")
    import skl2onnx

    import softmax_ext.sklearn.onnx  # noqa: F401  (registers)

    def convert(estimator, X, **options):
        options = {"zipmap": False, **options}
        graph = skl2onnx.to_onnx(estimator, X[:1], options=options)
        path = tmp_path / "estimator.onnx"
        path.write_bytes(graph.SerializeToString())
        return session(path)

    return convert


@pytest.mark.parametrize("labels", ["bools", "strings", "none"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("name", ["LogisticRegression", "SoftmaxRegression"])
def test_skl2onnx_converts_the_estimators(converted, labels, dtype, name):
    from softmax_ext import sklearn

    estimator = getattr(sklearn, name)(C=0.1, fit_intercept=labels != "none")
    if name == "SoftmaxRegression":
        estimator.set_params(x_scale=1 / 255 if dtype == np.uint8 else 0.5)
    classes = np.arange(3) if LABELS[labels] is None else np.array(LABELS[labels])
    X = make_rows(dtype) if np.dtype(dtype).kind != "i" else make_rows(np.uint8).astype(dtype)
    if name == "LogisticRegression" and np.dtype(dtype).kind != "f":
        X = X // 64
    estimator.fit(X, classes[np.arange(len(X)) % len(classes)])
    assert np.ptp(estimator.predict_proba(X)) > 0.1
    label, p = converted(estimator, X).run(None, {"X": X})
    np.testing.assert_allclose(p, estimator.predict_proba(X), rtol=0, atol=1e-6)
    assert label.tolist() == estimator.predict(X).tolist()


def test_skl2onnx_converts_a_pipeline_and_keeps_its_options(converted):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from softmax_ext.sklearn import LogisticRegression

    X = make_rows(np.float32)
    y = np.array(["cat", "dog", "hen"])[np.arange(50) % 3]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    label, p = converted(model, X).run(None, {"X": X})
    np.testing.assert_allclose(p, model.predict_proba(X), rtol=0, atol=1e-6)
    assert label.tolist() == model.predict(X).tolist()
    indices, maps = converted(model, X, zipmap=True, nocl=True).run(None, {"X": X})
    assert indices.tolist() == np.searchsorted(model.classes_, model.predict(X)).tolist()
    assert maps[0] == pytest.approx(dict(enumerate(model.predict_proba(X[:1])[0])), abs=1e-6)


def test_skl2onnx_is_told_what_it_cannot_have(converted):
    from softmax_ext.sklearn import LogisticRegression

    X = make_rows(np.float32)
    large = LogisticRegression().fit(X, np.array([0, 2**63], np.uint64)[np.arange(50) % 2])
    with pytest.raises(ValueError, match="strings or 64-bit integers were wanted"):
        converted(large, X)
    with pytest.raises(TypeError, match="input Int32TensorType came, one of .*UInt8TensorType"):
        converted(LogisticRegression().fit(X, np.arange(50) % 2), X.astype(np.int32))


# C ----------------------------------------------------------------------------------------------

PROGRAM = """
#include <stdio.h>
#include "model.h"

int main(void)
{
    static TYPE x[MODEL_FEATURES];
    REAL z[MODEL_CLASSES], p[MODEL_CLASSES];
    while (fread(x, sizeof x, 1, stdin) == 1) {
        double k = (double)model_predict_SUFFIX(x);
        model_logits_SUFFIX(x, z);
        model_proba_SUFFIX(x, p);
        fwrite(&k, sizeof k, 1, stdout);
        fwrite(z, sizeof z, 1, stdout);
        fwrite(p, sizeof p, 1, stdout);
    }
    return 0;
}
"""

STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-unused-function", "-O2"]


def compiled_program(folder, text):
    (folder / "program.c").write_text(text)
    command = [COMPILER, "-std=c99", *STRICT, "program.c", "-o", "program", "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "program"


def in_c(folder, model, X):
    """Index, logits and probabilities of each row, of the header compiled as strict C99."""
    model.to_c(folder / "model.h", prefix="model")
    bytes_come = X.dtype == np.uint8
    real = {"float32": "float", "float64": "double"}[model.W.dtype.name]
    text = PROGRAM.replace("_SUFFIX", "_u8" if bytes_come else "").replace("REAL", real)
    program = compiled_program(
        folder, text.replace("TYPE", "unsigned char" if bytes_come else real)
    )
    done = subprocess.run([program], input=X.tobytes(), capture_output=True, check=True)
    C = model.W.shape[1]
    row = np.dtype([("k", float), ("z", model.W.dtype, (C,)), ("p", model.W.dtype, (C,))])
    return np.frombuffer(done.stdout, row)


@needs_compiler
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("x_scale", [1.0, 1 / 255])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("x_dtype", [np.uint8, None])
def test_c_computes_what_the_model_does(tmp_path, bias, x_scale, dtype, x_dtype):
    model = make_model("none", dtype, bias=bias, x_scale=x_scale, order="F")
    X = make_rows(np.dtype(x_dtype or dtype))
    rows = in_c(tmp_path, model, X)
    assert rows["k"].tolist() == model.predict(X).tolist()
    # Each logit is a sum of 30 products, in another order.
    size = np.abs(x_scale * X.astype(float)) @ np.abs(model.W)
    assert (np.abs(rows["z"] - model.logits(X)) <= 32 * np.finfo(dtype).eps * (size + 1)).all()
    own = sx.softmax(rows["z"])
    np.testing.assert_allclose(rows["p"], own, rtol=16 * np.finfo(dtype).eps, atol=1e-37)


@needs_compiler
def test_c_on_numbers_that_are_not_finite(tmp_path):
    """NaN and infinities come out as they do of the model."""
    model = SoftmaxModel(np.ones((3, 3)) + np.eye(3), None)
    X = np.array([[np.nan, 1, 2], [0, np.nan, 9], [np.inf, 0, 0], [1e9, 0, -1e9], [1, 1, 0]])
    rows = in_c(tmp_path, model, X)
    assert rows["k"].tolist() == model.predict(X).tolist()
    np.testing.assert_allclose(rows["p"], model.predict_proba(X), rtol=1e-15)


@needs_compiler
@pytest.mark.parametrize("labels", [name for name in LABELS if name != "none"])
def test_c_labels_are_the_classes(tmp_path, labels):
    model = make_model(labels)
    model.to_c(tmp_path / "model.h", prefix="Model_1")
    form = {
        "U": '"%s%c", Model_1_labels[i], 0', "b": '"%d%c", Model_1_labels[i], 0',
        "i": '"%lld%c", Model_1_labels[i], 0', "u": '"%llu%c", Model_1_labels[i], 0',
        "f": '"%.17g%c", Model_1_labels[i], 0',
    }[model.classes.dtype.kind]  # fmt: skip
    program = compiled_program(
        tmp_path,
        '#include <stdio.h>\n#include "model.h"\nint main(void) {'
        f"for (int i = 0; i < MODEL_1_CLASSES; i++) printf({form}); return 0; }}\n",
    )
    done = subprocess.run([program], capture_output=True, check=True)
    printed = done.stdout.decode().split("\0")[:-1]
    assert [type(label)(text) if labels != "bools" else text == "1"
            for text, label in zip(printed, model.classes.tolist(), strict=True)
            ] == model.classes.tolist()  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_c_weights_are_exact(tmp_path, dtype):
    """Subnormal, largest and all else between: the logits of unit vectors are the weights' bits."""
    info = np.finfo(dtype)
    weights = [info.smallest_subnormal, info.max, -info.tiny, 1 / 3, -0.0, 0.1, info.eps, -1e5]
    model = SoftmaxModel(np.array(weights, dtype)[:, None], None)
    rows = in_c(tmp_path, model, np.eye(8, dtype=dtype))
    assert rows["z"].ravel().tolist() == model.W.ravel().tolist()


@pytest.mark.parametrize("prefix", ["", "1st", "a-b", "a b", "é", "a\n"])
def test_c_refuses_what_is_no_name(tmp_path, prefix):
    with pytest.raises(ValueError, match="prefix: .* came, letters, digits and _ were wanted"):
        make_model().to_c(tmp_path / "model.h", prefix=prefix)
    assert os.listdir(tmp_path) == []


def test_c_refuses_a_model_without_features(tmp_path):
    with pytest.raises(ValueError, match=r"W: shape \(0, 3\) came, at least one feature"):
        SoftmaxModel(np.zeros((0, 3)), np.zeros(3)).to_c(tmp_path / "model.h")
