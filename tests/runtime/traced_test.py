"""Rounds as one function, with as few loops over the clients as can be."""

import numpy as np
import pytest
import tensorflow_federated as tff

from fedaot_tff.aggregators import row_gather
from fedaot_tff.runtime import traced
from tests.runtime import both_contexts

_AT_CLIENTS = tff.FederatedType(np.float32, tff.CLIENTS)


@tff.tensorflow.computation(np.float32, np.float32)
def _subtract(x, y):
  return x - y


@tff.tensorflow.computation(np.float32)
def _square(x):
  return x * x


@pytest.fixture(name='loops')
def _loops(monkeypatch):
  """The number of steps in each loop."""
  numbers = []
  run_loop = traced.TracedInvocation.run_loop

  def counted(self, steps, needed):
    if steps:
      numbers.append(len(steps))
    run_loop(self, steps, needed)

  monkeypatch.setattr(traced.TracedInvocation, 'run_loop', counted)
  return numbers


def _run(computation, *args):
  return both_contexts.run_in(both_contexts.in_process(), computation, *args)


def test_what_needs_nothing_of_others_is_one_loop(loops):
  @tff.federated_computation(_AT_CLIENTS)
  def sums(x):
    squares = tff.federated_map(_square, x)
    return tff.federated_sum(x), tff.federated_sum(squares)

  assert _run(sums, list(np.float32([1, 2, 3]))) == (6, 14)
  assert loops == [3]


def test_what_waits_for_the_server_is_another_loop(loops):
  @tff.federated_computation(_AT_CLIENTS)
  def variance(x):
    mean = tff.federated_broadcast(tff.federated_mean(x))
    deviation = tff.federated_map(_subtract, (x, mean))
    return tff.federated_mean(tff.federated_map(_square, deviation))

  assert _run(variance, list(np.float32([1, 3, 5, 7]))) == 5
  assert len(loops) == 2


def test_rows_are_stacked_without_being_accumulated(loops):
  @tff.federated_computation(_AT_CLIENTS)
  def table(x):
    shared = tff.federated_broadcast(
        tff.federated_value(np.float32(7), tff.SERVER)
    )
    return row_gather.federated_gather(tff.federated_zip((x, shared)))

  own, shared = _run(table, list(np.float32([1, 2])))
  np.testing.assert_array_equal(own, np.float32([1, 2]))
  np.testing.assert_array_equal(shared, np.float32([7, 7]))
  assert loops == [1]  # The zip.


def test_what_nobody_asks_for_is_not_done(loops):
  @tff.federated_computation(_AT_CLIENTS)
  def total(x):
    tff.federated_map(_square, x)
    return tff.federated_sum(x)

  assert _run(total, list(np.float32([1, 2]))) == 3
  assert loops == [1]
