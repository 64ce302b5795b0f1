"""Runs the command: python -m piqueue."""

import sys

from piqueue.cli import main

if __name__ == "__main__":
    sys.exit(main())
