"""Builds the `fedaot` distribution: `fedaot`, on NumPy, and `fedaot_tff`."""

import pathlib
import re

import setuptools

_ROOT = pathlib.Path(__file__).parent


def _version() -> str:
  """Reads `__version__` without importing the package."""
  source = (_ROOT / 'fedaot' / '__init__.py').read_text(encoding='utf-8')
  return re.search(r"^__version__ = '([^']+)'$", source, re.MULTILINE).group(1)


# TensorFlow Federated 0.87.0 is not named here: it pins a jaxlib release that
# was withdrawn, so a resolver that meets it gives up. Its own run-time needs
# stand in its place, with the jax releases next to the pinned one; the package
# itself comes with `pip install --no-deps tensorflow-federated==0.87.0`.
_TENSORFLOW_FEDERATED_REQUIRES = [
    'absl-py>=1.0,<2',
    'attrs~=23.1',
    'cachetools~=5.3',
    'dm-tree==0.1.8',
    'dp-accounting==0.4.3',
    'google-vizier==0.1.11',
    'googleapis-common-protos==1.61.0',
    'grpcio~=1.46',
    'jax>=0.4.13,<0.4.15',
    'jaxlib>=0.4.13,<0.4.15',
    'ml-dtypes==0.2.*',
    'numpy~=1.25',
    'portpicker~=1.6',
    'scipy~=1.9.3',
    'tensorflow==2.14.*',
    'tensorflow-model-optimization==0.7.5',
    'tensorflow-privacy==0.9.0',
    'tqdm~=4.64',
    'typing-extensions==4.5.*',
]

setuptools.setup(
    name='fedaot',
    version=_version(),
    description=(
        'Byzantine-robust federated learning with learned aggregation weights,'
        ' for Flower, TensorFlow Federated and plain arrays.'
    ),
    license='Apache-2.0',
    packages=setuptools.find_packages(
        where=str(_ROOT),
        include=['fedaot', 'fedaot.*', 'fedaot_tff', 'fedaot_tff.*'],
    ),
    python_requires='>=3.9',
    install_requires=['numpy>=1.23'],
    extras_require={
        # For `fedaot_tff`; Python 3.9 to 3.11.
        'tff': _TENSORFLOW_FEDERATED_REQUIRES,
        # For `fedaot.flower`.
        'flower': ['flwr>=1.21'],
        # The CUDA libraries of `tensorflow[and-cuda]` 2.14.1, but for TensorRT,
        # whose pinned release was withdrawn and which nothing here uses.
        'gpu': [
            'nvidia-cublas-cu11==11.11.3.6',
            'nvidia-cuda-cupti-cu11==11.8.87',
            'nvidia-cuda-nvcc-cu11==11.8.89',
            'nvidia-cuda-runtime-cu11==11.8.89',
            'nvidia-cudnn-cu11==8.7.0.84',
            'nvidia-cufft-cu11==10.9.0.58',
            'nvidia-curand-cu11==10.3.0.86',
            'nvidia-cusolver-cu11==11.4.1.48',
            'nvidia-cusparse-cu11==11.7.5.86',
            'nvidia-nccl-cu11==2.16.5',
        ],
        # What `tasks` and `binaries`, programs of the checkout, need as well.
        'experiments': [
            'jinja2',
            'markupsafe',
            'matplotlib',
            'mlxtend==0.23.4',
            'pandas',
            'scikit-learn',
            'tensorflow-datasets==4.9.3',
            'tensorflow-metadata<1.17',
        ],
        'test': ['pytest', 'pytest-benchmark', 'pytest-xdist'],
    },
)
