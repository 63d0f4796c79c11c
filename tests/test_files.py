"""What outputs do to the files, pipes and devices that they are pointed at."""

import contextlib
import csv
import errno
import importlib.util
import io
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from softmax_ext import SoftmaxModel, Trainer, _files, cli
from softmax_ext.training import History, HistoryRow

MODEL = SoftmaxModel(np.arange(8.0).reshape(4, 2), [0.5, -0.5])
HISTORY = History([HistoryRow(1, 0.5, 0.75, 0.25, 0.5, 2.0, 500.0)])

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def inputs():
    MODEL.save("model.npz")
    np.save("X.npy", np.eye(4))
    assert cli.main(["predict", "model.npz", "X.npy", "--out", "labels.csv"]) == 0
    return Path("labels.csv").read_bytes()


def predict(out):
    return cli.main(["predict", "model.npz", "X.npy", "--out", out])


def run(program, *args, **options):
    """A program in a process of its own."""
    words = [sys.executable, "-c", textwrap.dedent(program), *args]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, **options)


OUTPUTS = {
    "model": MODEL.save,
    "history": HISTORY.to_csv,
    "predictions": lambda path: predict(os.fspath(path)),
}
outputs = pytest.mark.parametrize("write", OUTPUTS.values(), ids=OUTPUTS)


def failure_of(write, path, capsys):
    """The message of a write that fails, raised or printed."""
    try:
        status = write(path)
    except OSError as error:
        return str(error)
    assert status == 1
    return capsys.readouterr().err


# What is no regular file ------------------------------------------------------------------------


@contextlib.contextmanager
def reader_of(path):
    """A list that holds, when the block is left, what was written to a FIFO."""
    received = []
    thread = threading.Thread(target=lambda: received.append(Path(path).read_bytes()), daemon=True)
    thread.start()
    yield received
    thread.join(60)


@outputs
def test_a_fifo_is_written_to(inputs, write):
    os.mkfifo("fifo")
    with reader_of("fifo") as received:
        write("fifo")
    assert stat.S_ISFIFO(os.stat("fifo").st_mode)
    write("file")
    if received[0].startswith(b"PK"):  # an archive that is written forwards only
        Path("received").write_bytes(received[0])
        assert SoftmaxModel.load("received").W.tolist() == MODEL.W.tolist()
    else:
        assert received == [Path("file").read_bytes()]


@root_only
@outputs
def test_a_device_is_written_to(inputs, write, capsys):
    """The like of /dev/null and /dev/full: code that is wrong would destroy those, for all."""
    for name, minor in (("null", 3), ("full", 7)):
        try:
            os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
            os.close(os.open(name, os.O_WRONLY))
        except PermissionError:
            pytest.skip("no devices can be made here")
    os.symlink("null", "link")
    for name in ("null", "link"):
        write(name)
        assert stat.S_ISCHR(os.stat(name).st_mode)
    assert re.search("full.*No space|No space.*full", failure_of(write, "full", capsys))
    assert stat.S_ISCHR(os.stat("full").st_mode)
    assert not [name for name in os.listdir() if name.endswith(".tmp")]


def test_a_socket_is_refused_and_stays(inputs, capsys):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(OSError, match="'socket'"):
            MODEL.save("socket")
        assert predict("socket") == 1
    assert capsys.readouterr().err.startswith("softmax-ext predict: error: socket: ")
    assert stat.S_ISSOCK(os.stat("socket").st_mode)


@pytest.mark.parametrize("name", ["/dev/fd/1", "/proc/self/fd/1", "stdout"])
@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_standard_output_is_written_to(inputs, name, mode):
    """A regular file behind it neither loses its name nor what others write to it."""
    os.symlink("/proc/self/fd/1", "stdout")  # as /dev/stdout is one, and must stay it
    Path("all").write_bytes(b"old\n")
    with open("all", mode) as file:
        file.write(b"before\n")
        file.flush()
        words = ["predict", "model.npz", "X.npy", "--out", name]
        subprocess.run([sys.executable, "-m", "softmax_ext", *words], stdout=file, check=True)
        file.write(b"after\n")
    old = b"old\n" if mode == "ab" else b""
    assert Path("all").read_bytes() == old + b"before\n" + inputs + b"after\n"


def test_a_model_is_appended_to_standard_output():
    Path("all").write_bytes(b"")
    program = "import softmax_ext as sx; sx.SoftmaxModel.load('model.npz').save('/dev/fd/1')"
    MODEL.save("model.npz")
    with open("all", "ab") as file:
        subprocess.run([sys.executable, "-c", program], stdout=file, check=True)
    assert SoftmaxModel.load("all").W.tolist() == MODEL.W.tolist()


def test_a_descriptor_that_cannot_be_written_to_is_named():
    with open("file", "wb"), open("file", "rb") as file:
        name = f"/dev/fd/{file.fileno()}"
        with pytest.raises(OSError, match=f"Bad file descriptor: '{name}'"):
            HISTORY.to_csv(name)
    with pytest.raises(OSError, match="Bad file descriptor: '/dev/fd/4567'"):
        HISTORY.to_csv("/dev/fd/4567")


@pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="no bash here")
def test_process_substitution(inputs):
    softmax_ext = f"{sys.executable} -m softmax_ext"
    script = f"""
        {softmax_ext} predict model.npz X.npy --out >(cat > labels) && wait $!
        {softmax_ext} train --data two-by-two --epochs 1 --model-out >(cat > trained.npz) && wait $!
    """
    done = subprocess.run(
        ["/bin/bash", "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    assert Path("labels").read_bytes() == inputs
    assert SoftmaxModel.load("trained.npz").classes.tolist() == ["cat", "chicken", "dog"]
    assert "model.checkpoint.npz" not in os.listdir()


def test_a_folder_or_a_fifo_is_no_model_and_leaks_nothing(inputs, capsys):
    """Nobody waits for the FIFO, and the error is one line that names what it is about."""
    os.mkdir("folder")
    os.mkfifo("fifo")
    before = os.listdir("/dev/fd")
    for read in (SoftmaxModel.load, Trainer.resume):
        with pytest.raises(IsADirectoryError) as caught:
            read("folder")
        assert caught.value.filename == "folder"
    assert os.listdir("/dev/fd") == before
    for model in ("folder", "fifo", "/dev/null", "nowhere"):
        assert cli.main(["predict", model, "X.npy"]) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"softmax-ext predict: error: {model}: ")
        assert err.count("\n") == 1
        assert cli.main(["train", "--data", "two-by-two", "--resume", model]) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"softmax-ext train: error: {model}: ")
        assert err.count("\n") == 1


@outputs
def test_a_folder_is_no_output(inputs, write, capsys):
    os.mkdir("folder")
    for name, why in (("folder", "a folder; name a file in it"), ("", "No such file")):
        assert why in failure_of(write, name, capsys)
    assert os.listdir("folder") == []


# Regular files ----------------------------------------------------------------------------------


@outputs
def test_links_are_followed(inputs, write):
    os.mkdir("folder")
    os.symlink("folder/target", "inner")
    os.symlink("inner", "outer")
    for _ in range(2):  # the target is made, and replaced
        write("outer")
        assert os.path.islink("outer")
        assert os.path.islink("inner")
        assert os.path.isfile("folder/target")
    assert os.listdir("folder") == ["target"]


@outputs
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o444])
def test_the_mode_is_kept(inputs, write, mode):
    Path("file").touch()
    os.chmod("file", mode)
    write("file")
    assert stat.S_IMODE(os.stat("file").st_mode) == mode
    assert os.path.getsize("file")


def test_every_output_is_replaced_whole(inputs):
    """Not written over: another name of the old file still has the old content."""
    names = ["m.npz", "c.npz", "r/history.csv", "r/report.md", "r/curves.png", "labels.csv"]
    os.mkdir("r")
    for name in names:
        Path(name).write_text("old")
        os.link(name, f"{os.path.basename(name)}.old")
    words = ["--model-out", "m.npz", "--checkpoint", "c.npz", "--report", "r"]
    assert cli.main(["train", "--data", "two-by-two", "--epochs", "1", *words]) == 0
    assert predict("labels.csv") == 0
    if importlib.util.find_spec("matplotlib") is None:
        names.remove("r/curves.png")
    for name in names:
        assert Path(name).read_bytes() != b"old"
        assert Path(f"{os.path.basename(name)}.old").read_text() == "old"


@root_only
@outputs
def test_the_owner_is_kept(inputs, write):
    Path("file").touch()
    os.chown("file", 12345, 23456)
    os.chmod("file", 0o640)
    write("file")
    status = os.stat("file")
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 23456, 0o640)


def test_an_owner_that_cannot_be_kept_is_no_failure(monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    Path("file").touch(mode=0o600)
    monkeypatch.setattr(os, "fchown", refuse)
    HISTORY.to_csv("file")
    assert stat.S_IMODE(os.stat("file").st_mode) == 0o600
    assert os.path.getsize("file")


@outputs
@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127 + ".", "🐈" * 63], ids=len)
def test_a_name_may_have_255_bytes(inputs, write, name):
    write(name)
    assert os.path.getsize(name)


@pytest.mark.parametrize("call", ["open", "fsync"])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EACCES])
def test_a_folder_that_cannot_be_synced_is_no_failure(monkeypatch, call, number):
    """CIFS and FUSE; a folder that may be written to, but not read."""
    original = getattr(os, call)

    def refuse_folder(where, *args, **options):
        if os.path.isdir(where):
            raise OSError(number, os.strerror(number))
        return original(where, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse_folder)
        MODEL.save("model.npz")
        trainer = Trainer(epochs=1, checkpoint="run.npz")
        trainer.fit(SoftmaxModel.zeros(4, 2), np.eye(4), [0, 1, 0, 1])
    assert SoftmaxModel.load("model.npz").W.tolist() == MODEL.W.tolist()
    assert len(Trainer.resume("run.npz").history) == 1


def test_a_folder_that_may_not_be_read():
    program = """
        import os, sys
        import softmax_ext as sx
        model = sx.SoftmaxModel.zeros(4, 2)
        model.save(sys.argv[1])  # imports what nobody else may read
        if os.geteuid() == 0:
            os.setgid(65534), os.setuid(65534)
        model.save("model.npz")
    """
    # Not in tmp_path, which nobody else may enter.
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
        os.chmod(folder, 0o300)
        done = run(program, os.path.abspath("first.npz"), cwd=folder)
        os.chmod(folder, 0o700)
        assert done.stderr == ""
        assert os.listdir(folder) == ["model.npz"]


def test_an_error_of_the_disk_is_one(monkeypatch):
    def fail(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        MODEL.save("model.npz")


@outputs
def test_a_full_disk_leaves_the_old_file_and_names_it(inputs, write, monkeypatch, capsys):
    def full_disk(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    Path("file").write_text("old")
    before = sorted(os.listdir())
    monkeypatch.setattr(os, "fsync", full_disk)
    message = failure_of(write, "file", capsys)
    assert "No space left on device" in message
    assert re.search(r"\bfile\b", message)
    assert Path("file").read_text() == "old"
    assert sorted(os.listdir()) == before


def test_history_is_cut_nowhere():
    """A file that can grow no further, as on a full disk, is refused whole."""
    HISTORY.to_csv("history.csv")
    before = Path("history.csv").read_bytes()
    program = """
        import resource
        from softmax_ext.training import History, HistoryRow
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        History([HistoryRow(1, 0.5, 0.75, 0.25, 0.5, 2.0, 500.0)] * 1000).to_csv("history.csv")
    """
    assert "OSError: [Errno 27] File too large: 'history.csv'" in run(program).stderr
    assert Path("history.csv").read_bytes() == before
    assert os.listdir() == ["history.csv"]


def test_an_error_names_the_file_and_not_a_temporary_one(monkeypatch):
    def busy(source, target):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), source, None, target)

    with pytest.raises(FileNotFoundError) as caught:
        MODEL.save("none/model.npz")
    assert caught.value.filename == "none/model.npz"
    monkeypatch.setattr(os, "replace", busy)  # a file that is mounted
    with pytest.raises(OSError, match=r"busy: 'model.npz'$"):
        MODEL.save("model.npz")


# Temporary files --------------------------------------------------------------------------------

WRITER = """
    import sys
    from softmax_ext import _files
    with _files.writing(sys.argv[1]) as file:
        file.write(b"half")
        file.flush()
        print("writing", flush=True)
        sys.stdin.readline()
"""


@contextlib.contextmanager
def writer_of(path):
    """A process in the middle of writing a file."""
    words = [sys.executable, "-c", textwrap.dedent(WRITER), path]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"writing\n"
            yield process
        finally:
            process.kill()


def test_what_a_killed_writer_left_is_removed_by_the_next():
    with writer_of("model.npz") as process:
        process.send_signal(signal.SIGKILL)
    (left,) = os.listdir()
    MODEL.save("other.npz")
    assert sorted(os.listdir()) == [left, "other.npz"]
    MODEL.save("model.npz")
    assert sorted(os.listdir()) == ["model.npz", "other.npz"]


def test_what_a_living_writer_has_is_left_alone():
    with writer_of("model.npz") as process:
        before = os.listdir()
        MODEL.save("model.npz")
        assert sorted(os.listdir()) == sorted([*before, "model.npz"])
        process.communicate(b"\n")
        assert process.returncode == 0
    assert os.listdir() == ["model.npz"]
    assert Path("model.npz").read_bytes() == b"half"


def test_writers_of_one_process_leave_each_other_alone():
    with _files.writing("model.npz") as first:
        first.write(b"first")
        with _files.writing("model.npz") as second:
            second.write(b"second")
        assert Path("model.npz").read_bytes() == b"second"
    assert Path("model.npz").read_bytes() == b"first"
    assert os.listdir() == ["model.npz"]


def test_a_file_taken_for_abandoned_before_its_lock_is_made_anew(monkeypatch):
    import fcntl

    flock, removed = fcntl.flock, []

    def late(file, operation):
        if not removed:
            removed.extend(os.listdir())
            _files._remove_abandoned(".", ".model.npz.")
            assert os.listdir() == []
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    monkeypatch.setattr(_files, "_remove_unlocked", os.unlink)
    MODEL.save("model.npz")
    assert len(removed) == 1
    assert os.listdir() == ["model.npz"]


def test_temporary_names_are_random_and_only_ones_own_is_removed(monkeypatch):
    """Not of the process's number, which another machine's may share."""
    with _files.writing("model.npz") as file:
        name = os.path.basename(file.name)
    assert str(os.getpid()) not in name.split(".")
    theirs = Path(f".model.npz.{bytes(8).hex()}.tmp")
    theirs.write_text("theirs")
    monkeypatch.setattr(os, "urandom", bytes)
    monkeypatch.setattr(_files, "_remove_abandoned", lambda *_: None)
    with pytest.raises(FileExistsError):
        MODEL.save("model.npz")
    assert theirs.read_text() == "theirs"


def test_files_of_similar_names_are_nobodys():
    names = [".model.npz.tmp", ".model.npz.0123.tmp", "model.npz.0123456789abcdef.tmp"]
    for name in names:
        Path(name).touch()
    MODEL.save("model.npz")
    assert sorted(os.listdir()) == sorted([*names, "model.npz"])


def test_a_file_system_without_locks_is_written_to_and_not_tidied(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("fcntl.flock", refuse)
    theirs = Path(f".model.npz.{bytes(8).hex()}.tmp")
    theirs.touch()
    MODEL.save("model.npz")
    assert sorted(os.listdir()) == [theirs.name, "model.npz"]


def test_a_system_without_what_only_unix_has_imports_saves_and_does_not_tidy():
    theirs = Path(f".model.npz.{bytes(8).hex()}.tmp")
    theirs.touch()
    program = """
        import os, sys
        sys.modules["fcntl"] = None
        for name in ("O_NONBLOCK", "fchown", "fchmod"):
            delattr(os, name)
        import softmax_ext as sx
        for _ in range(2):
            sx.SoftmaxModel.zeros(2, 3).save("model.npz")
        print(sx.SoftmaxModel.load("model.npz"))
    """
    done = run(program)
    assert done.stdout == "SoftmaxModel(2 features, 3 classes, float32)\n", done.stderr
    assert sorted(os.listdir()) == [theirs.name, "model.npz"]


def test_names_that_are_not_utf8_go_out_as_they_came(inputs):
    name = os.fsdecode(b"X\xff.npy")
    os.rename("X.npy", name)
    assert cli.main(["predict", "model.npz", name, "--out", "labels.csv"]) == 0
    rows = list(csv.reader(io.StringIO(Path("labels.csv").read_bytes().decode("latin-1"))))
    assert rows[1][0].encode("latin-1") == b"X\xff.npy"
