"""Tests of `fedaot.flower`; they run in the environment that has Flower."""

import importlib.util
import os

# Environments of other tests have no Flower; `make test` runs both.
if importlib.util.find_spec('flwr') is None:
  collect_ignore_glob = ['*']

# Flower asks neither for updates nor reports what runs.
os.environ.update(
    FLWR_TELEMETRY_ENABLED='0',
    FLWR_DISABLE_UPDATE_CHECK='1',
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION='1',
    KERAS_BACKEND='torch',
    RAY_worker_niceness='0',
    # Models are small: threads would only wait for each other.
    OMP_NUM_THREADS='1',
)
