"""Stop a process at each system call that changes files, and kill it there.

The process is a fork of this one: it stops itself, runs a function, and ends. What it does on its
main thread is seen, what other threads do is not; the kill ends all of them. x86-64 Linux.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
from collections.abc import Callable
from typing import NamedTuple

SUPPORTED = platform.machine() == "x86_64"

TRACEME, SETOPTIONS, GETREGS, SETREGS, SYSCALL, SYSCALL_INFO = 0, 0x4200, 12, 13, 24, 0x420E
TRACE_SYSGOOD, EXIT_KILL = 1, 0x100000
SYSCALL_STOP = signal.SIGTRAP | 0x80
ENTRY, EXIT = 1, 2
O_CREAT = os.O_CREAT
REGISTERS = 27  # of user_regs_struct, 8 bytes each; rdx is number 12
RDX = 12

CHANGING = {
    1: "write", 18: "pwrite", 296: "pwritev", 74: "fsync", 75: "fdatasync", 77: "ftruncate",
    82: "rename", 264: "rename", 316: "rename", 87: "unlink", 263: "unlink", 86: "link",
    265: "link", 257: "open", 26: "msync", 285: "fallocate", 83: "mkdir", 258: "mkdir",
}  # fmt: skip

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Call(NamedTuple):
    """A system call that changes files, before it runs or after."""

    number: int  # from 0, among those of the process
    name: str
    args: tuple[int, ...]
    after: bool


def ptrace(request: int, pid: int, address: int = 0, data: object = 0) -> int:
    """`ptrace(2)`; `OSError` when it fails."""
    result: int = libc.ptrace(request, pid, address, data)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace {request}: {os.strerror(number)}")
    return result


def launch(work: Callable[[], None]) -> int:
    """A fork that runs *work*, stopped before it begins; exit status 0 when it returned."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ptrace(TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            work()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSTOPPED(status), status
    ptrace(SETOPTIONS, pid, 0, TRACE_SYSGOOD | EXIT_KILL)
    return pid


def shorten(pid: int) -> None:
    """Have the write that *pid* is about to make end after half of its bytes."""
    registers = (ctypes.c_ulonglong * REGISTERS)()
    ptrace(GETREGS, pid, 0, ctypes.cast(registers, ctypes.c_void_p))
    registers[RDX] //= 2
    ptrace(SETREGS, pid, 0, ctypes.cast(registers, ctypes.c_void_p))


def follow(work: Callable[[], None], at: Callable[[int, Call], bool]) -> bool:
    """Run *work* in a fork; *at* is called with its pid at each call, and kills it with true.

    Whether it was killed; `AssertionError` when it failed.
    """
    pid = launch(work)
    info = ctypes.create_string_buffer(88)
    number = -1
    call: Call | None = None
    pending = 0
    while True:
        ptrace(SYSCALL, pid, 0, pending)
        pending = 0
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, f"the work ended with {status}"
            return False
        assert os.WIFSTOPPED(status), f"the work was ended by {status}"
        if os.WSTOPSIG(status) != SYSCALL_STOP:
            pending = os.WSTOPSIG(status)
            continue
        ptrace(SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.cast(info, ctypes.c_void_p))
        if info.raw[0] == EXIT:
            if call is not None and at(pid, call._replace(after=True)):
                return kill(pid)
            call = None
            continue
        nr, *args = struct.unpack_from("<7Q", info.raw, 24)
        name = CHANGING.get(nr)
        if name is None or (name == "open" and not args[2] & O_CREAT):
            continue
        number += 1
        call = Call(number, name, tuple(args), after=False)
        if at(pid, call):
            return kill(pid)


def kill(pid: int) -> bool:
    """End *pid* where it stands."""
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), status
    return True


def isolated(work: Callable[[], object]) -> str:
    """What goes wrong with *work* in a fork of its own, as a line; empty for nothing."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        try:
            work()
        except BaseException as exc:
            os.write(write_end, f"{type(exc).__name__}: {exc}"[:4000].encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    return said or (f"ended with {status}" if status else "")
