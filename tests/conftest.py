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


@pytest.fixture(scope="session")
def with_a_branch():
    """Return a function that ends an ONNX file with an If, which is not converted to torch and changes no answer."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def add(path):
        model = onnx.load(path)
        last = model.graph.output[0].name
        for node in model.graph.node:
            node.output[:] = ["before" if name == last else name for name in node.output]
        branches = {
            f"{name}_branch": helper.make_graph(
                [helper.make_node("Identity", ["before"], [name])],
                name,
                [],
                [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
            )
            for name in ("then", "else")
        }
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
        model.graph.node.extend(
            [
                helper.make_node("ReduceMax", ["before"], ["top"], keepdims=0, name="top"),
                helper.make_node("Greater", ["top", "zero"], ["positive"], name="positive"),
                helper.make_node("If", ["positive"], [last], name="branch", **branches),
            ]
        )
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path

    return add
