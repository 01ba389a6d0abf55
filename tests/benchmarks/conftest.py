import jax
import pytest


@pytest.fixture(autouse=True)
def _as_users_run_it():
    """What is measured is written as a user would write it, without the tests' strictness."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield
