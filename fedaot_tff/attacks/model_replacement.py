"""Model replacement: updates boosted until the mean becomes theirs."""

from typing import Optional

import tensorflow as tf

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import checks


class ModelReplacement(attack.OwnUpdatePoisoning):
  """Sends the own update boosted by n / f.

  With n clients in the cohort, f of them attackers, the plain mean of the
  updates becomes the mean of the attackers' own updates plus (n - f) / n times
  the mean of the honest ones. Once the model has nearly converged, honest
  updates are small and the attackers' model replaces the global one.

  It does its harm together with poisoned data: the attackers train on data with
  a backdoor, `backdoor.Backdoor`, which the attack of this name in the registry
  adds.

  Knowledge: the attacker's own update, and n and f of the round. Source:
  Bagdasaryan, Veit, Hua, Estrin and Shmatikov, "How To Backdoor Federated
  Learning", AISTATS 2020, whose scaling factor is n / eta with eta the server's
  learning rate, here 1, and one attacker; here the f attackers share the boost.
  """

  def __init__(self, *, boost: Optional[float] = None):
    """Initializes `ModelReplacement`.

    Args:
      boost: How many times larger than the attacker's own update; positive.
        None (default) for n / f of the round.

    Raises:
      TypeError: If `boost` is not a number.
      ValueError: If it is not positive and finite.
    """
    self._boost = (
        None if boost is None else checks.check_positive('boost', boost)
    )

  def poison(self, update: tf.Tensor, attacker: attack.Attacker) -> tf.Tensor:
    """See `OwnUpdatePoisoning.poison`."""
    if self._boost is not None:
      return self._boost * update
    boost = attacker.num_clients / attacker.num_attackers
    return tf.cast(boost, tf.float32) * update
