"""Programs, run with `python -m binaries.NAME`; `--help` tells their flags."""

try:
  import absl

  import fedaot_tff
except ImportError as error:
  raise SystemExit(
      f'binaries: {error} (`make demo` installs what programs need in .venv)'
  ) from error
