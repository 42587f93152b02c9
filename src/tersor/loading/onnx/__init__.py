"""ONNX graphs become torch modules, checked against ONNX Runtime."""
