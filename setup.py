"""Builds the distribution; pyproject.toml describes it."""

import setuptools

setuptools.setup()
