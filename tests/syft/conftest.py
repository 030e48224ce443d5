"""Tests of the example over SyftBox; they run in an environment of its own."""

import importlib.util

if importlib.util.find_spec('syft_flwr') is None:
  collect_ignore_glob = ['*']
