"""Kill a writer at each of its system calls, and check after each kill what readers and the next writer find.

    python -m tests.helpers.killed_writer CASE FOLDER

The writer is a forked child that is traced (`ptrace`) and killed when it enters its n-th system call, for n from 1 to
the last. Prints the number of kills; exit status 77 where this machine does not let a process trace its child.
"""

import ctypes
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from preprocessing.common import atomic, lines, locks

UNTRACED = 77
_TRACEME, _SYSCALL, _SETOPTIONS, _TRACESYSGOOD, _EXITKILL = 0, 24, 0x4200, 1, 1 << 20
_AT_SYSTEM_CALL = signal.SIGTRAP | 0x80
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
FILES = ("a", "deep/b")


def is_killed(action: Callable[[], object], number: int) -> bool:
    """Run `action` in a child that is killed at its system call of that number; return False if it made fewer."""
    child = os.fork()
    if not child:
        try:
            if _libc.ptrace(_TRACEME, 0, None, None):
                os._exit(UNTRACED)
            os.kill(os.getpid(), signal.SIGSTOP)
            action()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status):
        sys.exit(UNTRACED)
    _libc.ptrace(_SETOPTIONS, child, None, _TRACESYSGOOD | _EXITKILL)
    stops, passed_on = 0, 0
    while True:
        _libc.ptrace(_SYSCALL, child, None, passed_on)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.waitstatus_to_exitcode(status) == 0, "the writer failed by itself"
            return False
        passed_on = 0 if os.WSTOPSIG(status) == _AT_SYSTEM_CALL else os.WSTOPSIG(status)
        # A call stops the child twice: where it enters and where it leaves.
        stops += not passed_on
        if stops == 2 * number - 1:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True


def write_file(path: Path, content: str) -> None:
    """Write a file whole, in several pieces."""
    with atomic.whole_file(path) as partial, partial.open("w") as file:
        for piece in content:
            file.write(piece)
            file.flush()


def write_folder(path: Path, content: str) -> None:
    """Write a folder whole, with the same content in each file."""
    with atomic.whole_folder(path) as folder:
        for name in FILES:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(content)


def read_file(path: Path) -> str | None:
    """Return the content of a file, None where it is absent."""
    return path.read_text() if path.exists() else None


def read_folder(path: Path) -> str | None:
    """Return the content of the files of a folder, None where it is absent; it has to be complete and of one writer."""
    if not path.exists():
        return None
    found = {file.relative_to(path).as_posix(): file.read_text() for file in path.rglob("*") if file.is_file()}
    assert sorted(found) == sorted(FILES), found
    (content,) = set(found.values())
    return content


def read_recovered(path: Path) -> str | None:
    """Return what `read_folder` finds after a reader has put back what lay aside."""
    atomic.recover(path)
    return read_folder(path)


def append(path: Path, content: str) -> None:
    """Append to a file of lines."""
    lines.append_line(path, content)


def read_appended(path: Path) -> str | None:
    """Return the last complete line of a file."""
    return (lines.read_lines(path) or [None])[-1]


def write_locked(path: Path, content: str) -> None:
    """Write a file while its lock is held."""
    with locks.exclusive(path.parent, file=path.name):
        write_file(path, content)


CASES = {
    "file": (write_file, read_file),
    "folder": (write_folder, read_folder),
    "folder without exchange": (write_folder, read_recovered),
    "lines": (append, read_appended),
    "lock": (write_locked, read_file),
}


def check(case: str, root: Path) -> int:
    """Kill the writers of a case everywhere, once in a new place and once over older content; return the kills."""
    write, read = CASES[case]
    if case.endswith("without exchange"):
        atomic._exchange = lambda first, second: False
    kills = 0
    for older in (None, "older"):
        number = 0
        killed = True
        while killed:
            number += 1
            folder = root / f"{older}-{number}"
            folder.mkdir()
            path = folder / "target.d"
            if older:
                write(path, older)
            killed = is_killed(lambda path=path: write(path, "newer"), number)
            kills += killed
            allowed = {older, "newer"} if killed else {"newer"}
            if killed and number % 4 == 0:
                # The second writer is killed in turn, each time elsewhere.
                twice = is_killed(lambda path=path: write(path, "second"), 1 + 7 * number % 60)
                allowed = allowed | {"second"} if twice else {"second"}
            found = read(path)
            assert found in allowed, (number, found, allowed)
            write(path, "next")
            assert read(path) == "next"
            assert os.listdir(folder) == ["target.d"], os.listdir(folder)
            shutil.rmtree(folder)
    return kills


if __name__ == "__main__":
    print(check(sys.argv[1], Path(sys.argv[2])))
