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
    'AGREEMENT_STATISTICS': 'fedaot',
    'attack_names': 'fedaot_tff.attacks.registry',
    'Attacker': 'fedaot_tff.attacks.attack',
    'build_attacked_fed_avg': 'fedaot_tff.learning.fed_avg',
    'build_fedaot_fed_avg': 'fedaot_tff.learning.fed_avg',
    'check_model': 'fedaot_tff.learning.model_mirror',
    'ClientDatasets': 'fedaot_tff.simulation.client_datasets',
    'CohortSampler': 'fedaot_tff.simulation.cohort',
    'CollusivePoisoning': 'fedaot_tff.attacks.attack',
    'DataPoisoning': 'fedaot_tff.attacks.attack',
    'fedaot_factory': 'fedaot_tff.aggregators.fedaot',
    'FedAOTConfig': 'fedaot',
    'fltrust_factory': 'fedaot_tff.aggregators.holdout_rules',
    'get_attack': 'fedaot_tff.attacks.registry',
    'HoldOut': 'fedaot_tff.aggregators.holdout',
    'holdout_finetuned_mean_factory': (
        'fedaot_tff.aggregators.holdout_rules'
    ),
    'HOLDOUT_STATISTICS': 'fedaot',
    'Knowledge': 'fedaot_tff.attacks.attack',
    'OwnUpdatePoisoning': 'fedaot_tff.attacks.attack',
    'set_in_process_execution_context': 'fedaot_tff.runtime.execution_context',
    'set_native_execution_context': 'fedaot_tff.runtime.execution_context',
    'synchronize_model': 'fedaot_tff.learning.model_mirror',
    'train_rounds': 'fedaot_tff.simulation.training',
    'UpdatePoisoning': 'fedaot_tff.learning.adversary',
}
_MODULE_OF.update(
    dict.fromkeys(
        (
            'adaptive_clipping_factory',
            'bucketing_factory',
            'bulyan_factory',
            'centered_clipping_factory',
            'coordinate_median_factory',
            'divide_and_conquer_factory',
            'flame_factory',
            'foolsgold_factory',
            'geometric_median_factory',
            'krum_factory',
            'median_norm_bounding_factory',
            'minimum_diameter_averaging_factory',
            'nearest_neighbor_mixing_factory',
            'sign_guard_factory',
            'trimmed_mean_factory',
        ),
        'fedaot_tff.aggregators.rule_factory',
    )
)

__all__ = tuple(sorted(_MODULE_OF))


def __getattr__(name: str) -> Any:
  if name not in _MODULE_OF:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  value = getattr(importlib.import_module(_MODULE_OF[name]), name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
