"""The parts that scripts/bench.py starts: something to fetch, and two things to compare with."""
