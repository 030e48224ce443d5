"""Handwritten characters by writer: federated EMNIST.

The images, 28 x 28 pixels with ink of value 1, are those of the Extended MNIST
data set, grouped by the person who wrote them, as the LEAF benchmark proposed
and TensorFlow Federated hosts them: 3,400 writers with 671,585 training and
77,483 test images of 62 classes (digits, then capital and small letters), or
3,383 writers with 341,873 and 40,832 images of digits. A writer is a client, so
the partition is the natural one. `num_clients` writers are chosen at random,
and at most `max_client_examples` training images of each.

Hold-out and test set are drawn uniformly from the test images of the chosen
writers together. For a given seed and choice of writers the hold-out is the
same whatever `max_test_examples`.

The file, `emnist_all.sqlite`, is downloaded if it is missing. Clients are read
from it when they are sampled. Models: 'cnn_dropout' (1,206,590 parameters, or
1,199,882 for digits), 'cnn' (60,094 or 56,714) and 'mlp' (84,762 or 79,510).
"""

import collections
import functools

from fedaot import checks
from tasks import data_files
from tasks import hosted_files
from tasks import spec

_URL = (
    'https://storage.googleapis.com/tff-datasets-public/emnist_all.sqlite.lzma'
)
_SPLITS = {
    10: ('digits_only_train', 'digits_only_test'),
    62: ('all_train', 'all_test'),
}


def _read(options, seeds):
  # Both import TensorFlow.
  # pylint: disable=g-import-not-at-top
  import tensorflow_federated as tff

  from tasks import hosted_data

  path = hosted_files.file_path(_URL, options['data_dir'])
  train, test = hosted_data.load(
      lambda folder: tff.simulation.datasets.emnist.load_data(
          only_digits=options['classes'] == 10, cache_dir=folder
      ),
      path=path,
      url=_URL,
      splits=_SPLITS[options['classes']],
      features=lambda element: 1.0 - element['pixels'][..., None],
  )
  clients = hosted_data.choose_clients(
      train, options['num_clients'], next(seeds)
  )
  limit_seed = next(seeds)
  size = options['holdout_size']
  pool = hosted_data.sample(
      test,
      clients.client_ids,
      size + options['max_test_examples'],
      next(seeds),
      path=path,
  )
  # Something is left for the test set.
  checks.check_int('holdout_size', size, minimum=1, maximum=len(pool['y']) - 1)
  if options['max_client_examples'] is not None:
    clients = hosted_data.limit_examples(
        clients, options['max_client_examples'], limit_seed
    )
  holdout, test = (
      collections.OrderedDict((key, array[part]) for key, array in pool.items())
      for part in (slice(size), slice(size, None))
  )
  return clients, holdout, test


def _find_file(options):
  data_files.check(
      hosted_files.file_path(_URL, options['data_dir']),
      url=_URL,
      find_problem=functools.partial(
          hosted_files.find_problem, splits=_SPLITS[options['classes']]
      ),
  )


TASK = spec.TaskSpec(
    summary='Handwritten characters by writer (federated EMNIST).',
    defaults=dict(
        seed=0,
        model='cnn_dropout',
        classes=62,
        num_clients=None,
        max_client_examples=None,
        max_test_examples=10000,
        holdout_size=100,
        batch_size=20,
        client_epochs=1,
        client_learning_rate=0.1,
        rounds=200,
        cohort_size=20,
        data_dir=None,
    ),
    models={'cnn_dropout': {}, 'cnn': {}, 'mlp': {}},
    num_classes=62,
    read=_read,
    find=_find_file,
    max_examples=671585,
    max_pool=77483,
    max_clients=3400,
)
