"""The engines that run a model: LiteRT on CPUs, TensorFlow on GPUs."""
