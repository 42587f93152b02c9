"""What holds for every test: one thread, and no network."""

import socket

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Fail a test that connects to anything but a local socket: nothing here may need the network."""

    def refuse(self, address):
        raise AssertionError(f"a test tried to connect to {address!r}")

    connect = socket.socket.connect

    def guarded(self, address):
        local = self.family not in (socket.AF_INET, socket.AF_INET6) or address[0] in (
            "127.0.0.1",
            "::1",
            "localhost",
        )
        return connect(self, address) if local else refuse(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
