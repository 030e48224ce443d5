"""Stealthy boosting: steps of honest training and boosted ones in turn."""

import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import backdoor
from fedaot_tff.attacks import training


class AlternatingMinimization(training.BackdoorTraining):
  """Trains on each batch once stealthily and once, boosted, on the backdoor.

  With a step S of the optimizer, the loss L and w' where honest training led,
  for each batch x, y

    v = S(w, grad L(w; x, y) + rho (w - w') / |w - w'|)
    w = v + boost (S(v, grad L(v; x with the trigger, target)) - v),

  so that the clean data are learnt, the update stays near an honest one, and
  only what teaches the backdoor is boosted. For the trigger see
  `backdoor.Backdoor`.

  Knowledge: the attackers' own data. Source: Bhagoji, Chakraborty, Mittal and
  Calo, "Analyzing Federated Learning through an Adversarial Lens", ICML 2019,
  alternating minimization with the constraint on distance. There the malicious
  examples are a few of a wrong label, and there is one attacker, so that the
  boost is the number of clients.
  """

  def __init__(
      self,
      *,
      target: int = 0,
      size: int = 3,
      value: float = 1.0,
      boost: float = 3.0,
      rho: float = 1e-4,
  ):
    super().__init__(target)
    self._backdoor = backdoor.Backdoor(target=target, size=size, value=value)
    self._boost = checks.check_number('boost', boost, above=0)
    self._rho = checks.check_number('rho', rho, minimum=0)

  def trigger(self, shape):
    return self._backdoor.trigger(shape)

  def present(self, x, trigger):
    del trigger
    return self._backdoor.present(x)

  def train(self, learner, weights, honest, batches):
    def step(state, batch):
      weights, of_optimizer = state
      x, y = batch['x'], batch['y']
      away = list(map(tf.subtract, weights, honest))
      pull = tf.math.divide_no_nan(self._rho, tf.linalg.global_norm(away))
      of_optimizer, weights = learner.optimizer.next(
          of_optimizer,
          weights,
          tuple(
              g + pull * a
              for g, a in zip(learner.gradient(weights, x, y), away)
          ),
      )
      _, taught = learner.optimizer.next(
          of_optimizer,
          weights,
          learner.gradient(weights, self.present(x, ()), self.wanted(y)),
      )
      boosted = tuple(
          v + self._boost * (t - v) for v, t in zip(weights, taught)
      )
      return boosted, of_optimizer

    state = weights, learner.initial_state(weights)
    return training.fold(step, state, batches)[0]
