"""Scores pictures: decoding, models and the engines that run them, and training."""
