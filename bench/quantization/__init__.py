"""Post-training integers against ONNX Runtime's own, on ResNet-20 for CIFAR-10."""
