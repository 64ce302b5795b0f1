"""Trains classifiers and converts Keras classifiers into artifacts."""
