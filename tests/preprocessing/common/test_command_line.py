"""A command names the extra whose package is not installed, and ends in order where a signal stops it."""

import signal
import subprocess
import sys

import pytest


def run_without(package: str, module: str, *arguments: str) -> subprocess.CompletedProcess:
    """A command in a process of its own, in which `package` cannot be imported."""
    script = (
        f"import runpy, sys; sys.modules[{package!r}] = None; sys.argv = [{module!r}, *{list(arguments)!r}];"
        f" runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("package", "extra", "module", "arguments"),
    [
        ("polars", "ehr", "preprocessing.meds", ["--input=in", "--output=out"]),
        ("sklearn", "eval", "eval.tokenization", ["--tokenizer=tok", "--output=out"]),
        ("scipy", "eval", "eval.compare", ["--tokenizers=a,b", "--output=out"]),
    ],
)
def test_a_package_that_is_missing_is_one_sentence(package, extra, module, arguments, tmp_path):
    ended = run_without(package, module, *arguments)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert f"Python package {package}" in ended.stderr
    assert f"pip install 'medtok_jax[{extra}]'" in ended.stderr


STOPPED = """
import atexit, os, signal, threading
from preprocessing.common import command_line

def main(argv):
    atexit.register(print, "exit functions ran")
    if argv[1:] == ["jax"]:
        import jax
        work = jax.jit(lambda x: jax.lax.fori_loop(0, 10**9, lambda _, y: y @ x, x))
        pending = work(jax.numpy.eye(200))
    threading.Timer(0.2, os.kill, (os.getpid(), signal.NUMBER)).start()
    threading.Event().wait(60)

command_line.run(main)
"""


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("arguments", [[], ["jax"]], ids=["without JAX", "while JAX computes"])
def test_a_stopped_command_ends_at_once_and_in_order(number, arguments):
    script = STOPPED.replace("NUMBER", number.name)
    ended = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 128 + number
    assert ended.stderr.splitlines() == [
        "error: interrupted; nothing was left half-written, run the same command again to go on."
    ]
    assert ended.stdout == "exit functions ran\n"


REFUSED = """
import errno, os
from preprocessing.common import command_line

def main(argv):
    raise OSError(getattr(errno, argv[1]), os.strerror(getattr(errno, argv[1])), *argv[2:])

command_line.run(main)
"""


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ENOSPC", "out/a"], "error: out/a cannot be read or written (No space left on device); make room there"),
        (["EFBIG"], "error: a file cannot be read or written (File too large); make room there"),
        (["EIO", "in/a"], "error: in/a cannot be read or written (Input/output error, in <string>:6); check the path"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(arguments, sentence):
    ended = subprocess.run([sys.executable, "-c", REFUSED, *arguments], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(sentence)
    assert line.endswith(".")


@pytest.mark.integration
def test_a_reader_that_wants_no_more_is_no_error():
    script = "from preprocessing.common import command_line\ncommand_line.run(lambda _: print('line\\n' * 10**6))"
    command = f"'{sys.executable}' -c \"$0\" | head -n 1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command, script], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (141, "line\n", "")
