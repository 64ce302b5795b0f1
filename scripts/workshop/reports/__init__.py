"""Scores pictures, and calculates and draws what the reports of models contain."""
