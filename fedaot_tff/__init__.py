"""Byzantine-robust federated learning for TensorFlow Federated.

Public names are imported when they are first used, so that `import fedaot_tff`
and the modules that need no TensorFlow stay quick.
"""

import importlib
from typing import Any

from fedaot_tff import _tff_import

_tff_import.check_tff_installed()

# Public name -> the module that defines it.
_MODULE_OF = {
    '__version__': 'fedaot',
    'adaptive_clipping_factory': 'fedaot_tff.aggregators.adaptive_clipping',
    'AGREEMENT_STATISTICS': 'fedaot',
    'attack_names': 'fedaot_tff.attacks.registry',
    'Attacker': 'fedaot_tff.attacks.attack',
    'bucketing_factory': 'fedaot_tff.aggregators.bucketing',
    'build_attacked_fed_avg': 'fedaot_tff.learning.fed_avg',
    'build_fedaot_fed_avg': 'fedaot_tff.learning.fed_avg',
    'bulyan_factory': 'fedaot_tff.aggregators.bulyan',
    'centered_clipping_factory': 'fedaot_tff.aggregators.centered_clipping',
    'check_model': 'fedaot_tff.learning.model_mirror',
    'ClientDatasets': 'fedaot_tff.simulation.client_datasets',
    'CohortSampler': 'fedaot_tff.simulation.cohort',
    'CollusivePoisoning': 'fedaot_tff.attacks.attack',
    'coordinate_median_factory': 'fedaot_tff.aggregators.coordinate_median',
    'DataPoisoning': 'fedaot_tff.attacks.attack',
    'divide_and_conquer_factory': 'fedaot_tff.aggregators.divide_and_conquer',
    'fedaot_factory': 'fedaot_tff.aggregators.fedaot',
    'FedAOTConfig': 'fedaot',
    'flame_factory': 'fedaot_tff.aggregators.flame',
    'fltrust_factory': 'fedaot_tff.aggregators.fltrust',
    'foolsgold_factory': 'fedaot_tff.aggregators.foolsgold',
    'geometric_median_factory': 'fedaot_tff.aggregators.geometric_median',
    'get_attack': 'fedaot_tff.attacks.registry',
    'HoldOut': 'fedaot_tff.aggregators.holdout',
    'holdout_finetuned_mean_factory': (
        'fedaot_tff.aggregators.holdout_finetuned_mean'
    ),
    'HOLDOUT_STATISTICS': 'fedaot',
    'Knowledge': 'fedaot_tff.attacks.attack',
    'krum_factory': 'fedaot_tff.aggregators.krum',
    'median_norm_bounding_factory': (
        'fedaot_tff.aggregators.median_norm_bounding'
    ),
    'minimum_diameter_averaging_factory': (
        'fedaot_tff.aggregators.minimum_diameter_averaging'
    ),
    'nearest_neighbor_mixing_factory': (
        'fedaot_tff.aggregators.nearest_neighbor_mixing'
    ),
    'OwnUpdatePoisoning': 'fedaot_tff.attacks.attack',
    'set_in_process_execution_context': 'fedaot_tff.runtime.execution_context',
    'set_native_execution_context': 'fedaot_tff.runtime.execution_context',
    'sign_guard_factory': 'fedaot_tff.aggregators.sign_guard',
    'synchronize_model': 'fedaot_tff.learning.model_mirror',
    'train_rounds': 'fedaot_tff.simulation.training',
    'trimmed_mean_factory': 'fedaot_tff.aggregators.trimmed_mean',
    'UpdatePoisoning': 'fedaot_tff.learning.adversary',
}

__all__ = tuple(sorted(_MODULE_OF))


def __getattr__(name: str) -> Any:
  if name not in _MODULE_OF:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  value = getattr(importlib.import_module(_MODULE_OF[name]), name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
