"""PneumoniaMNIST: chest X-rays of children with and without pneumonia.

Grey images of 28 x 28 pixels, 4,708 for training, 524 for validation and 624
for testing; class 0 is normal, 1 is pneumonia, and three in four images show
one (Yang et al., "MedMNIST v2: A Large-Scale Lightweight Benchmark for 2D and
3D Biomedical Image Classification", Scientific Data 2023; licence CC BY 4.0).
The clients share the training images, the stratified hold-out is drawn from the
validation images, and the test images are the test set. Models: 'cnn' (56,194
parameters) and 'mlp' (78,702).

If the data file is missing, it is downloaded once (4 MB) to `data_dir`, by
default `~/.cache/fedaot`.
"""

import functools
import os

import numpy as np

from tasks import data_files
from tasks import spec

_FILE_NAME = 'pneumoniamnist.npz'
_URL = f'https://zenodo.org/records/10519652/files/{_FILE_NAME}'
_MD5 = '28209eda62fecd6e6a2d98b1501bb15f'
_DEFAULT_FOLDER = os.path.join('~', '.cache', 'fedaot')


def _read(options, seeds):
  folder = data_files.find_folder(options['data_dir'])
  path = os.path.join(folder or os.path.expanduser(_DEFAULT_FOLDER), _FILE_NAME)
  data_files.ensure_whole(
      path,
      url=_URL,
      fetch=functools.partial(data_files.download, _URL),
      find_problem=functools.partial(data_files.compare_md5, md5=_MD5),
  )
  # The checksum vouches for what is in the file.
  with np.load(path) as file:
    train, validation, test = (
        (
            file[f'{split}_images'][..., np.newaxis],
            file[f'{split}_labels'][:, 0].astype(np.int64),
        )
        for split in ('train', 'val', 'test')
    )
  return spec.split_given_sets(
      train,
      validation,
      test,
      holdout_size=options['holdout_size'],
      seed=next(seeds),
  )


TASK = spec.TaskSpec(
    summary='5,856 chest X-rays, PneumoniaMNIST; downloads 4 MB once.',
    defaults=dict(
        seed=0,
        model='cnn',
        num_clients=50,
        **spec.SIMULATED_CLIENTS,
        holdout_size=100,
        batch_size=10,
        client_epochs=1,
        client_learning_rate=0.05,
        rounds=30,
        cohort_size=20,
        data_dir=None,
    ),
    models={'cnn': {}, 'mlp': {}},
    num_classes=2,
    read=_read,
)
