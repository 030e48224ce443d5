"""fedaot_factory inside of TFF's own builders and wrapping aggregators."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import fedaot
from fedaot_tff.learning import model_mirror
from tests import small_problem

_MEASUREMENTS = {
    'weights',
    'statistics',
    'z',
    'norms',
    'norm_bound',
    'num_clients',
    'num_non_finite',
    'num_attenuated',
    'num_clipped',
    'effective_clients',
    'weighting',
    'meta_objective',
    'meta_gradient_norm',
}
_HOLDOUT_MEASUREMENTS = {
    'root_norm',
    'holdout_loss_before',
    'holdout_loss_after',
}


def _fed_avg(build, aggregator, **options):
  return build(
      model_fn=small_problem.model(),
      client_optimizer_fn=small_problem.client_optimizer(),
      server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
      model_aggregator=aggregator,
      **options,
  )


def _mime_lite(aggregator):
  return tff.learning.algorithms.build_weighted_mime_lite(
      small_problem.model(),
      tff.learning.optimizers.build_sgdm(0.1, momentum=0.9),
      model_aggregator=aggregator,
  )


_weighted = functools.partial(
    _fed_avg, tff.learning.algorithms.build_weighted_fed_avg
)
_unweighted = functools.partial(
    _fed_avg, tff.learning.algorithms.build_unweighted_fed_avg
)
_fed_prox = functools.partial(
    _fed_avg,
    tff.learning.algorithms.build_weighted_fed_prox,
    proximal_strength=0.1,
)
_clipping = functools.partial(tff.aggregators.clipping_factory, 1.0)


def _zeroing(inner):
  return tff.aggregators.zeroing_factory(100.0, inner)


def _names(measurements):
  """All keys of a nested structure of measurements."""
  if not isinstance(measurements, dict):
    return set()
  return set(measurements).union(*map(_names, measurements.values()))


@pytest.mark.parametrize(
    'mode, build, weighted, wrap',
    [
        pytest.param(mode, *setting, id=f'{name}-{mode}', marks=marks)
        for name, quick_mode, *setting in (
            ('unweighted_zeroing', 'holdout', _unweighted, False, _zeroing),
            ('fed_avg_clipping', 'agreement', _weighted, True, _clipping),
            (
                'prox_debug',
                'agreement',
                _fed_prox,
                True,
                tff.learning.add_debug_measurements,
            ),
            ('mime_lite', None, _mime_lite, True, None),
        )
        for mode in ('agreement', 'holdout')
        for marks in [() if mode == quick_mode else pytest.mark.slow]
    ],
)
def test_runs_in_a_stock_builder(mode, build, weighted, wrap):
  holdout = small_problem.holdout() if mode == 'holdout' else None
  aggregator = fedaot.fedaot_factory(holdout, seed=1)
  aggregator = aggregator if weighted else aggregator.unweighted
  process = build(aggregator if wrap is None else wrap(aggregator))
  initialize, next_fn = process.initialize, process.next
  assert initialize.type_signature.result == next_fn.type_signature.result.state

  first = process.initialize()
  outputs = small_problem.run(process, 2, first)
  state = outputs[-1].state
  tf.nest.assert_same_structure(first, state, check_types=True)
  model_mirror.check_model(state)
  weights = [small_problem.trainable(process, first)] + [
      small_problem.trainable(process, output.state) for output in outputs
  ]
  for before, after in zip(weights, weights[1:]):
    assert np.all(np.isfinite(np.concatenate([w.ravel() for w in after])))
    assert all(not np.array_equal(a, b) for a, b in zip(before, after))

  metrics = outputs[-1].metrics['aggregator']
  names = _names(metrics)
  assert names >= _MEASUREMENTS
  assert (names >= _HOLDOUT_MEASUREMENTS) == (mode == 'holdout')
