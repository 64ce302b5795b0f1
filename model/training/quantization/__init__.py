"""Quantizes a trained network to int8 and holds the result to its bounds."""
