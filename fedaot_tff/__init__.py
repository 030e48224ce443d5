"""Byzantine-robust federated learning for TensorFlow Federated.

Public names are imported when they are first used, so that `import fedaot_tff`
and the modules that need no TensorFlow stay quick.
"""

import importlib
from typing import Any

from fedaot_tff import _tff_import

__version__ = '0.1.0'

_tff_import.check_tff_installed()

# Public name -> the module that defines it.
_MODULE_OF = {
    'AGREEMENT_STATISTICS': 'fedaot_tff.aggregators.fedaot_equations',
    'HOLDOUT_STATISTICS': 'fedaot_tff.aggregators.fedaot_equations',
    'CoordinateMedianFactory': 'fedaot_tff.aggregators.coordinate_median',
    'FedAOTConfig': 'fedaot_tff.aggregators.fedaot_config',
    'FedAOTFactory': 'fedaot_tff.aggregators.fedaot',
    'HoldOut': 'fedaot_tff.aggregators.holdout',
    'KrumFactory': 'fedaot_tff.aggregators.krum',
    'UnweightedFedAOTFactory': 'fedaot_tff.aggregators.fedaot',
    'build_attacked_fed_avg': 'fedaot_tff.learning.fed_avg',
    'build_fedaot_fed_avg': 'fedaot_tff.learning.fed_avg',
    'check_model': 'fedaot_tff.learning.model_mirror',
    'fedaot_factory': 'fedaot_tff.aggregators.fedaot',
    'set_native_execution_context': (
        'fedaot_tff.simulation.execution_context'
    ),
    'synchronize_model': 'fedaot_tff.learning.model_mirror',
}

__all__ = ('__version__', *sorted(_MODULE_OF))


def __getattr__(name: str) -> Any:
  if name not in _MODULE_OF:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  value = getattr(importlib.import_module(_MODULE_OF[name]), name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
