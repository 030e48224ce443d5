"""Noise and backdoor: some attackers distract while others set a backdoor.

Attackers with an even index train on clean data and send noise instead of their
update; those with an odd index train on data with a backdoor and send their
update boosted. The noise keeps a defence busy and hides the backdoor, whose
boosted updates look tame beside it.

Knowledge: the attackers' own data, update, and numbers among the attackers.
"""

import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import backdoor
from fedaot_tff.attacks import vectors


class NoiseBackdoorData(backdoor.Backdoor):
  """The data: a `Backdoor` for attackers with an odd index."""

  def poison(self, dataset, *, attacker_index, **arguments):
    poisoned = super().poison(
        dataset, attacker_index=attacker_index, **arguments
    )
    return dataset if attacker_index % 2 == 0 else poisoned


class NoiseBackdoorUpdates(attack.OwnUpdatePoisoning):
  """The updates: noise of attackers with an even index, a boost of the others.

  The noise is `noise_scale` > 0 times longer than the attacker's own update: it
  takes a long one to lower the accuracy, since random directions in many
  dimensions do little harm. Source of the boost, `boost` > 0 times the update:
  Bagdasaryan et al., "How To Backdoor Federated Learning", AISTATS 2020; see
  `multiples.ModelReplacement`.
  """

  def __init__(self, *, noise_scale: float = 100.0, boost: float = 3.0):
    self._noise_scale = checks.check_number('noise_scale', noise_scale, above=0)
    self._boost = checks.check_number('boost', boost, above=0)

  def poison(self, update, attacker):
    return tf.cond(
        # In the graph of a computation, == would compare objects.
        tf.equal(attacker.index % 2, 0),
        lambda: vectors.noise_like(update, self._noise_scale, attacker.seed),
        lambda: self._boost * update,
    )
