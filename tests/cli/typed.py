"""What the tests of the command line type."""

import pathlib

ROOT = pathlib.Path(__file__).parents[2]
DIGITS_HERE = "--config=ROOT/configs/digits.py:debug"
CELEBA_HERE = "--config=ROOT/configs/celeba.py:debug"
