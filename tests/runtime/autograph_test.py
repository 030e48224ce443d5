"""AutoGraph needs no temporary folder and leaves nothing behind in it."""

import subprocess
import sys
import tempfile

import pytest
import tensorflow as tf

from fedaot_tff.runtime import autograph
from tests.runtime import processes

_LIMITED = """
import os, resource, signal
import tensorflow as tf
from fedaot_tff.runtime import execution_context
execution_context.set_{context}_execution_context()
# As `ulimit -f 0`: any write to a file fails.
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
@tf.function
def total(dataset):
  result = tf.constant(0, tf.int64)
  for element in iter(dataset):
    result += element
  return result
os.write(1, b'%d' % total(tf.data.Dataset.range(5)).numpy())
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def in_memory(monkeypatch, tmp_path):
  autograph.keep_in_memory()
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))


@pytest.mark.parametrize('context', ['in_process', 'native'])
def test_a_killed_process_without_room_converts_and_leaves_no_file(
    tmp_path, context
):
  path = tmp_path / 'limited.py'  # AutoGraph reads sources from files.
  path.write_text(_LIMITED.format(context=context))
  folder = tmp_path / 'temporary'
  folder.mkdir()
  done = subprocess.run(
      [sys.executable, path],
      env=processes.environment(TMPDIR=str(folder)),
      stdout=subprocess.PIPE,
      timeout=60,
      check=False,
  )
  assert done.stdout == b'10'
  assert not list(folder.iterdir())


def test_errors_name_the_line_that_was_converted():
  @tf.function
  def fails(x):
    if x > 0:
      raise ValueError('found here')  # The line that is looked for.
    return x

  with pytest.raises(ValueError, match='found here') as caught:
    fails(tf.constant(1.0))
  assert 'The line that is looked for.' in str(caught.value)
  assert __file__ in str(caught.value)


# By itself: what other tests had converted must not count.
_BUILD = """
import linecache, re
import tensorflow_federated as tff
import fedaot_tff
from tasks import image_models
fedaot_tff.set_in_process_execution_context()
model = image_models.mlp((2,), 2, hidden_sizes=(3,))
sgd = tff.learning.optimizers.build_sgdm(0.1)
holdout = fedaot_tff.HoldOut(
    model, ([[0.0, 1.0], [1.0, 0.0]], [0, 1]), client_optimizer=sgd
)
fedaot_tff.build_fedaot_fed_avg(model, sgd, holdout=holdout)
for path in list(linecache.cache):
  if path.startswith('<autograph_generated_'):
    print(*re.findall(r'def tf__(\\w+)', ''.join(linecache.getlines(path))))
"""


def test_nothing_of_ours_is_converted_but_the_loop_over_steps():
  done = subprocess.run(
      [sys.executable, '-c', _BUILD],
      env=processes.environment(),
      stdout=subprocess.PIPE,
      text=True,
      timeout=120,
      check=True,
  )
  converted = set(done.stdout.split())
  assert {'client_update_fn', 'train'} <= converted
  assert not converted & {
      'logits',
      'cross_entropy',
      '_initialize_metrics',
      '_update_metrics',
      '_finalize_metrics',
      'loss_and_gradient',
      'zero_all_if_any_non_finite',
      'check_weights_gradients_match',
      'handle_indexed_slices_gradients',
  }
