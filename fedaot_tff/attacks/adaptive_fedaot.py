"""An attack on FedAOT by those who know its rule."""

import collections
from collections.abc import Mapping
import math

import tensorflow as tf

from fedaot import checks
from fedaot import config as config_lib
from fedaot import equations
from fedaot import sketch
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import summaries
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import reference_mimic
from fedaot_tff.attacks import vectors
from fedaot_tff.namespace import TENSORFLOW

_MODES = ('auto', 'holdout', 'agreement')
# Step lengths of the descent, as fractions of the largest norm allowed.
_FIRST_STEP, _LAST_STEP = 0.5, 0.05


class AdaptiveFedAOT(attack.CollusivePoisoning):
  """Climbs through FedAOT's weighting to where the aggregate is most wrong.

  The attackers simulate the round: statistics, scores, softmax weights and norm
  clipping for the honest updates and f copies of a vector p. They maximize

    |aggregate(p) - mean|^2 / |mean|^2,   mean = that of the honest updates,

  by `steps` of projected gradient ascent on p in the ball of radius `max_scale`
  times the median honest norm, from -mean, from the reference direction and
  from the honest update with the least <update, mean>, and take the best vector
  seen, zero among them. What is simulated is the `mode` 'holdout' or
  'agreement' of FedAOT; 'auto' takes that of the defence, 'holdout' if it is
  not FedAOT. Each attacker adds noise of its own of the length `jitter` |p|, so
  that FedAOT's test for copies does not see them, which is simulated, too.

  Knowledge: all honest updates; the global model, from whose differences the
  attackers rebuild the reference; the weighting variables, if the defence is
  FedAOT (else their start); not the secrets of the server: for the signs of the
  sketch the attackers draw their own, for the root update of the hold-out they
  take the honest mean at the median honest norm. Of agreement mode they
  simulate neither the concordance of layers nor what it remembers beside the
  reference.
  """

  sees_table = True

  def __init__(
      self,
      *,
      mode: str = 'auto',
      steps: int = 10,
      jitter: float = 0.0,
      max_scale: float = 2.0,
  ):
    self._mode = checks.check_choice('mode', mode, _MODES)
    self._steps = checks.check_int('steps', steps, minimum=1)
    self._jitter = checks.check_number('jitter', jitter, minimum=0)
    self._max_scale = checks.check_number('max_scale', max_scale, above=0)
    self._config = config_lib.FedAOTConfig()

  def initial_state(self, num_coordinates):
    return reference_mimic.initial_moves(num_coordinates)

  def agree(self, knowledge, state):
    state = reference_mimic.follow_moves(
        knowledge, state, self._config.reference_decay
    )
    return self._optimize(knowledge, state['reference']), state

  def send(self, update, vector, attacker):
    del update
    if not self._jitter:
      return vector
    noise = tf.random.stateless_normal(tf.shape(vector), attacker.seed)
    return vector + noise * self._jitter * tf.norm(vector) / tf.norm(noise)

  def _optimize(
      self, knowledge: attack.Knowledge, reference: tf.Tensor
  ) -> tf.Tensor:
    """The best vector found, float32 [d]."""
    honest = knowledge.honest
    mean = vectors.moments(honest).mean
    norms = tf.norm(honest, axis=1)
    typical = flat_updates.median_norm(norms, norms >= 0)
    radius = self._max_scale * typical
    simulate = self._simulation(knowledge, mean, norms, typical, reference)

    towards_reference = vectors.unit(
        tf.where(tf.norm(reference) > 0, reference, mean)
    )
    # The zero row is what there is if there are no honest clients.
    candidates = tf.pad(honest, [[0, 1], [0, 0]])
    least_useful = candidates[tf.argmin(tf.linalg.matvec(candidates, mean))]
    starts = typical * tf.stack(
        [-vectors.unit(mean), towards_reference, vectors.unit(least_useful)]
    )

    def body(iteration, vector, best, most):
      step = iteration % (self._steps + 1)
      vector = tf.where(
          tf.equal(step, 0), starts[iteration // (self._steps + 1)], vector
      )
      with tf.GradientTape() as tape:
        tape.watch(vector)
        distance = simulate(vector)
      gradient = tape.gradient(distance, vector)
      # Where eigenvalues or order statistics tie there is no gradient.
      gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
      # A comparison with NaN is false.
      is_better = distance > most
      done = tf.cast(step, tf.float32) / self._steps
      length = radius * (_FIRST_STEP + (_LAST_STEP - _FIRST_STEP) * done)
      return (
          iteration + 1,
          _project(vector + length * vectors.unit(gradient), radius),
          tf.where(is_better, vector, best),
          tf.where(is_better, distance, most),
      )

    zero = tf.zeros_like(mean)
    _, _, best, _ = tf.while_loop(
        lambda iteration, *_: iteration < 3 * (self._steps + 1),
        body,
        (tf.constant(0), zero, zero, simulate(zero)),
    )
    return best

  def _simulation(self, knowledge, mean, norms, typical, reference):
    """The function that is maximized, from a vector [d] to a scalar."""
    config, state = self._config, knowledge.defence_state
    is_fedaot = isinstance(state, Mapping) and 'weighting' in state
    mode = self._mode
    if mode == 'auto':
      in_agreement = is_fedaot and 'previous' in state
      mode = 'agreement' if in_agreement else 'holdout'
    if is_fedaot and ('previous' in state) == (mode == 'agreement'):
      theta = state['weighting']
    else:
      theta = equations.initial_weighting(
          TENSORFLOW, config, has_holdout=mode == 'holdout'
      )
    theta = {name: tf.cast(v, tf.float64) for name, v in theta.items()}
    honest, num_attackers = knowledge.honest, knowledge.num_attackers
    sketch_length = (
        config.agreement_sketch_dimension
        if mode == 'agreement'
        else config.sketch_dimension
    )
    num_coordinates = mean.shape[0]
    group = sketch.Group(1, num_coordinates, sketch_length, sketch_length)
    signs = summaries.draw_signs(
        tf.cast(knowledge.seed, tf.int64), num_coordinates, sketch_length
    )
    size = sketch.block_size([group], config)

    def see(vector):
      """Profile and sketch of an update, taken as one tensor."""
      _, profile, (fold,) = summaries.profile_and_projections(
          [vector], [group], [signs], size
      )
      return profile, fold

    profiles, sketches = tf.map_fn(
        see,
        honest,
        # Says the shapes where there are no honest clients.
        fn_output_signature=(
            tf.TensorSpec([math.ceil(num_coordinates / size)]),
            tf.TensorSpec([sketch_length]),
        ),
    )
    # What the noise of an attacker adds to its sketch, for |p| = 1.
    noise = (self._jitter / sketch_length**0.5) * tf.random.stateless_normal(
        [num_attackers, sketch_length], knowledge.seed
    )
    root = typical * vectors.unit(mean)
    root_profile, _ = see(root)
    gram = tf.matmul(honest, honest, transpose_b=True)

    def widen(struct):
      return tf.nest.map_structure(lambda t: tf.cast(t, tf.float64), struct)

    def simulate(vector):
      norm = _norm(vector)
      profile, fold = see(vector)

      def with_attackers(of_honest, of_attacker):
        return tf.concat([of_honest, tf.fill([num_attackers], of_attacker)], 0)

      table = collections.OrderedDict(
          finite=tf.ones([knowledge.num_honest + num_attackers]),
          norm=with_attackers(norms, norm * (1 + self._jitter**2) ** 0.5),
          # One group of tensors.
          sketch=tf.concat([sketches, fold + norm * noise], 0)[:, None],
          # That of the noise, which is even, is left out.
          profile=tf.concat(
              [profiles, tf.repeat(profile[None], num_attackers, 0)], 0
          ),
      )
      if mode == 'agreement':
        seen_root = None
        known = equations.Memory(
            reference=see(reference)[1][None],
            camp_memory=tf.zeros([1, sketch_length]),
            support=tf.constant(1.0),
            age=tf.cast(tf.norm(reference) > 0, tf.float32),
        )
      else:
        known = reference
        seen_root = {'norm': typical, 'profile': root_profile}
        for name, direction in (('reference', reference), ('root', root)):
          table[f'dot_{name}'] = with_attackers(
              tf.linalg.matvec(honest, direction),
              tf.tensordot(vector, direction, 1),
          )
      decision = equations.decide(
          TENSORFLOW,
          theta,
          widen(table),
          widen(known),
          seen_root and widen(seen_root),
          config,
      )
      coefficients = tf.cast(decision.weights * decision.clip, tf.float32)
      # The aggregate less the mean is one combination of the honest updates
      # and another of the vector.
      of_honest = coefficients[: knowledge.num_honest] - tf.math.divide_no_nan(
          1.0, tf.cast(knowledge.num_honest, tf.float32)
      )
      of_vector = tf.reduce_sum(coefficients[knowledge.num_honest :])
      products = tf.linalg.matvec(honest, vector)
      square = (
          tf.tensordot(of_honest, tf.linalg.matvec(gram, of_honest), 1)
          + 2 * of_vector * tf.tensordot(of_honest, products, 1)
          + of_vector**2 * tf.tensordot(vector, vector, 1)
      )
      return tf.math.divide_no_nan(square, tf.reduce_sum(mean * mean))

    return simulate


def _norm(vector: tf.Tensor) -> tf.Tensor:
  """The Euclidean norm, with gradient zero instead of NaN at zero."""
  square = tf.reduce_sum(vector * vector)
  return tf.where(square > 0, tf.sqrt(tf.where(square > 0, square, 1.0)), 0.0)


def _project(vector: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
  """The nearest vector in the ball."""
  norm = tf.norm(vector)
  return tf.where(
      norm > radius, tf.math.divide_no_nan(vector * radius, norm), vector
  )
