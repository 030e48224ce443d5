"""Colour images of 100 classes on 500 clients: federated CIFAR-100.

The 50,000 training images of CIFAR-100, 32 x 32 pixels, are spread over 500
clients with 100 images each, as TensorFlow Federated hosts them: a client draws
coarse and then fine classes, which are the labels, from Dirichlet distributions
of its own (the Pachinko allocation of Reddi et al., "Adaptive Federated
Optimization", ICLR 2021). `num_clients` of them are chosen at random. The
stratified hold-out comes out of the 10,000 test images, and the rest of those
is the test set.

The file, `cifar100.sqlite`, is downloaded if it is missing. Clients are read
from it when they are sampled. Models, which standardise and augment the images:
'resnet20' (275,572 parameters), 'resnet18' (11,220,132), 'cnn' (85,380) and
'mlp' (317,400).
"""

import collections
import functools

from tasks import data_files
from tasks import hosted_files
from tasks import partition
from tasks import spec

_URL = 'https://storage.googleapis.com/tff-datasets-public/cifar100.sqlite.lzma'
_SPLITS = ('train', 'test')


def _read(options, seeds):
  # Both import TensorFlow.
  # pylint: disable=g-import-not-at-top
  import tensorflow_federated as tff

  from tasks import hosted_data

  path = hosted_files.file_path(_URL, options['data_dir'])
  train, test = hosted_data.load(
      tff.simulation.datasets.cifar100.load_data,
      path=path,
      url=_URL,
      splits=_SPLITS,
      features=lambda element: element['image'],
  )
  clients = hosted_data.choose_clients(
      train, options['num_clients'], next(seeds)
  )
  seed = next(seeds)
  pool = hosted_data.sample(test, test.client_ids, None, seed, path=path)
  drawn = partition.stratified_split(
      pool['y'], {'holdout_size': options['holdout_size']}, seed
  )
  holdout, test = (
      collections.OrderedDict(x=pool['x'][part], y=pool['y'][part])
      for part in drawn
  )
  return clients, holdout, test


def _find_file(options):
  data_files.check(
      hosted_files.file_path(_URL, options['data_dir']),
      url=_URL,
      find_problem=functools.partial(hosted_files.find_problem, splits=_SPLITS),
  )


TASK = spec.TaskSpec(
    summary='CIFAR-100 on 500 clients (Pachinko allocation).',
    defaults=dict(
        seed=0,
        model='resnet20',
        num_clients=None,
        holdout_size=100,
        batch_size=20,
        client_epochs=1,
        client_learning_rate=0.1,
        rounds=200,
        cohort_size=20,
        data_dir=None,
    ),
    models={'resnet20': {}, 'resnet18': {}, 'cnn': {}, 'mlp': {}},
    model_defaults={m: {'client_learning_rate': 0.03} for m in ('cnn', 'mlp')},
    num_classes=100,
    read=_read,
    find=_find_file,
    max_examples=50000,
    max_pool=10000,
    max_clients=500,
    # Of the training images, in [0, 1].
    pixel_moments=((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
)
