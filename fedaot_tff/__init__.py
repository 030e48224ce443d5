"""Byzantine-robust federated learning for TensorFlow Federated.

Public names are imported when they are first used, so that `import fedaot_tff`
and the modules that need no TensorFlow stay quick.
"""

import functools
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
    'get_attack': 'fedaot_tff.attacks.registry',
    'HoldOut': 'fedaot_tff.aggregators.holdout',
    'holdout_finetuned_mean_factory': ('fedaot_tff.aggregators.holdout_rules'),
    'HOLDOUT_STATISTICS': 'fedaot',
    'Knowledge': 'fedaot_tff.attacks.attack',
    'OwnUpdatePoisoning': 'fedaot_tff.attacks.attack',
    'set_in_process_execution_context': 'fedaot_tff.runtime.execution_context',
    'set_native_execution_context': 'fedaot_tff.runtime.execution_context',
    'set_ray_execution_context': 'fedaot_tff.runtime.execution_context',
    'synchronize_model': 'fedaot_tff.learning.model_mirror',
    'train_rounds': 'fedaot_tff.simulation.training',
    'TrainingPoisoning': 'fedaot_tff.learning.adversary',
    'UpdatePoisoning': 'fedaot_tff.learning.adversary',
}


@functools.cache
def _public_modules():
  """`_MODULE_OF` with the factories of what `fedaot.rules` has."""
  # pylint: disable-next=g-import-not-at-top
  from fedaot_tff.aggregators import registry

  kinds = {False: 'rule_factory', True: 'holdout_rules'}
  return _MODULE_OF | {
      name: f'fedaot_tff.aggregators.{kinds[make.needs_root]}'
      for name, make in registry.FACTORIES.items()
  }


def __getattr__(name: str) -> Any:
  if name == '__all__':
    return tuple(sorted(_public_modules()))
  module = _MODULE_OF.get(name) or (
      _public_modules().get(name) if name.endswith('_factory') else None
  )
  if module is None:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  value = getattr(importlib.import_module(module), name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *_public_modules()})
