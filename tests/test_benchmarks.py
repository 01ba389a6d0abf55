"""`make bench` takes long and runs by itself; that it still fits the code is seen here."""

import importlib
import pkgutil

import pytest

from tests import benchmarks

MODULES = [module.name for module in pkgutil.iter_modules(benchmarks.__path__, "tests.benchmarks.")]


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_can_be_imported(name):
    importlib.import_module(name)
