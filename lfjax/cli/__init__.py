"""The command `lfjax`: the Python API from the shell. Each module holds a few commands; `main` names them all."""

from lfjax._lazy import load

load("typer", "the command lfjax")
