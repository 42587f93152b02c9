"""Keras models through the whole chain: from TensorFlow's file to a certified ONNX file and a smaller Keras file."""
