"""Tests for the evaluation of a model."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.simulation import evaluation

_NUM_FEATURES = 4
_NUM_CLASSES = 3
_NUM_EXAMPLES = 23


def _make_model(
    y_dtype=tf.int32, pack=collections.OrderedDict, y_shape=(None,), output=None
):
  """Softmax regression on x times a non-trainable scale."""

  @tf.function
  def predict(weights, x, training):
    assert not training
    (kernel, bias), (scale,) = weights
    logits = tf.linalg.matmul(x * scale, kernel) + bias
    return output(logits) if output else logits

  def loss(output, label, sample_weight=None):
    del sample_weight
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(label, output)
    )

  shape = [_NUM_FEATURES, _NUM_CLASSES]
  return tff.learning.models.FunctionalModel(
      initial_weights=(
          (np.zeros(shape, np.float32), np.zeros(shape[1:], np.float32)),
          (np.ones([], np.float32),),
      ),
      predict_on_batch_fn=predict,
      loss_fn=loss,
      input_spec=pack(
          x=tf.TensorSpec([None, _NUM_FEATURES], tf.float32),
          y=tf.TensorSpec(y_shape, y_dtype),
      ),
  )


@pytest.fixture(name='test_set')
def fixture_test_set():
  rng = np.random.default_rng(1)
  return collections.OrderedDict(
      x=rng.normal(size=[_NUM_EXAMPLES, _NUM_FEATURES]),
      y=rng.integers(0, _NUM_CLASSES, _NUM_EXAMPLES),
  )


@pytest.fixture(name='weights')
def fixture_weights():
  rng = np.random.default_rng(2)
  return tff.learning.models.ModelWeights(
      [
          rng.normal(size=[_NUM_FEATURES, _NUM_CLASSES]).astype(np.float32),
          rng.normal(size=[_NUM_CLASSES]).astype(np.float32),
      ],
      [np.float32(2.0)],
  )


def _reference(test_set, weights):
  kernel, bias = weights.trainable
  logits = 2.0 * test_set['x'] @ kernel + bias
  shifted = logits - logits.max(axis=1, keepdims=True)
  losses = (
      np.log(np.exp(shifted).sum(axis=1))
      - shifted[np.arange(len(logits)), test_set['y']]
  )
  return np.mean(logits.argmax(axis=1) == test_set['y']), losses.mean()


@pytest.mark.parametrize('batch_size', [1, 5, 23, 500])
def test_means_over_all_examples(test_set, weights, batch_size):
  evaluate = evaluation.build_evaluation(
      _make_model(), test_set, batch_size=batch_size
  )
  result = evaluate(weights)
  accuracy, loss = _reference(test_set, weights)
  assert list(result) == ['accuracy', 'loss']
  assert 0 < accuracy < 1
  assert result['accuracy'] == accuracy
  assert result['loss'] == pytest.approx(loss, rel=1e-5)
  assert {type(v) for v in result.values()} == {float}


def test_takes_models_of_pairs(test_set, weights):
  model = _make_model(tf.int64, lambda x, y: (x, y))
  result = evaluation.build_evaluation(model, test_set)(weights)
  assert result['accuracy'] == _reference(test_set, weights)[0]


def test_evaluates_the_weights_of_each_call(test_set, weights):
  evaluate = evaluation.build_evaluation(_make_model(), test_set)
  first = evaluate(weights)
  zeros = tff.learning.models.ModelWeights(
      [np.zeros_like(w) for w in weights.trainable], [np.float32(2.0)]
  )
  assert evaluate(zeros)['loss'] == pytest.approx(np.log(3), rel=1e-6)
  assert evaluate(weights) == first


def test_nan_predicts_nothing(test_set, weights):
  test_set['y'] = np.zeros_like(test_set['y'])
  weights.trainable[1][:] = np.nan
  result = evaluation.build_evaluation(_make_model(), test_set)(weights)
  assert result['accuracy'] == 0.0
  assert np.isnan(result['loss'])


@pytest.mark.parametrize(
    'change, message',
    [
        (
            lambda x, y: dict(x=x[:, :3], y=y),
            r"test\['x'\] must match .*float64 \(23, 3\)",
        ),
        (lambda x, y: dict(x=x, y=y[:, None]), r"\['y'\] must .*\(23, 1\)"),
        (lambda x, y: dict(x=x, y=x[:, 0]), r"\['y'\] must .*found float64"),
        (lambda x, y: dict(x=x, y=y > 0), r"\['y'\] must .*found bool"),
        (lambda x, y: dict(x=x, y=y[:5]), 'as many x as y; found 23 and 5'),
        (lambda x, y: dict(x=x[:0], y=y[:0]), 'at least one example'),
    ],
)
def test_rejects_test_sets_that_do_not_fit(test_set, change, message):
  with pytest.raises(ValueError, match=message) as error:
    evaluation.build_evaluation(_make_model(), change(**test_set))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'y, dtype',
    [
        (np.zeros([_NUM_EXAMPLES, 1], int), tf.int32),
        (np.eye(_NUM_CLASSES, dtype=int)[[0] * _NUM_EXAMPLES], tf.int32),
        (np.zeros([_NUM_EXAMPLES]), tf.float32),
        (np.zeros([_NUM_EXAMPLES], bool), tf.bool),
    ],
    ids=['column', 'one_hot', 'float', 'bool'],
)
def test_rejects_models_of_other_labels(test_set, y, dtype):
  model = _make_model(dtype, y_shape=[None, *y.shape[1:]])
  with pytest.raises(ValueError, match='integer classes .* found') as error:
    evaluation.build_evaluation(model, dict(test_set, y=y))
  assert dtype.name in str(error.value)
  assert '\n' not in str(error.value)


def test_rejects_predictions_that_are_no_logits(test_set, weights):
  model = _make_model(output=lambda logits: logits[:, 0])
  evaluate = evaluation.build_evaluation(model, test_set)
  message = r'logits \[b, C\]; found .*\(None,\)'
  with pytest.raises(ValueError, match=message) as info:
    evaluate(weights)
  assert '\n' not in str(info.value)


@pytest.mark.parametrize(
    'options, error, message',
    [
        (dict(test=(1, 2)), TypeError, 'test must be a Mapping; found tuple'),
        (dict(test=dict(x=[1])), ValueError, r"found \['x'\]"),
        (dict(model=_make_model), TypeError, 'FunctionalModel; found function'),
        (dict(batch_size=1.5), TypeError, 'batch_size must be an int'),
        (dict(batch_size=0), ValueError, 'batch_size must be >= 1'),
    ],
)
def test_rejects_other_arguments(test_set, options, error, message):
  with pytest.raises(error, match=message):
    evaluation.build_evaluation(
        **{'model': _make_model(), 'test': test_set, **options}
    )
