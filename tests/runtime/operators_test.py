"""Every operator of federated computations, natively and in this process."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.runtime import both_contexts

_INT_AT_CLIENTS = tff.FederatedType(np.int32, tff.CLIENTS)
_FLOAT_AT_CLIENTS = tff.FederatedType(np.float32, tff.CLIENTS)
_INTS = tff.SequenceType(np.int32)


@tff.tensorflow.computation(np.int32)
def _add_one(x):
  return x + 1


@tff.tensorflow.computation(np.int32, np.int32)
def _add(x, y):
  return x + y


def _alike(computation, *args):
  return both_contexts.assert_runs_alike(computation, *args)


def test_hello_world():
  @tff.federated_computation
  def hello_world():
    return 'Hello, World!'

  assert _alike(hello_world) == b'Hello, World!'


def test_tensors_of_every_kind():
  for dtype in (np.bool_, np.uint8, np.int64, np.float16, np.float64):
    identity = tff.tensorflow.computation(
        lambda x: tf.identity(x), tff.TensorType(dtype, [None])
    )
    _alike(identity, np.array([0, 1], dtype))
    scalar = tff.tensorflow.computation(lambda x: tf.identity(x), dtype)
    _alike(scalar, dtype(1))
  strings = tff.tensorflow.computation(
      lambda x: tf.identity(x), tff.TensorType(np.str_, [2])
  )
  assert _alike(strings, np.array([b'a\0', b''], object))[0] == b'a\0'


def test_nested_structs_with_and_without_names():
  @tff.tensorflow.computation(
      collections.OrderedDict(b=(np.int32, np.float32), a=np.bool_)
  )
  def swap(x):
    return x['b'][1], collections.OrderedDict(z=x['a'], y=[x['b'][0]]), ()

  result = _alike(swap, collections.OrderedDict(b=(1, np.float32(2)), a=True))
  assert list(result[1]) == ['z', 'y']


def test_values_at_the_server():
  @tff.federated_computation(tff.FederatedType(np.int32, tff.SERVER))
  def compute(x):
    constant = tff.federated_value(5, tff.SERVER)
    made = tff.federated_eval(
        tff.tensorflow.computation(lambda: np.int32(7)), tff.SERVER
    )
    total = tff.federated_map(_add, (x, constant))
    return total, tff.federated_zip(collections.OrderedDict(a=made, b=(x,)))

  assert _alike(compute, 1)[0] == 6


def test_values_at_the_clients():
  @tff.federated_computation(_INT_AT_CLIENTS)
  def compute(x):
    shared = tff.federated_broadcast(tff.federated_value(10, tff.SERVER))
    constant = tff.federated_value(5, tff.CLIENTS)
    both = tff.federated_zip((shared, constant))
    mapped = tff.federated_map(_add, both)
    made = tff.federated_eval(
        tff.tensorflow.computation(lambda: np.int32(7)), tff.CLIENTS
    )
    own = tff.federated_map(_add, (x, mapped))
    zipped = tff.federated_zip(collections.OrderedDict(own=own, made=(made, x)))
    return own, mapped, zipped, shared

  result = _alike(compute, [1, 2, 3])
  assert result[0] == [16, 17, 18]


def test_number_of_clients_without_client_arguments():
  @tff.federated_computation
  def count():
    return tff.federated_sum(tff.federated_value(1, tff.CLIENTS))

  assert _alike(count) == 2


def test_no_clients():
  @tff.federated_computation(_INT_AT_CLIENTS)
  def total(x):
    return tff.federated_sum(tff.federated_map(_add_one, x))

  assert _alike(total, []) == 0


def test_sums_means_and_bounds():
  @tff.federated_computation(_FLOAT_AT_CLIENTS, _FLOAT_AT_CLIENTS)
  def reduce(x, weight):
    return (
        tff.federated_sum(x),
        tff.federated_mean(x),
        tff.federated_mean(x, weight),
        tff.federated_min(x),
        tff.federated_max(x),
    )

  x = list(np.float32([0.1, -3.3, 2.7]))
  _alike(reduce, x, list(np.float32([1, 2, 0.5])))


def test_aggregate_accumulates_in_the_order_of_the_clients():
  @tff.tensorflow.computation(np.str_, np.int32)
  def accumulate(text, x):
    return tf.strings.join([text, tf.strings.as_string(x)])

  @tff.tensorflow.computation(np.str_, np.str_)
  def merge(x, y):
    return tf.strings.join([x, y])

  @tff.tensorflow.computation(np.str_)
  def report(text):
    return tf.strings.join([text, '.'])

  @tff.federated_computation(_INT_AT_CLIENTS)
  def aggregate(x):
    zero = tff.tensorflow.computation(lambda: '>')()
    return tff.federated_aggregate(x, zero, accumulate, merge, report)

  assert _alike(aggregate, [3, 1, 2]) == b'>312.'


def test_select_sends_each_client_its_slices():
  @tff.tensorflow.computation(tff.TensorType(np.float32, [4, 2]), np.int32)
  def row(table, key):
    return tf.gather(table, key)

  @tff.federated_computation(
      tff.FederatedType(tff.TensorType(np.int32, [2]), tff.CLIENTS),
      tff.FederatedType(tff.TensorType(np.float32, [4, 2]), tff.SERVER),
  )
  def select(keys, table):
    max_key = tff.federated_value(4, tff.SERVER)
    return tff.federated_select(keys, max_key, table, row)

  table = np.arange(8, dtype=np.float32).reshape(4, 2)
  keys = [np.int32([3, 0]), np.int32([1, 1])]
  expected, found = both_contexts.run_in_both(select, keys, table)
  for dataset, reference, client_keys in zip(found, expected, keys):
    rows = list(dataset.as_numpy_iterator())
    both_contexts.assert_same(list(reference.as_numpy_iterator()), rows)
    np.testing.assert_array_equal(rows, table[client_keys])


def test_select_names_a_key_that_is_too_large():
  @tff.federated_computation(
      tff.FederatedType(tff.TensorType(np.int32, [1]), tff.CLIENTS)
  )
  def select(keys):
    max_key = tff.federated_value(4, tff.SERVER)
    return tff.federated_select(keys, max_key, max_key, _add)

  with pytest.raises(ValueError, match='less than 4, found 4'):
    both_contexts.run_in(both_contexts.in_process(), select, [np.int32([4])])


def test_sequences_are_reduced():
  element = collections.OrderedDict(b=np.int32, a=np.float32)

  @tff.tensorflow.computation(np.int32, element)
  def count_up(total, x):
    return 10 * total + x['b']

  @tff.federated_computation(tff.SequenceType(element))
  def compute(x):
    return tff.sequence_reduce(x, np.int32(0), count_up)

  dataset = tf.data.Dataset.from_tensor_slices(
      collections.OrderedDict(b=[1, 2, 3], a=[0.5, 0.25, 0.0])
  )
  context = both_contexts.in_process()
  assert both_contexts.run_in(context, compute, dataset) == 123


def test_datasets_go_in_and_out():
  @tff.tensorflow.computation(tff.SequenceType(np.int32))
  def batches(x):
    return x.map(lambda v: (v, v + 1)).batch(2)

  @tff.federated_computation(tff.FederatedType(_INTS, tff.CLIENTS))
  def compute(x):
    total = tff.tensorflow.computation(
        lambda d: d.reduce(np.int32(0), lambda a, b: a + b), _INTS
    )
    mapped = tff.federated_map(batches, x)
    return mapped, tff.federated_map(total, x), x

  expected, found = both_contexts.run_in_both(
      compute, [tf.data.Dataset.range(n, output_type=tf.int32) for n in (3, 0)]
  )
  for native, in_process in zip(expected, found):
    for reference, result in zip(native, in_process):
      if isinstance(reference, tf.data.Dataset):
        reference = list(reference.as_numpy_iterator())
        result = list(result.as_numpy_iterator())
      both_contexts.assert_same(reference, result)
  assert found[1] == [3, 0]


def test_a_list_is_a_sequence():
  @tff.federated_computation(_INTS)
  def total(x):
    return tff.sequence_reduce(x, np.int32(0), _add)

  assert _alike(total, [1, 2, 3]) == 6


def test_a_shuffled_dataset_is_read_from_its_start_by_each_computation():
  @tff.tensorflow.computation(_INTS)
  def read(x):
    def join(text, v):
      return tf.strings.join([text, tf.strings.as_string(v)])

    return x.reduce('', join)

  @tff.federated_computation(_INTS)
  def read_twice(x):
    return read(x), read(x)

  dataset = tf.data.Dataset.range(9, output_type=tf.int32).shuffle(
      9, seed=1, reshuffle_each_iteration=False
  )
  first, second = both_contexts.run_in(
      both_contexts.in_process(), read_twice, dataset
  )
  assert first == second
  assert first != b'012345678'


def test_secure_sums_are_sums_in_the_clear_that_check_their_bounds():
  @tff.federated_computation(_INT_AT_CLIENTS)
  def sums(x):
    return (
        tff.federated_secure_sum_bitwidth(x, 4),
        tff.federated_secure_sum(x, 7),
    )

  context = both_contexts.in_process()
  assert both_contexts.run_in(context, sums, [3, 4]) == (7, 7)
  with pytest.raises(tf.errors.InvalidArgumentError, match='larger than max'):
    both_contexts.run_in(context, sums, [3, 8])


@pytest.mark.parametrize(
    'argument',
    [
        np.float32(1),
        1.0,
        np.int64(1),
        True,
        'text',
        np.zeros([1], np.int32),
        [1, 2],
        collections.OrderedDict(a=1),
    ],
)
def test_wrong_arguments_are_refused_as_natively(argument):
  for context in (both_contexts.native(), both_contexts.in_process()):
    with pytest.raises((TypeError, NotImplementedError, ValueError)):
      both_contexts.run_in(context, _add_one, argument)


@pytest.mark.parametrize(
    'argument', [collections.OrderedDict(b=1, a=2), (1, 2, 3)]
)
def test_wrong_structs_are_refused(argument):
  @tff.tensorflow.computation(collections.OrderedDict(a=np.int32, b=np.int32))
  def difference(x):
    return x['a'] - x['b']

  context = both_contexts.in_process()
  assert both_contexts.run_in(context, difference, (1, 2)) == -1
  with pytest.raises(TypeError, match=r"where 2 named \['a', 'b'\] are expect"):
    both_contexts.run_in(context, difference, argument)


def test_tensors_and_variables_are_taken():
  context = both_contexts.in_process()
  for value in (tf.constant(1), tf.Variable(1)):
    assert both_contexts.run_in(context, _add_one, value) == 2
    with pytest.raises(TypeError, match='found float32'):
      both_contexts.run_in(context, _add_one, tf.cast(value, tf.float32))


def test_a_missing_argument_is_refused():
  with pytest.raises(TypeError, match='of type int32, found None'):
    both_contexts.run_in(both_contexts.in_process(), _add_one, None)


@pytest.mark.parametrize('argument', [1, np.int32(1), np.array(1, np.int32)])
def test_right_arguments_are_taken(argument):
  assert _alike(_add_one, argument) == 2


@pytest.mark.parametrize('values', [1, (1, 2.0), [1, 2.0], [[1], [2]]])
def test_wrong_values_of_clients_are_refused_as_natively(values):
  @tff.federated_computation(_INT_AT_CLIENTS)
  def total(x):
    return tff.federated_sum(x)

  for context in (both_contexts.native(), both_contexts.in_process()):
    with pytest.raises((TypeError, ValueError)):
      both_contexts.run_in(context, total, values)


def test_conflicting_numbers_of_clients_are_refused():
  @tff.federated_computation(_INT_AT_CLIENTS, _INT_AT_CLIENTS)
  def total(x, y):
    return tff.federated_sum(x), tff.federated_sum(y)

  with pytest.raises(ValueError, match='Conflicting cardinalities'):
    both_contexts.run_in(both_contexts.in_process(), total, [1], [1, 2])


def test_wrong_datasets_are_refused():
  identity = tff.tensorflow.computation(lambda x: x, _INTS)
  with pytest.raises(TypeError, match='int64'):
    both_contexts.run_in(
        both_contexts.in_process(), identity, tf.data.Dataset.range(3)
    )


def test_an_unknown_intrinsic_is_named():
  # TFF's runtime does not support it either.
  @tff.federated_computation(_INTS)
  def total(x):
    return tff.sequence_sum(x)

  with pytest.raises(NotImplementedError, match='^not supported: sequence_sum'):
    both_contexts.run_in(both_contexts.in_process(), total, [1, 2])


def test_another_frontend_is_named():
  @tff.jax.computation(np.float32)
  def double(x):
    return 2 * x

  with pytest.raises(NotImplementedError, match='^not supported: xla$'):
    both_contexts.run_in(both_contexts.in_process(), double, np.float32(1))
