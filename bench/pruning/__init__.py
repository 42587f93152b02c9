"""Structured pruning of ResNet-20 on CIFAR-10, side by side with Torch-Pruning, one harness for both."""
