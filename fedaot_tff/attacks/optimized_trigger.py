"""A backdoor whose trigger is fitted to the global model in each round."""

import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import backdoor
from fedaot_tff.attacks import training


class OptimizedTrigger(training.BackdoorTraining):
  """Fits the trigger to the model, and to one that has unlearnt it.

  The square of `backdoor.trigger_pixels` gets values t between 0 and `value`,
  from value / 2 on. In each of `passes` passes over its data an attacker makes
  for each batch x a step of length |value| / 20

    t = t - |value| / 20 sign d/dt (L(w; x + t, target) + L(w'; x + t, target))

  with L the loss, x + t for x with the trigger, w the global model and, but for
  the first pass, w' the weights to which a training leads that starts from w
  and gives x + t their right labels. Then it trains like the others, where in
  each batch `fraction` of the examples bear the trigger and the label `target`.

  Success is measured with the trigger that is found for the model after the
  round, on test examples that it was not found on; part of it is that the model
  is fooled by this trigger without a backdoor.

  Knowledge: the attackers' own data and the global model. Source: Zhang, Jia,
  Chen, Lin and Wu, "A3FL: Adversarially Adaptive Backdoor Attacks to Federated
  Learning", NeurIPS 2023; there w' weighs less, by its likeness to w, and a
  trigger goes on from that of the last round.
  """

  def __init__(
      self,
      *,
      target: int = 0,
      fraction: float = 0.5,
      size: int = 3,
      value: float = 1.0,
      passes: int = 3,
  ):
    super().__init__(target)
    self._fraction = checks.check_number(
        'fraction', fraction, above=0, maximum=1
    )
    self._size = checks.check_int('size', size, minimum=1)
    self._value = checks.check_number('value', value)
    self._passes = checks.check_int('passes', passes, minimum=1)

  def trigger(self, shape):
    return backdoor.trigger_pixels(shape, self._size) >= 0

  def present(self, x, trigger):
    return tf.where(self.trigger(x.shape[1:]), trigger, x)

  def find_trigger(self, learner, weights, batches):
    low, high = sorted([0.0, self._value])
    spec = batches.element_spec['x']

    def fit(models, trigger):
      def step(trigger, batch):
        with tf.GradientTape() as tape:
          tape.watch(trigger)
          x = self.present(batch['x'], trigger)
          loss = sum(
              learner.loss(model, x, self.wanted(batch['y']))
              for model in models
          )
        way = tf.sign(tape.gradient(loss, trigger))
        return tf.clip_by_value(trigger - (high - low) / 20 * way, low, high)

      return training.fold(step, trigger, batches)

    trigger = fit(
        [weights], tf.fill(spec.shape[1:], tf.cast(self._value / 2, spec.dtype))
    )
    for _ in range(self._passes - 1):
      unlearnt = learner.descend(
          weights,
          lambda weights, batch: learner.gradient(
              weights, self.present(batch['x'], trigger), batch['y']
          ),
          batches,
      )
      trigger = fit([weights, unlearnt], trigger)
    return trigger

  def train(self, learner, weights, honest, batches):
    del honest
    trigger = self.find_trigger(learner, weights, batches)

    def gradient(weights, batch):
      x, y = batch['x'], batch['y']
      size = tf.shape(y)[0]
      num = tf.cast(
          tf.round(self._fraction * tf.cast(size, tf.float32)), tf.int32
      )
      x = tf.concat([self.present(x[:num], trigger), x[num:]], axis=0)
      y = tf.concat([self.wanted(y[:num]), y[num:]], axis=0)
      return learner.gradient(weights, x, y)

    return learner.descend(weights, gradient, batches)
