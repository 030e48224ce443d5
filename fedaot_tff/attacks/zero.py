"""Zero updates: the attackers contribute nothing."""

import tensorflow as tf

from fedaot_tff.attacks import attack


class Zero(attack.OwnUpdatePoisoning):
  """Sends zeros, the update of a client that returns the model it received.

  In a mean a fraction f / n of such clients makes the step 1 - f / n times as
  long.

  Knowledge: none. Source: the plain free-riders of Fraboni, Vidal and Lorenzi,
  "Free-rider Attacks on Model Aggregation in Federated Learning", AISTATS 2021.
  """

  def poison(self, update: tf.Tensor, attacker: attack.Attacker) -> tf.Tensor:
    """See `OwnUpdatePoisoning.poison`."""
    del attacker
    return tf.zeros_like(update)
