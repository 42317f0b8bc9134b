"""Stops one thread of a process for as long as this runs: hold_thread.py PID NAME. Says "held" when it stands still."""

import ctypes
import os
import sys
import time

SEIZE, INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000


def main(pid: str, name: str) -> None:
    tasks = f"/proc/{pid}/task"
    (thread,) = [int(task) for task in os.listdir(tasks) if open(f"{tasks}/{task}/comm").read().strip() == name]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    for request in (SEIZE, INTERRUPT):
        if libc.ptrace(request, thread, None, None) != 0:
            raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(thread, WALL)
    print("held", flush=True)
    # The kernel lets it go on when this process ends.
    while True:
        time.sleep(60)


main(*sys.argv[1:])
