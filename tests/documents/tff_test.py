"""The examples in TensorFlow Federated run as they are written."""

import collections
import types

import numpy as np
import pytest
import tensorflow_federated as tff

import fedaot_tff
from tasks import image_models
from tasks import task
from tests import small_problem
from tests.documents import pages

_NUM_CLASSES = 10


@pytest.fixture(autouse=True)
def _keep_context():
  """Examples set one; the tests have theirs."""
  context = tff.framework.get_context_stack().current
  yield
  tff.framework.set_default_context(context)


def _run(example, **names):
  """The names that there are after it."""
  names.update(fedaot_tff=fedaot_tff, tff=tff)
  exec(example, names)
  return names


def _distances_moved(process):
  """Of the model, by its process's rounds."""
  outputs = small_problem.run(process, 2)
  models = [small_problem.trainable(process, o.state) for o in outputs]
  return [np.linalg.norm(a - b) for a, b in zip(*models)]


def test_every_example_is_run():
  """By a test of this package or of tests/flower."""
  found = {name: len(pages.blocks(name, 'python')) for name in pages.NAMES}
  assert {name: number for name, number in found.items() if number} == {
      'README.md': 2,
      'docs/attacks.md': 2,
      'docs/contexts.md': 1,
      'docs/flower.md': 3,
      'docs/getting_started.md': 3,
      'docs/tasks.md': 1,
  }


def test_every_block_has_a_language():
  """Of which `bibtex`, `text` and `toml` are neither commands nor sources."""
  languages = {
      (name, language)
      for name in pages.NAMES
      for language, _ in pages.all_blocks(name)
      if language not in ('python', 'sh')
  }
  assert languages == {
      ('README.md', 'bibtex'),
      ('README.md', 'diff'),
      ('docs/adding_a_rule.md', 'diff'),
      ('docs/adding_a_rule.md', 'text'),
      ('docs/adding_an_attack.md', 'diff'),
      ('docs/adding_an_attack.md', 'text'),
      ('docs/flower.md', 'diff'),
      ('examples/flower/README.md', 'diff'),
      ('examples/flower/README.md', 'toml'),
  }


def test_federated_averaging():
  example, _ = pages.blocks('README.md', 'python')
  _, same, _ = pages.blocks('docs/getting_started.md', 'python')
  assert example.split() == same.split()
  names = _run(example, model_fn=small_problem.keras_model_fn)
  assert all(_distances_moved(names['process']))


def test_hold_out():
  *_, example = pages.blocks('docs/getting_started.md', 'python')
  examples = small_problem.examples(100, seed=0)
  names = _run(example, model=small_problem.model(), **examples)
  assert all(_distances_moved(names['process']))


def test_execution_context():
  (example,) = pages.blocks('docs/contexts.md', 'python')
  _run(example)


def _clients():
  rng = np.random.default_rng(0)
  return tff.simulation.datasets.TestClientData(
      {
          str(i): collections.OrderedDict(
              x=rng.standard_normal((12, 4)).astype(np.float32),
              y=rng.integers(_NUM_CLASSES, size=12),
          )
          for i in range(25)
      }
  )


@pytest.mark.slow
def test_attacks(capsys):
  example, _ = pages.blocks('docs/attacks.md', 'python')
  model = image_models.mlp((4,), num_classes=_NUM_CLASSES, seed=0)
  _run(example, client_data=_clients(), model=model)
  assert len(capsys.readouterr().out.splitlines()) == 30


def test_attack_of_your_own():
  _, example = pages.blocks('docs/attacks.md', 'python')
  attack = _run(example)['Reversed']()
  honest = types.SimpleNamespace(mean=2.0)
  assert attack.agree(types.SimpleNamespace(honest=honest), 'state') == (
      -2.0,
      'state',
  )


def test_a_task_of_your_own():
  (example,) = pages.blocks('docs/tasks.md', 'python')
  examples = small_problem.examples(500, seed=0)
  made = _run(example)['make_task'](examples['x'], np.int64(examples['y']))
  assert isinstance(made, task.Task)
