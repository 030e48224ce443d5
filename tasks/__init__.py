"""Federated tasks: real data on clients, a hold-out, a test set and a model."""

from tasks.registry import load_task
from tasks.registry import TASKS
