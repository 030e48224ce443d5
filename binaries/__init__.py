"""Programs, run with `python -m binaries.NAME`; `--help` tells their flags."""
