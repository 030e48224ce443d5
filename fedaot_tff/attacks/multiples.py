"""Attackers who send a multiple of their own update, and know nothing else."""

from typing import Optional

import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import attack


class SignFlip(attack.OwnUpdatePoisoning):
  """Sends -scale times the update, with scale > 0.

  Source: Li et al., "RSA: Byzantine-Robust Stochastic Aggregation Methods for
  Distributed Learning from Heterogeneous Datasets", AAAI 2019, section 5.2.
  """

  def __init__(self, *, scale: float = 3.0):
    self._scale = checks.check_number('scale', scale, above=0)

  def poison(self, update, attacker):
    del attacker
    return -self._scale * update


class Scaling(attack.OwnUpdatePoisoning):
  """Sends factor > 0 times the update.

  The direction is that of an honest client, yet in a mean the attackers' data
  outweigh all others and the step is too long. Source: the explicit boosting of
  Bhagoji, Chakraborty, Mittal and Calo, "Analyzing Federated Learning through
  an Adversarial Lens", ICML 2019, without their targeted examples.
  """

  def __init__(self, *, factor: float = 10.0):
    self._factor = checks.check_number('factor', factor, above=0)

  def poison(self, update, attacker):
    del attacker
    return self._factor * update


class ModelReplacement(attack.OwnUpdatePoisoning):
  """Sends boost > 0 times the update, by default n / f times.

  With n clients in the cohort, f of them attackers, the plain mean of the
  updates then is the mean of the attackers' own ones plus (n - f) / n times the
  mean of the honest ones: once these are small, as the model has nearly
  converged, the attackers' model replaces the global one. It does its harm
  together with poisoned data, such as `backdoor.Backdoor`.

  Knowledge: n and f of the round as well. Source: Bagdasaryan, Veit, Hua,
  Estrin and Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020,
  whose factor is n / eta with eta the server's learning rate, here 1, and one
  attacker; here the f attackers share the boost.
  """

  def __init__(self, *, boost: Optional[float] = None):
    if boost is not None:
      boost = checks.check_number('boost', boost, above=0)
    self._boost = boost

  def poison(self, update, attacker):
    if self._boost is not None:
      return self._boost * update
    boost = attacker.num_clients / attacker.num_attackers
    return tf.cast(boost, tf.float32) * update


class Zero(attack.OwnUpdatePoisoning):
  """Sends zeros; in a mean the step becomes 1 - f / n times as long.

  Source: the plain free-riders of Fraboni, Vidal and Lorenzi, "Free-rider
  Attacks on Model Aggregation in Federated Learning", AISTATS 2021.
  """

  def poison(self, update, attacker):
    del attacker
    # Not 0 times the update, which may be NaN.
    return tf.zeros_like(update)
