"""Tests for what is usable of replies that nobody vouches for."""

from flwr.app import Array
from flwr.app import ArrayRecord
from flwr.app import ConfigRecord
from flwr.app import Message
from flwr.app import MetricRecord
from flwr.app import RecordDict
import numpy as np
import pytest

from fedaot.flower import replies
from tests.flower import messages

_MODEL = {'w': np.arange(6, dtype=np.float32).reshape(2, 3), 'n': np.asarray(3)}


def _read(message):
  return replies.read(message, 'num-examples', _MODEL)


def _array(data, stype='numpy.ndarray'):
  return Array(dtype='float32', shape=(2, 3), stype=stype, data=data)


def _with(array):
  return messages.reply(1, ArrayRecord({'w': array, 'n': Array(_MODEL['n'])}))


@pytest.mark.parametrize(
    'array',
    [
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6, dtype='>f4').reshape(2, 3),
        np.arange(6, dtype=np.float16).reshape(2, 3)[:, ::-1],
        np.arange(6, dtype=np.int8).reshape(2, 3),
        np.float32(4.0),
        np.zeros((0, 3), np.float32),
        np.asarray(True),
    ],
)
def test_arrays_are_what_flower_makes_of_them(array):
  sent = Array(np.asarray(array))
  found = replies.read_array(sent)
  assert found.dtype == sent.numpy().dtype
  np.testing.assert_array_equal(found, sent.numpy())


def test_an_array_is_not_copied():
  found = replies.read_array(Array(np.ones((100, 10))))
  assert found.base is not None and not found.flags.owndata


def test_a_reply_is_read_in_the_order_of_the_model():
  trained = {'n': np.asarray(4), 'w': _MODEL['w'].astype(np.float64) + 1}
  found = _read(messages.reply(5, trained, num_examples=12))
  assert found.node_id == 5
  assert found.num_examples == 12.0
  np.testing.assert_array_equal(found.arrays[0], trained['w'])
  np.testing.assert_array_equal(found.arrays[1], 4)


_DATA = Array(_MODEL['w']).data
_METRICS = MetricRecord({'num-examples': 1})
_RECORD = messages.record(_MODEL)


@pytest.mark.parametrize(
    'message',
    [
        Message(
            messages.Error(code=1, reason='out of memory'),
            reply_to=(messages.instruction(1)),
        ),
        messages.reply(1, {'w': _MODEL['w']}),
        messages.reply(1, {**_MODEL, 'more': np.zeros(2)}),
        messages.reply(1, {'w': _MODEL['w'].T, 'n': _MODEL['n']}),
        messages.reply(1, {'w': _MODEL['w'].ravel(), 'n': _MODEL['n']}),
        messages.reply(1, {'w': _MODEL['w'] * 1j, 'n': _MODEL['n']}),
        messages.reply(1, {'w': _MODEL['w'].astype('S4'), 'n': _MODEL['n']}),
        messages.reply(1, {'w': _MODEL['w'], 'n': np.asarray(2.5)}),
        messages.answer(1, RecordDict({'metrics': _METRICS})),
        messages.answer(1, RecordDict({'arrays': _RECORD})),
        messages.answer(
            1,
            RecordDict({'a': _RECORD, 'b': _RECORD, 'metrics': _METRICS}),
        ),
        messages.answer(
            1, RecordDict({'a': _RECORD, 'm': _METRICS, 'more': _METRICS})
        ),
        messages.answer(
            1,
            RecordDict({'arrays': _RECORD, 'm': ConfigRecord({'x': 'y'})}),
        ),
        messages.reply(1, _RECORD, num_examples=0),
        messages.reply(1, _RECORD, num_examples=-3.0),
        messages.reply(1, _RECORD, num_examples=float('nan')),
        messages.reply(1, _RECORD, num_examples=float('inf')),
        messages.reply(1, _RECORD, num_examples=2**62),
        messages.reply(1, _RECORD, num_examples=[10, 10]),
        _with(_array(b'')),
        _with(_array(b'rubbish')),
        _with(_array(_DATA[:-1])),
        _with(_array(_DATA + b'\0')),
        _with(_array(_DATA, stype='pickle')),
        _with(_array(b'PK\3\4' + _DATA)),
        _with(_array(_DATA.replace(b"'<f4'", b"'|O8'"))),
        _with(_array(_DATA.replace(b'(2, 3)', b'(9**9,'))),
        _with(_array(_DATA.replace(b'(2, 3)', b'(-2,-3'))),
        _with(_array(_DATA.replace(b'(2, 3)', b'(3, 2)'))),
    ],
)
def test_an_unusable_reply_is_an_error(message):
  with pytest.raises(ValueError):
    _read(message)


def test_damaged_bytes_are_an_error_or_an_array_of_their_header():
  rng, num_arrays = np.random.default_rng(0), 0
  for _ in range(3000):
    data = bytearray(_DATA)
    for place in rng.integers(0, 140, rng.integers(1, 4)):
      data[place % len(data)] = rng.integers(256)
    if rng.random() < 0.3:
      data = data[: rng.integers(len(data))]
    try:
      found = replies.read_array(_array(bytes(data)))
    except ValueError:
      pass
    else:
      num_arrays += 1
      np.testing.assert_array_equal(found, _array(bytes(data)).numpy())
  assert 50 < num_arrays < 2900


def _metrics(**values):
  content = messages.reply(1, _RECORD, **values).content
  return replies.Reply(1, content, 10.0, [])


@pytest.mark.parametrize(
    'odd',
    [
        {'loss': float('nan'), 'f1': [0.1, 0.2]},
        {'loss': 1.0, 'f1': [0.1, float('inf')]},
        {'loss': 1.0, 'f1': [0.1]},
        {'loss': [1.0], 'f1': [0.1, 0.2]},
        {'loss': 1.0},
        {'loss': 1.0, 'f1': [0.1, 0.2], 'more': 2},
    ],
)
def test_metrics_of_another_kind_than_most_are_left_out(odd):
  usual = [_metrics(loss=1, f1=[0.5, 0.5]) for _ in range(3)]
  found = replies.of_usual_metrics([usual[0], _metrics(**odd), *usual[1:]])
  assert found == [reply.content for reply in usual]


def test_no_metrics_are_usual_if_none_is_finite():
  assert not replies.of_usual_metrics([_metrics(loss=float('nan'))])
  assert not replies.of_usual_metrics([])
