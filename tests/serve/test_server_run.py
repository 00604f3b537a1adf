"""Running the server: the port is its own before anything is announced."""

import os
import signal
import socket
import threading
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

from muvera import MuveraIndex
from muvera.data.multivectors import MultiVectors
from muvera.serve.run import listen, serve

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("uvicorn", reason="the serve extra is not installed")


def vectors() -> MuveraIndex:
    return MuveraIndex.build(MultiVectors.from_arrays([np.eye(3, 4), np.ones((2, 4))]))


def test_a_port_in_use_is_said_before_anything_is_announced() -> None:
    announced: list[Any] = []
    with listen("127.0.0.1", 0) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=rf"^Port {port} of 127\.0\.0\.1 is in use. Give another port"):
            serve(vectors(), port=port, announce=lambda: announced.append(port))
    assert announced == []


def test_hosts_that_are_not_this_machine() -> None:
    with pytest.raises(OSError, match=r"There is no host 'no\.such\.host\.invalid'"):
        listen("no.such.host.invalid", 0)
    with pytest.raises(OSError, match=r"192\.0\.2\.1 is no address of this machine"):
        listen("192.0.2.1", 0)


def test_who_connects_after_the_announcement_is_answered_and_an_interrupt_stops() -> None:
    with listen("localhost", 0) as free:
        port = free.getsockname()[1]
        assert free.family == socket.AF_INET
    answers: list[int] = []

    def ask() -> None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
                answers.append(answer.status)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    asking = threading.Thread(target=ask)
    serve(vectors(), port=port, announce=asking.start)
    asking.join()
    assert answers == [200]
