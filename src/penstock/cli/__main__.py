"""`python -m penstock.cli`: the `penstock` command of one certain interpreter."""

from penstock.cli import main

main()
