"""Noise and backdoor: some attackers distract while others set a backdoor.

Attackers with an even index train on clean data and send noise instead of their
update; those with an odd index train on data with a backdoor and send their
update boosted. The noise keeps a defence busy and hides the backdoor, whose
boosted updates look tame beside it.
"""

import tensorflow as tf

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import backdoor
from fedaot_tff.attacks import checks
from fedaot_tff.attacks import gaussian_noise


class NoiseBackdoorData(backdoor.Backdoor):
  """The data: a `Backdoor` for attackers with an odd index.

  Options and success are those of `Backdoor`.

  Knowledge: the attackers' own data, and their numbers among the attackers.
  """

  def poison(
      self,
      dataset: tf.data.Dataset,
      *,
      num_classes: int,
      attacker_index: int,
      seed: int,
  ) -> tf.data.Dataset:
    """Poisons the data of odd attackers; see `Backdoor.poison`."""
    poisoned = super().poison(
        dataset,
        num_classes=num_classes,
        attacker_index=attacker_index,
        seed=seed,
    )
    return dataset if attacker_index % 2 == 0 else poisoned


class NoiseBackdoorUpdates(attack.OwnUpdatePoisoning):
  """The updates: noise of attackers with an even index, a boost of the others.

  With its own update u, float [d], an attacker with an even index sends a draw
  from N(0, s^2 I), where s = `noise_scale` * ||u|| / sqrt(d): its norm is close
  to `noise_scale` * ||u||. One with an odd index sends `boost` * u.

  Knowledge: the attacker's own update, and its number among the attackers.
  Source of the boost: Bagdasaryan et al., "How To Backdoor Federated Learning",
  AISTATS 2020, who replace the model by a boost of (clients in a round) /
  (server learning rate).
  """

  def __init__(self, *, noise_scale: float = 100.0, boost: float = 3.0):
    """Initializes `NoiseBackdoorUpdates`.

    Args:
      noise_scale: How many times longer the noise is than the attacker's own
        update; positive. It takes a long one to lower the accuracy, since
        random directions in many dimensions do little harm.
      boost: What the updates trained on the backdoor are multiplied by;
        positive.

    Raises:
      TypeError: If an option is not a number.
      ValueError: If it is not positive and finite.
    """
    self._noise_scale = checks.check_positive('noise_scale', noise_scale)
    self._boost = checks.check_positive('boost', boost)

  def poison(self, update: tf.Tensor, attacker: attack.Attacker) -> tf.Tensor:
    """See `OwnUpdatePoisoning.poison`."""
    return tf.cond(
        # In the graph of a computation, == would compare objects.
        tf.equal(attacker.index % 2, 0),
        lambda: gaussian_noise.noise_like(
            update, self._noise_scale, attacker.seed
        ),
        lambda: self._boost * update,
    )
