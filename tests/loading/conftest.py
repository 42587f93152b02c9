import socket

import pytest


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Loading opens no connection; a test that tries fails."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
