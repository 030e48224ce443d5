"""The 1,797 handwritten digits of scikit-learn, with no download.

Grey images of 8 x 8 pixels with 17 levels (Alpaydin and Kaynak, "Optical
Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
licence CC BY 4.0), as they come with the scikit-learn package. Of them 397 are
the test set, 100 by default the server's hold-out, and the rest is spread over
the clients; test set and hold-out are stratified. With the default options,
federated averaging without attackers classifies about 95 % of the test images
correctly with the multilayer perceptron (7,510 parameters) and 97 % with the
convolutional network (19,466).
"""

import numpy as np

from tasks import spec

_LARGEST_PIXEL = 16


def _read(options, seeds):
  from sklearn import datasets  # pylint: disable=g-import-not-at-top

  images, labels = datasets.load_digits(return_X_y=True)
  return spec.split_one_set(
      (images / _LARGEST_PIXEL).astype(np.float32).reshape(-1, 8, 8, 1),
      labels.astype(np.int64),
      test_size=397,
      holdout_size=options['holdout_size'],
      seed=next(seeds),
  )


TASK = spec.TaskSpec(
    summary='1,797 digits of 8 x 8 pixels from scikit-learn; no download.',
    defaults=dict(
        seed=0,
        model='mlp',
        num_clients=30,
        **spec.SIMULATED_CLIENTS,
        holdout_size=100,
        batch_size=10,
        client_epochs=2,
        client_learning_rate=0.2,
        rounds=30,
        cohort_size=10,
    ),
    # A second convolution would leave nothing of 8 x 8 pixels.
    models={'mlp': {}, 'cnn': {'filters': (32,)}},
    num_classes=10,
    read=_read,
)
