"""Starts what is measured, waits until it answers, and ends it: only what was started here, by its process id."""

import os
import signal
import socket
import subprocess
import sys
import time


class Failed(Exception):
    """Something could not be started or measured; the text says what."""


RUNNING = []
KILLED = "did not end within 3 s and was killed"


class Process:
    """A program in the foreground, in a process group of its own, pinned to cores."""

    def __init__(self, name, command, cores, folder, log):
        self.name, self.command, self.log = name, [str(word) for word in command], log
        out = open(log, "wb")
        pinned = ["taskset", "-c", cores, *self.command]
        self.child = subprocess.Popen(
            pinned, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        out.close()
        RUNNING.append(self)

    @property
    def pid(self):
        return self.child.pid

    def wait_for_port(self, port, seconds):
        """Returns when the port answers."""
        deadline = time.monotonic() + seconds
        while not listens(port):
            if self.child.poll() is not None:
                self.stop()
                raise Failed(f"{self.name} ended with {self.child.returncode}: {self.last_words()}")
            if time.monotonic() > deadline:
                self.stop()
                raise Failed(f"{self.name} did not answer on port {port} within {seconds} s: {self.last_words()}")
            time.sleep(0.02)

    def last_words(self):
        with open(self.log, errors="replace") as log:
            return " / ".join(log.read().strip().splitlines()[-3:]) or "it said nothing"

    def stop(self):
        """Asks it to end; what drains for longer than three seconds is killed with its workers."""
        if self in RUNNING:
            RUNNING.remove(self)
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(3)
            except subprocess.TimeoutExpired:
                print(f"{self.name} {KILLED}", file=sys.stderr, flush=True)
        try:
            # It leads a group of its own: this reaches its workers and nothing else.
            os.killpg(self.child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self.child.wait()


def stop_all():
    for process in reversed(list(RUNNING)):
        process.stop()


def listens(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Ports:
    """Ports below the range that the kernel gives to clients, each given once."""

    def __init__(self, first=20000):
        self.next = first

    def block(self, count):
        """The first of `count` neighbouring ports that are all free."""
        while True:
            first = self.next
            taken = next((port for port in range(first, first + count) if not is_free(port)), None)
            if taken is None:
                self.next = first + count
                return first
            self.next = taken + 1
            if self.next + count > 32000:
                raise Failed(f"there are no {count} free ports between 20000 and 32000")

    def one(self):
        return self.block(1)


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False
