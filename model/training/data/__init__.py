"""Reads, checks and augments the pictures and labels of a data set."""
