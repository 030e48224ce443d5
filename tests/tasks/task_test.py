"""Tests for task, on a task as a user would make one."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tasks import task

_NUM_CLASSES = 3


def _examples(size, dtype=np.float32, label_dtype=np.int32):
  rng = np.random.default_rng(size)
  return collections.OrderedDict(
      x=rng.standard_normal((size, 4)).astype(dtype),
      y=rng.integers(_NUM_CLASSES, size=size).astype(label_dtype),
  )


def _client_data(ids=('a', 'b', 'c'), **kwargs):
  return tff.simulation.datasets.TestClientData(
      {client_id: _examples(5, **kwargs) for client_id in ids}
  )


def _input_spec(x_shape=(None, 4), y_shape=(None,), y_dtype=tf.int32):
  return collections.OrderedDict(
      x=tf.TensorSpec(x_shape, tf.float32), y=tf.TensorSpec(y_shape, y_dtype)
  )


def _model(num_logits=_NUM_CLASSES, input_spec=None, predict=None):
  """Softmax regression."""

  @tf.function
  def linear(model_weights, x, training):
    del training
    (kernel,), _ = model_weights
    return tf.linalg.matmul(tf.reshape(x, [-1, 4]), kernel)

  return tff.learning.models.FunctionalModel(
      initial_weights=((np.zeros([4, num_logits], np.float32),), ()),
      predict_on_batch_fn=predict or linear,
      loss_fn=lambda output, label, sample_weight=None: tf.reduce_mean(output),
      input_spec=input_spec or _input_spec(),
  )


def _with(examples, **changes):
  return collections.OrderedDict(examples, **changes)


def _fields(**changes):
  fields = dict(
      name='mine',
      client_data=_client_data(),
      holdout=_examples(6),
      test=_examples(7),
      model=_model(),
      num_classes=_NUM_CLASSES,
      client_learning_rate=0.1,
      **dict(batch_size=2, client_epochs=1, rounds=3, cohort_size=2),
  )
  assert set(changes) <= set(fields)
  return {**fields, **changes}


def test_custom_task():
  fields = _fields()
  mine = task.Task(**fields)
  assert all(getattr(mine, name) is value for name, value in fields.items())
  with pytest.raises(AttributeError):
    mine.rounds = 4
  # The input spec may be a tuple.
  task.Task(**_fields(model=_model(input_spec=tuple(_input_spec().values()))))


def test_keras_model():
  keras_model = tf.keras.Sequential(
      [tf.keras.layers.InputLayer([4]), tf.keras.layers.Dense(_NUM_CLASSES)]
  )
  model = tff.learning.models.functional_model_from_keras(
      keras_model,
      tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      _input_spec(),
  )
  task.Task(**_fields(model=model))
  with pytest.raises(ValueError, match=r'logits of shape \[batch, 5\]'):
    task.Task(**_fields(model=model, num_classes=5))


@pytest.mark.parametrize(
    'changes, kind, message',
    [
        ({'name': 3}, TypeError, 'name must be a str; found int'),
        ({'client_data': {}}, TypeError, 'client_data must be a ClientData'),
        ({'holdout': [1]}, TypeError, 'holdout must be a Mapping'),
        (
            {'test': _with(_examples(2), y=[0, 1])},
            TypeError,
            'test.y must be a ndarray; found list',
        ),
        ({'model': tf.keras.Sequential()}, TypeError, 'FunctionalModel; found'),
        ({'num_classes': 3.0}, TypeError, 'num_classes must be an int'),
        ({'name': ''}, ValueError, 'name must not be empty'),
        ({'num_classes': 1}, ValueError, 'num_classes must be >= 2; found 1'),
        ({'batch_size': 0}, ValueError, 'batch_size must be >= 1; found 0'),
        ({'client_epochs': 0}, ValueError, 'client_epochs must be >= 1'),
        ({'rounds': -1}, ValueError, 'rounds must be >= 1; found -1'),
        ({'cohort_size': 0}, ValueError, 'cohort_size must be >= 1; found 0'),
        ({'cohort_size': 4}, ValueError, 'cohort_size is 4 .* only 3 clients'),
        ({'client_learning_rate': 0.0}, ValueError, 'must be > 0; found 0.0'),
        ({'client_learning_rate': np.inf}, ValueError, 'found inf'),
    ],
)
def test_wrong_field_raises(changes, kind, message):
  with pytest.raises(kind, match=message) as error:
    task.Task(**_fields(**changes))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('field', ['holdout', 'test'])
@pytest.mark.parametrize(
    'examples, message',
    [
        ({'x': np.zeros([2, 4])}, 'must hold examples'),
        (_examples(0), r'found shapes \(0, 4\) and \(0,\)'),
        (_with(_examples(3), x=_examples(2)['x']), r'\(2, 4\) and \(3,\)'),
        (_with(_examples(1), y=np.array(0, np.int32)), r'\(1, 4\) and \(\)'),
        (_with(_examples(3), x=np.zeros([3, 5], np.float32)), r'found.*\(5,\)'),
        (_with(_examples(3), y=np.zeros([3, 1], np.int32)), r'found.*\(1,\)'),
        (_examples(3, dtype=np.float64), 'found.*float64'),
        (_examples(3, label_dtype=np.int64), 'found.*int64'),
        (
            _with(_examples(1), x=np.full([1, 4], np.nan, np.float32)),
            'must be finite',
        ),
        (_with(_examples(1), y=np.array([3], np.int32)), 'between 0 and 2'),
        (_with(_examples(1), y=np.array([-1], np.int32)), 'from -1 to -1'),
    ],
)
def test_wrong_examples_raise(field, examples, message):
  with pytest.raises(ValueError, match=f'^{field}.*{message}') as error:
    task.Task(**_fields(**{field: examples}))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'client_data, message',
    [
        (lambda: _client_data(ids=('b', 'a', 'c')), 'ids must be sorted'),
        (lambda: _client_data(dtype=np.float64), 'found.*float64'),
        (lambda: _client_data(label_dtype=np.int64), 'found.*int64'),
        (
            lambda: _client_data().preprocess(lambda data: data.batch(2)),
            r'shape=\(4,\).*found.*shape=\(None, 4\)',
        ),
        (
            lambda: tff.simulation.datasets.TestClientData(
                {'a': tuple(_examples(3).values())}
            ),
            r'must hold examples OrderedDict.*found \(Tens',
        ),
    ],
)
def test_wrong_client_data_raise(client_data, message):
  with pytest.raises(ValueError, match=f'client_data.*{message}'):
    task.Task(**_fields(client_data=client_data()))


@pytest.mark.parametrize(
    'spec, message',
    [
        ({'x': tf.TensorSpec([None, 4])}, 'must be OrderedDict'),
        (_input_spec(x_shape=(8, 4)), 'x must have an unknown batch'),
        (_input_spec(x_shape=None), 'x must have an unknown batch'),
        (_input_spec(x_shape=(None, None)), 'x must be known but for'),
        (_input_spec(y_shape=(8,)), 'y must have an unknown batch'),
        (_input_spec(y_shape=(None, 1)), 'y must be a vector of integers'),
        (_input_spec(y_dtype=tf.float32), 'y must be a vector of integers'),
    ],
)
def test_wrong_input_spec_raises(spec, message):
  with pytest.raises(ValueError, match=message):
    task.Task(**_fields(model=_model(input_spec=spec)))


def test_wrong_logits_raise():
  with pytest.raises(ValueError, match=r'\[batch, 3\].*\(None, 5\)'):
    task.Task(**_fields(model=_model(num_logits=5)))

  @tf.function
  def two_outputs(model_weights, x, training):
    del model_weights, training
    return x, x

  with pytest.raises(ValueError, match='a tensor of logits; found a tuple'):
    task.Task(**_fields(model=_model(predict=two_outputs)))
