"""Runs the command line, so that ``python -m everlora`` is ``everlora``."""

from everlora.cli.main import main

main()
