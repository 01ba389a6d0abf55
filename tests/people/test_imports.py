"""Web pages and the log start in no time: nothing that they import loads jax."""

import pkgutil
import subprocess
import sys

import pytest

from amplify import people, web

PEOPLE = [f"amplify.people.{module.name}" for module in pkgutil.iter_modules(people.__path__)]
WEB = [f"amplify.web.{module.name}" for module in pkgutil.iter_modules(web.__path__)]


@pytest.mark.parametrize("modules", [PEOPLE, WEB], ids=["people", "web"])
def test_no_module_imports_jax_or_anything_else_that_is_slow_to_load(modules):
    assert len(modules) > 9
    heavy = "{'jax', 'flax', 'orbax', 'transformers', 'tensorflow_datasets', 'scipy'}"
    code = f"import sys, {', '.join(modules)}; print(*{heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
