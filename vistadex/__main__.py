"""`python -m vistadex` is the command `vistadex`."""

from vistadex.cli import main

main()
