"""The engines that run a model: LiteRT, TensorFlow and ONNX Runtime."""
