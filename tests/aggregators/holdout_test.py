"""The server's hold-out: accepted forms, its split, root update and loss."""

import collections
import copy
import pickle

from absl import logging
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import fedaot
from fedaot_tff.aggregators import holdout as holdout_lib
from tests import small_problem

_FEATURES = 3
_INITIAL = (
    np.array([0.5, -1.0, 0.25], np.float32),
    np.array(0.1, np.float32),
)


def _linear_model(
    input_spec=None, initial=_INITIAL, training_scale=1.0
) -> tff.learning.models.FunctionalModel:
  """Least squares; only the first two weights are used.

  Args:
    input_spec: The model's, None for the pair of float32 [None, 3], [None].
    initial: The trainable weights.
    training_scale: Factor of the prediction where `training` is true.

  Returns:
    A `tff.learning.models.FunctionalModel`.
  """

  @tf.function
  def predict(weights, x, training):
    kernel, bias = tf.nest.flatten(weights[0])[:2]
    output = tf.linalg.matvec(x, kernel) + bias
    return training_scale * output if training else output

  def loss(output, label, sample_weight=None):
    del sample_weight
    return tf.reduce_mean(tf.square(output - tf.cast(label, tf.float32)))

  return tff.learning.models.FunctionalModel(
      initial_weights=(initial, ()),
      predict_on_batch_fn=predict,
      loss_fn=loss,
      input_spec=input_spec
      or (
          tf.TensorSpec([None, _FEATURES], tf.float32),
          tf.TensorSpec([None], tf.float32),
      ),
  )


def _examples(num_examples=10):
  rng = np.random.default_rng(5)
  x = rng.normal(size=[num_examples, _FEATURES]).astype(np.float32)
  y = (x @ [1.0, 2.0, -1.0] + 0.5).astype(np.float32)
  return x, y


def _holdout(num_examples=10, **kwargs):
  return holdout_lib.HoldOut(_linear_model(), _examples(num_examples), **kwargs)


def _initial_model():
  return holdout_lib.GlobalModel(tuple(tf.constant(w) for w in _INITIAL))


def _error_message(error, *args, **kwargs):
  """The message of the error that `HoldOut(*args, **kwargs)` raises."""
  with pytest.raises(error) as info:
    holdout_lib.HoldOut(*args, **kwargs)
  message = str(info.value)
  assert '\n' not in message
  return message


# --- Forms of examples -------------------------------------------------------

_PAIR_SPEC = (
    tf.TensorSpec([None, _FEATURES], tf.float32),
    tf.TensorSpec([None], tf.float32),
)
_MAPPING_SPEC = collections.OrderedDict(x=_PAIR_SPEC[0], y=_PAIR_SPEC[1])


_FORMS = (
    'pair',
    'list_of_two',
    'tensors',
    'double_precision',
    'mapping',
    'dataset',
    'batched_dataset',
    'dataset_of_mappings',
    'batched_dataset_of_mappings',
    'dataset_of_unknown_shapes',
    'batched_dataset_of_unknown_shapes',
)


def _form(name):
  """The ten examples in the named form."""
  x, y = _examples()
  pairs = tf.data.Dataset.from_tensor_slices((x, y))
  mappings = pairs.map(lambda x, y: collections.OrderedDict(y=y, x=x))

  def generate():
    yield from zip(x, y)

  untyped = tf.data.Dataset.from_generator(generate, (tf.float32, tf.float32))
  forms = dict(
      pair=(x, y),
      list_of_two=[x.tolist(), y.tolist()],
      tensors=(tf.constant(x), tf.constant(y)),
      double_precision=(x.astype(np.float64), y.astype(np.float64)),
      mapping=dict(y=y, x=x),
      dataset=pairs,
      batched_dataset=pairs.batch(4),
      dataset_of_mappings=mappings,
      batched_dataset_of_mappings=mappings.batch(4),
      dataset_of_unknown_shapes=untyped,
      batched_dataset_of_unknown_shapes=untyped.batch(4),
  )
  return forms[name]


@pytest.mark.parametrize('spec', [_PAIR_SPEC, _MAPPING_SPEC], ids=['p', 'm'])
@pytest.mark.parametrize('form', _FORMS)
def test_all_forms_of_examples_are_equal(form, spec):
  expected = _holdout()
  holdout = holdout_lib.HoldOut(_linear_model(spec), _form(form))
  assert holdout.num_examples == 10
  for positions in ([0, 1, 2], [9], list(range(10))):
    np.testing.assert_allclose(
        holdout.loss(_initial_model(), tf.constant(positions)),
        expected.loss(_initial_model(), tf.constant(positions)),
    )


def test_structures_of_features():
  x, y = _examples()
  spec = (
      collections.OrderedDict(b=_PAIR_SPEC[0], a=tf.TensorSpec([None, 2])),
      _PAIR_SPEC[1],
  )

  @tf.function
  def predict(weights, x, training):
    del training
    return tf.linalg.matvec(x['b'], weights[0]) + tf.reduce_sum(x['a'], 1)

  model = tff.learning.models.FunctionalModel(
      initial_weights=(_INITIAL[0], ()),
      predict_on_batch_fn=predict,
      loss_fn=lambda output, label, sample_weight=None: tf.reduce_mean(
          output - label
      ),
      input_spec=spec,
  )
  a = np.arange(20, dtype=np.float32).reshape(10, 2)
  for examples in (
      (dict(a=a, b=x), y),
      tf.data.Dataset.from_tensor_slices((dict(a=a, b=x), y)).batch(3),
  ):
    holdout = holdout_lib.HoldOut(model, examples)
    np.testing.assert_allclose(
        holdout.loss(
            holdout_lib.GlobalModel((tf.constant(_INITIAL[0]),)), tf.range(10)
        ),
        np.mean(x @ _INITIAL[0] + a.sum(axis=1) - y),
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    'form, batch_size, expected',
    [
        ('pair', None, 20),
        ('dataset', None, 20),
        ('batched_dataset', None, 4),
        ('batched_dataset_of_mappings', None, 4),
        ('batched_dataset', 3, 3),
        ('pair', np.int64(7), 7),
    ],
)
def test_batch_size_is_that_of_the_dataset_unless_given(
    form, batch_size, expected
):
  """One step on the first batch tells how large it was."""
  settings = dict(
      client_optimizer=tff.learning.optimizers.build_sgdm(0.1), num_steps=1
  )
  holdout = holdout_lib.HoldOut(
      _linear_model(), _form(form), batch_size=batch_size, **settings
  )
  found = holdout.root_update(_initial_model(), tf.range(10))
  _, gradient = holdout.loss_and_gradient(
      _initial_model(), tf.range(min(expected, 10))
  )
  tf.nest.map_structure(
      lambda u, g: np.testing.assert_allclose(u, 0.1 * g, rtol=1e-4),
      found,
      gradient,
  )


# --- Errors ------------------------------------------------------------------


def test_kinds_of_arguments():
  x, y = _examples()
  model = _linear_model()
  keras_model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
  message = _error_message(TypeError, keras_model, (x, y))
  assert 'found Sequential' in message
  assert 'from_keras_model' in message
  message = _error_message(TypeError, lambda: keras_model, (x, y))
  assert 'found Sequential' in message
  keras_optimizer = tf.keras.optimizers.SGD(0.1)
  message = _error_message(
      TypeError, model, (x, y), client_optimizer=keras_optimizer
  )
  assert message.startswith('client_optimizer must be')
  assert message.endswith('found SGD.')
  for name in ('batch_size', 'num_steps'):
    for value in ('2', 2.0, True):
      message = _error_message(TypeError, model, (x, y), **{name: value})
      assert message.startswith(f'{name} must be an int; found {value!r}')
    for value in (0, -1):
      message = _error_message(ValueError, model, (x, y), **{name: value})
      assert message == f'{name} must be >= 1; found {value}.'
  message = _error_message(TypeError, model, (x, y), num_steps=None)
  assert message.startswith('num_steps must be an int; found None')


def _changed(array, position, value):
  array = array.copy()
  array[position] = value
  return array


@pytest.mark.parametrize(
    'make_examples, error, expected',
    [
        (lambda x, y: (x[:0], y[:0]), ValueError, 'has no examples'),
        (
            lambda x, y: tf.data.Dataset.from_tensor_slices((x, y)).take(0),
            ValueError,
            'has no examples',
        ),
        (
            lambda x, y: tf.data.Dataset.from_tensor_slices((x, y)).repeat(),
            ValueError,
            'repeats without end',
        ),
        (
            lambda x, y: tf.data.Dataset.from_tensor_slices((x, y))
            .repeat()
            .filter(lambda x, y: y > y - 1),
            ValueError,
            'repeats without end or is too large: it has more than 999',
        ),
        (
            lambda x, y: tf.data.Dataset.from_tensor_slices((x, y))
            .repeat()
            .filter(lambda x, y: y > y - 1)
            .batch(10),
            ValueError,
            'it has more than 99 elements',
        ),
        (lambda x, y: x, TypeError, 'found ndarray'),
        (lambda x, y: None, TypeError, 'found NoneType'),
        (lambda x, y: (x, y, y), TypeError, 'found tuple'),
        (
            lambda x, y: tf.data.Dataset.from_tensor_slices(x),
            TypeError,
            'found ndarray',
        ),
        (lambda x, y: dict(x=x, label=y), ValueError, "['label', 'x']"),
        (lambda x, y: (x, (y, y)), ValueError, 'found ((10, 3), (2, 10))'),
        (lambda x, y: (dict(x=x), y), ValueError, 'found ((), (10,))'),
        (lambda x, y: (x, y[:9]), ValueError, 'found ((10, 3), (9,))'),
        (lambda x, y: (x, y[0]), ValueError, 'found ((10, 3), ())'),
        (lambda x, y: (x[:, :2], y), ValueError, 'found shape (10, 2)'),
        (lambda x, y: (x, y[:, None]), ValueError, 'found shape (10, 1)'),
        (lambda x, y: (x.astype(str), y), ValueError, 'float32; found str'),
        (lambda x, y: (x.astype(complex), y), ValueError, 'found complex128'),
        (lambda x, y: (_changed(x, 3, np.nan), y), ValueError, 'found 3 NaN'),
        (lambda x, y: (x, _changed(y, 0, np.inf)), ValueError, 'found 1 NaN'),
        (
            lambda x, y: (_changed(x.astype(np.float64), (1, 1), 1e300), y),
            ValueError,
            'found 1 NaN',
        ),
    ],
)
def test_wrong_examples(make_examples, error, expected, monkeypatch):
  monkeypatch.setattr(holdout_lib, '_MOST_EXAMPLES', 999)
  examples = make_examples(*_examples())
  assert expected in _error_message(error, _linear_model(), examples)


def test_structure_unlike_the_spec():
  x, y = _examples()
  spec = (collections.OrderedDict(a=_PAIR_SPEC[0]), _PAIR_SPEC[1])
  for features in (x, x.tolist(), dict(b=x), dict(a=x, b=x)):
    message = _error_message(ValueError, _linear_model(spec), (features, y))
    assert 'structure of model.input_spec' in message
    kind = type(features).__name__
    assert message.endswith(f'found x and y of type {kind} and ndarray.')


def test_fractional_labels_of_an_integer_spec():
  spec = (_PAIR_SPEC[0], tf.TensorSpec([None], tf.int32))
  x, y = _examples()
  message = _error_message(ValueError, _linear_model(spec), (x, y))
  assert 'int32; found float32' in message
  holdout_lib.HoldOut(_linear_model(spec), (x, y.astype(np.int64)))


def test_large_examples_give_a_warning(monkeypatch):
  warnings = []
  monkeypatch.setattr(
      logging, 'warning', lambda text, *args: warnings.append(text % args)
  )
  _holdout(100)
  assert not warnings
  # 400000 * 4 floats are 6.4 MB.
  large = (
      np.zeros([400_000, _FEATURES], np.float32),
      np.zeros([400_000], np.float32),
  )
  holdout_lib.HoldOut(_linear_model(), large)
  assert len(warnings) == 1
  assert '6 MB' in warnings[0]


# --- Model and optimizer -----------------------------------------------------


def test_initial_weights_are_the_trainable_ones():
  model = _linear_model(
      initial=collections.OrderedDict(z_bias=_INITIAL[1], kernel=_INITIAL[0])
  )
  # In the order of tf.nest, which sorts the keys.
  holdout = holdout_lib.HoldOut(model, _examples())
  kernel, bias = holdout.initial_model().trainable
  np.testing.assert_array_equal(kernel, _INITIAL[0])
  np.testing.assert_array_equal(bias, _INITIAL[1])


def test_check_update_type():
  holdout = _holdout()
  kernel = tff.TensorType(np.float32, [_FEATURES])
  bias = tff.TensorType(np.float32)
  holdout.check_update_type(tff.to_type((kernel, bias)))
  for value_type in (
      kernel,
      (bias, kernel),
      (kernel, bias, bias),
      (tff.TensorType(np.float64, [_FEATURES]), bias),
      (tff.TensorType(np.float32, [_FEATURES, 1]), bias),
      (tff.TensorType(np.float32, [_FEATURES + 1]),),
  ):
    with pytest.raises(ValueError) as info:
      holdout.check_update_type(tff.to_type(value_type))
    message = str(info.value)
    assert "[((3,), 'float32'), ((), 'float32')]" in message
    assert 'Pass the model' in message
    assert '\n' not in message


def test_default_client_optimizer_is_taken_only_if_there_is_none():
  slow, fast = (tff.learning.optimizers.build_sgdm(r) for r in (0.01, 0.02))

  def update(holdout):
    return holdout.root_update(_initial_model(), tf.range(10))[0].numpy()

  settings = dict(num_steps=1, batch_size=10)
  unset = _holdout(**settings)
  own = _holdout(client_optimizer=slow, **settings)
  np.testing.assert_allclose(
      update(unset.for_clients(fast)), 2 * update(own), rtol=1e-4
  )
  np.testing.assert_allclose(update(own.for_clients(fast)), update(own))
  # Without any, SGD with learning rate 0.1.
  np.testing.assert_allclose(update(unset), 10 * update(own), rtol=1e-4)
  assert unset.for_clients(fast).num_examples == 10


# --- Split -------------------------------------------------------------------


@pytest.mark.parametrize('num_examples', [50, 51, 100])
def test_split_halves_are_disjoint_and_cover_all(num_examples):
  split = _holdout(num_examples).split(tf.constant([1, 2], tf.int64), 50)
  assert split.training.shape == [(num_examples + 1) // 2]
  assert split.evaluation.shape == [num_examples // 2]
  both = np.concatenate([split.training, split.evaluation])
  assert sorted(both) == list(range(num_examples))


def test_split_is_random_and_fixed_by_the_seed():
  holdout = _holdout(100)
  seeds = [tf.constant(seed, tf.int64) for seed in ([1, 2], [1, 3], [2, 2])]
  first, second, third = (holdout.split(seed, 50) for seed in seeds)
  again = _holdout(100).split(seeds[0], 50)
  np.testing.assert_array_equal(first.training, again.training)
  np.testing.assert_array_equal(first.evaluation, again.evaluation)
  for one, other in ((first, second), (first, third), (second, third)):
    common = len(set(one.training.numpy()) & set(other.training.numpy()))
    assert 10 < common < 40
  assert list(first.training) != sorted(first.training)


def test_few_examples_are_not_split():
  split = _holdout(49).split(tf.constant([1, 2], tf.int64), 50)
  assert sorted(split.training.numpy()) == list(range(49))
  assert sorted(split.evaluation.numpy()) == list(range(49))


# --- Training and loss -------------------------------------------------------


def _squared_error_gradient(kernel, bias, x, y):
  residual = 2 * (x @ kernel + bias - y) / len(y)
  return x.T @ residual, residual.sum()


@pytest.mark.parametrize('batch_size, num_steps', [(4, 7), (10, 3), (64, 2)])
def test_root_update_is_sgd_with_momentum_by_hand(batch_size, num_steps):
  holdout = _holdout(
      client_optimizer=tff.learning.optimizers.build_sgdm(0.05, momentum=0.9),
      batch_size=batch_size,
      num_steps=num_steps,
  )
  x, y = (a.astype(np.float64) for a in _examples())
  order = np.array([7, 0, 3, 9, 1, 4, 8, 2, 6])
  kernel, bias = (w.astype(np.float64) for w in _INITIAL)
  kernel_velocity, bias_velocity = 0.0, 0.0
  batches = np.tile(order, 10)
  size = min(batch_size, len(order))
  for step in range(num_steps):
    rows = batches[step * size : (step + 1) * size]
    kernel_gradient, bias_gradient = _squared_error_gradient(
        kernel, bias, x[rows], y[rows]
    )
    kernel_velocity = 0.9 * kernel_velocity + kernel_gradient
    bias_velocity = 0.9 * bias_velocity + bias_gradient
    kernel = kernel - 0.05 * kernel_velocity
    bias = bias - 0.05 * bias_velocity
  found = holdout.root_update(_initial_model(), tf.constant(order, tf.int64))
  np.testing.assert_allclose(found[0], _INITIAL[0] - kernel, rtol=1e-4)
  np.testing.assert_allclose(found[1], _INITIAL[1] - bias, rtol=1e-4)


def test_root_update_starts_from_the_given_weights():
  holdout = _holdout(num_steps=1, batch_size=10)
  solution = (tf.constant([1.0, 2.0, -1.0]), tf.constant(0.5))
  update = holdout.root_update(holdout_lib.GlobalModel(solution), tf.range(10))
  np.testing.assert_allclose(update[0], [0, 0, 0], atol=1e-6)


def test_a_weight_that_the_loss_does_not_use_has_gradient_and_update_zero():
  initial = _INITIAL + (np.ones([2, 2], np.float32),)
  holdout = holdout_lib.HoldOut(_linear_model(initial=initial), _examples())
  weights = holdout.initial_model()
  _, gradient = holdout.loss_and_gradient(weights, tf.range(10))
  update = holdout.root_update(weights, tf.range(10))
  for unused in (gradient[2], update[2]):
    np.testing.assert_array_equal(unused, np.zeros([2, 2]))
  for used in gradient[:2] + update[:2]:
    assert np.all(used)


def test_loss_and_gradient_equal_hand_and_finite_differences():
  holdout = _holdout()
  rows = np.array([8, 1, 5])
  x, y = (a.astype(np.float64)[rows] for a in _examples())
  loss, gradient = holdout.loss_and_gradient(
      _initial_model(), tf.constant(rows)
  )
  kernel, bias = (w.astype(np.float64) for w in _INITIAL)
  np.testing.assert_allclose(
      loss, np.mean((x @ kernel + bias - y) ** 2), rtol=1e-5
  )
  expected = _squared_error_gradient(kernel, bias, x, y)
  np.testing.assert_allclose(gradient[0], expected[0], rtol=1e-4)
  np.testing.assert_allclose(gradient[1], expected[1], rtol=1e-4)
  for position in range(_FEATURES):
    change = 0.01 * np.eye(_FEATURES, dtype=np.float32)[position]
    high, low = (
        holdout.loss(
            holdout_lib.GlobalModel((_INITIAL[0] + s, _INITIAL[1])),
            tf.constant(rows),
        )
        for s in (change, -change)
    )
    np.testing.assert_allclose(
        gradient[0][position], (high - low) / 0.02, rtol=1e-3
    )


def test_training_mode_is_on_in_training_alone():
  model = _linear_model(training_scale=0.0)
  holdout = holdout_lib.HoldOut(model, _examples())
  plain = _holdout()
  examples = tf.range(10)
  np.testing.assert_array_equal(
      holdout.root_update(_initial_model(), examples)[0], [0, 0, 0]
  )
  np.testing.assert_allclose(
      holdout.loss(_initial_model(), examples),
      plain.loss(_initial_model(), examples),
  )


# --- In TFF ------------------------------------------------------------------


def test_keras_model_in_a_computation():
  x, _ = _examples(20)
  y = (x[:, 0] > 0).astype(np.int32)
  model = tff.learning.models.functional_model_from_keras(
      tf.keras.Sequential(
          [
              tf.keras.layers.InputLayer([_FEATURES]),
              tf.keras.layers.Dense(4, 'tanh'),
              tf.keras.layers.Dense(2),
          ]
      ),
      tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      (_PAIR_SPEC[0], tf.TensorSpec([None], tf.int32)),
  )
  holdout = holdout_lib.HoldOut(
      model,
      (x, y),
      client_optimizer=tff.learning.optimizers.build_sgdm(0.1),
      batch_size=8,
      num_steps=5,
  )

  @tff.tensorflow.computation
  def compute():
    weights = holdout.initial_model()
    split = holdout.split(tf.constant([3, 4], tf.int64), 10)
    update = holdout.root_update(weights, split.training)
    loss, gradient = holdout.loss_and_gradient(weights, split.evaluation)
    return update, loss, gradient, split.training, split.evaluation

  update, loss, gradient, training, evaluation = compute()
  assert sorted([*training, *evaluation]) == list(range(20))

  def loss_and_gradient(weights, rows):
    weights = [tf.constant(w) for w in weights]
    with tf.GradientTape() as tape:
      tape.watch(weights)
      hidden = tf.tanh(x[rows] @ weights[0] + weights[1])
      logits = hidden @ weights[2] + weights[3]
      value = tf.reduce_mean(
          tf.nn.sparse_softmax_cross_entropy_with_logits(y[rows], logits)
      )
    return value, [g.numpy() for g in tape.gradient(value, weights)]

  weights = list(model.initial_weights[0])
  expected_loss, expected_gradient = loss_and_gradient(weights, evaluation)
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
  for found, expected in zip(gradient, expected_gradient):
    np.testing.assert_allclose(found, expected, atol=1e-6)
  for step in range(5):
    rows = np.tile(training, 10)[8 * step : 8 * step + 8]
    _, gradients = loss_and_gradient(weights, rows)
    weights = [w - 0.1 * g for w, g in zip(weights, gradients)]
  for found, old, new in zip(update, model.initial_weights[0], weights):
    np.testing.assert_allclose(found, old - new, atol=1e-6)
    assert np.any(found)


@pytest.mark.parametrize('kind', ['embedding', 'gather', 'gather of a product'])
def test_sparse_gradients_in_a_process(kind):
  """A look-up in a table of weights: only the rows that are met move."""
  table = np.arange(12, dtype=np.float32).reshape(6, 2) / 10
  x = np.array([0, 2, 2, 5], np.int32)
  y = np.ones([4, 2], np.float32)

  def predict(weights, x, training):
    del training
    (table,), _ = weights
    if kind == 'embedding':
      return tf.nn.embedding_lookup(table, x)
    return tf.gather(table if kind == 'gather' else 1.0 * table, x)

  model = tff.learning.models.FunctionalModel(
      initial_weights=((table,), ()),
      predict_on_batch_fn=tf.function(predict),
      loss_fn=lambda output, label, sample_weight=None: tf.reduce_mean(
          tf.square(output - label)
      ),
      input_spec=(
          tf.TensorSpec([None], tf.int32),
          tf.TensorSpec([None, 2], tf.float32),
      ),
  )
  holdout = holdout_lib.HoldOut(model, (x, y), batch_size=4, num_steps=1)
  expected = np.zeros([6, 2])
  for row in x:
    expected[row] += 2 * (table[row] - 1) / 8

  @tff.tensorflow.computation
  def gradient_and_update():
    weights = holdout_lib.GlobalModel((tf.constant(table),))
    everything = tf.range(4)
    _, gradient = holdout.loss_and_gradient(weights, everything)
    # An aggregator flattens it, which takes a static shape.
    assert [g.shape for g in gradient] == [table.shape]
    return gradient, holdout.root_update(weights, everything)

  (gradient,), (update,) = gradient_and_update()
  np.testing.assert_allclose(gradient, expected, rtol=1e-5)
  # SGD with the default learning rate.
  np.testing.assert_allclose(update, 0.1 * expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize('label, found', [(3, 'label'), (-1, 'label')])
def test_a_label_out_of_range_is_noticed_at_once(label, found):
  y = np.array([0, 1, label, 2], np.int32)
  with pytest.raises(ValueError, match=found) as info:
    small = small_problem.model()
    holdout_lib.HoldOut(
        small,
        collections.OrderedDict(
            x=np.zeros([4, small_problem.NUM_FEATURES], np.float32), y=y
        ),
    )
  assert '\n' not in str(info.value)


def test_a_loss_that_is_not_finite_is_noticed_at_once():
  x, y = _examples()
  with pytest.raises(ValueError, match='must be finite.*found nan'):
    holdout_lib.HoldOut(
        _linear_model(initial=(np.full(3, np.nan, np.float32), _INITIAL[1])),
        (x, y),
    )


# --- Copies ------------------------------------------------------------------


def test_a_holdout_with_a_function_as_its_model_can_be_pickled():
  factory = fedaot.fedaot_factory(
      holdout_lib.HoldOut(
          small_problem.keras_model_fn,
          small_problem.examples(30, seed=99),
          client_optimizer=small_problem.client_optimizer(),
          num_steps=3,
      ),
      seed=1,
  )
  weights = holdout_lib.GlobalModel(small_problem.model().initial_weights[0])
  expected = factory.holdout.root_update(weights, tf.range(30))
  for copied in (
      pickle.loads(pickle.dumps(factory)),
      pickle.loads(pickle.dumps(factory.unweighted)).weighted,
      copy.deepcopy(factory),
  ):
    small_problem.assert_bit_identical(
        copied.holdout.root_update(weights, tf.range(30)), expected
    )


def test_a_functional_model_cannot_be_pickled_but_shared():
  factory = fedaot.fedaot_factory(small_problem.holdout(), seed=1)
  for unpicklable in (factory, factory.unweighted, factory.holdout):
    with pytest.raises(TypeError, match='cannot be pickled, as') as info:
      pickle.dumps(unpicklable)
    assert '\n' not in str(info.value)
  assert copy.deepcopy(factory).holdout is factory.holdout
