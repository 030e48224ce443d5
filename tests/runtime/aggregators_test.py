"""Aggregators natively and in this process."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import registry
from tests import small_problem
from tests.runtime import both_contexts

_VALUE_TYPE = tff.to_type(
    collections.OrderedDict(
        kernel=tff.TensorType(np.float32, [4, 3]),
        bias=tff.TensorType(np.float32, [3]),
    )
)
_INT_TYPE = tff.TensorType(np.int32, [5])
_NUM_CLIENTS = 5
_ROUNDS = 3


def _updates(round_num):
  rng = np.random.default_rng(round_num)
  return [
      collections.OrderedDict(
          kernel=rng.normal(size=[4, 3]).astype(np.float32),
          bias=rng.normal(size=[3]).astype(np.float32),
      )
      for _ in range(_NUM_CLIENTS)
  ]


def _int_updates(round_num):
  rng = np.random.default_rng(round_num)
  return [
      rng.integers(-4, 5, size=[5]).astype(np.int32)
      for _ in range(_NUM_CLIENTS)
  ]


def _run(process, updates):
  """Outputs of three rounds of an unweighted or weighted process."""
  weights = ()
  if len(process.next.type_signature.parameter) > 2:
    weights = ([np.float32(1 + i) for i in range(_NUM_CLIENTS)],)
  state = process.initialize()
  outputs = [state]
  for round_num in range(_ROUNDS):
    outputs.append(process.next(state, updates(round_num), *weights))
    state = outputs[-1].state
  return outputs


def _create(factory, value_type=_VALUE_TYPE):
  if isinstance(factory, tff.aggregators.WeightedAggregationFactory):
    return factory.create(value_type, tff.TensorType(np.float32))
  return factory.create(value_type)


_FACTORIES = {
    'sum': tff.aggregators.SumFactory,
    'mean': tff.aggregators.MeanFactory,
    'unweighted_mean': tff.aggregators.UnweightedMeanFactory,
    'concat': lambda: tff.aggregators.concat_factory(
        tff.aggregators.MeanFactory()
    ),
    'clipping': lambda: tff.aggregators.clipping_factory(
        tff.aggregators.PrivateQuantileEstimationProcess.no_noise(
            1.0, 0.5, 0.1
        ),
        tff.aggregators.SumFactory(),
    ),
    'zeroing': lambda: tff.aggregators.zeroing_factory(
        3.0, tff.aggregators.MeanFactory()
    ),
    'dp_without_noise': lambda: (
        tff.aggregators.DifferentiallyPrivateFactory.gaussian_fixed(
            0.0, _NUM_CLIENTS, 1.0
        )
    ),
    'robust': tff.learning.robust_aggregator,
    'measured': lambda: tff.aggregators.add_measurements(
        tff.aggregators.MeanFactory(),
        client_measurement_fn=lambda value, weight: collections.OrderedDict(
            total=tff.federated_sum(weight)
        ),
    ),
}


@pytest.mark.parametrize('name', _FACTORIES)
def test_aggregators_of_tff(name):
  process = _create(_FACTORIES[name]())
  both_contexts.assert_runs_alike(_run, process, _updates)


@pytest.mark.slow
def test_aggregators_of_tff_that_sum_rotated_values():
  for factory in (
      tff.aggregators.HadamardTransformFactory(tff.aggregators.SumFactory()),
      tff.aggregators.DiscreteFourierTransformFactory(
          tff.aggregators.SumFactory()
      ),
  ):
    process = _create(factory)
    expected, found = both_contexts.run_in_both(_run, process, _updates)
    for a, b in zip(expected[1:], found[1:]):
      both_contexts.assert_same(a.result, b.result, tolerance=1e-5)


@pytest.mark.slow
def test_aggregators_of_tff_that_draw_at_random():
  for factory in (
      tff.aggregators.EncodedSumFactory.quantize_above_threshold(8, 100),
      tff.aggregators.UnweightedReservoirSamplingFactory(3),
      tff.learning.compression_aggregator(),
      tff.learning.ddp_secure_aggregator(1e-3, _NUM_CLIENTS),
      tff.learning.dp_aggregator(1e-3, _NUM_CLIENTS),
  ):
    process = _create(factory)
    outputs = both_contexts.run_in(
        both_contexts.in_process(), _run, process, _updates
    )
    for output in outputs[1:]:
      assert output.measurements is not None


@pytest.mark.slow
def test_secure_aggregators_sum_in_the_clear():
  for factory, updates, value_type in (
      (tff.aggregators.SecureSumFactory(100, -100), _int_updates, _INT_TYPE),
      (
          tff.aggregators.SecureModularSumFactory(1000, True),
          _int_updates,
          _INT_TYPE,
      ),
      (tff.learning.secure_aggregator(), _updates, _VALUE_TYPE),
  ):
    process = _create(factory, value_type)
    reference = tff.backends.test.create_sync_test_cpp_execution_context()
    expected = both_contexts.run_in(reference, _run, process, updates)
    found = both_contexts.run_in(
        both_contexts.in_process(), _run, process, updates
    )
    both_contexts.assert_same(expected, found, tolerance=1e-6)


@pytest.mark.slow
def test_analytics():
  words = [
      tf.data.Dataset.from_tensor_slices(['a', 'b', 'a']),
      tf.data.Dataset.from_tensor_slices(['a', 'c']),
  ]
  computation = tff.analytics.heavy_hitters.iblt.build_iblt_computation(
      capacity=20, string_max_bytes=4, max_words_per_user=3, batch_size=1
  )
  context = both_contexts.in_process()
  batched = [dataset.batch(1) for dataset in words]
  result = both_contexts.run_in(context, computation, batched)
  counts = dict(zip(result.heavy_hitters, result.heavy_hitters_counts))
  assert counts == {b'a': 3, b'b': 1, b'c': 1}


_FAST = ('krum', 'trimmed_mean')


@pytest.mark.parametrize(
    'name',
    [
        name if name in _FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in registry.aggregator_names()
    ],
)
def test_aggregators_of_the_library(name):
  aggregator = registry.get_aggregator(name)
  factory = aggregator.create(
      registry.AggregatorContext(
          holdout=small_problem.holdout(), num_byzantine=1, seed=3
      )
  )
  value_type = tff.to_type(tuple(_VALUE_TYPE))
  process = _create(factory, value_type)

  def updates(round_num):
    return [tuple(update.values()) for update in _updates(round_num)]

  both_contexts.assert_runs_alike(_run, process, updates, tolerance=1e-4)
