"""Turns the bytes of a picture into RGB pixels, within limits of memory and time."""
