"""Strictness for every test: shapes and types checked at run time, no silent promotion, two
devices.
"""

import os
import sys
import tempfile

# Before jax is imported anywhere: as many devices as it takes to notice code that assumes one.
# And fast code matters less here than code that is there fast, but for benchmarks.
if not any("benchmarks" in argument for argument in sys.argv):
    os.environ["XLA_FLAGS"] = " ".join(
        [
            os.environ.get("XLA_FLAGS", ""),
            "--xla_force_host_platform_device_count=2",
            "--xla_backend_optimization_level=0",
            "--xla_llvm_disable_expensive_passes=true",
        ]
    )
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from hypothesis import settings
from jaxtyping import install_import_hook

# Compiled code is shared by all tests and the processes that they start, and kept nowhere else.
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit it
    CACHE = tempfile.TemporaryDirectory(prefix="amplify-tests-")
    os.environ["XDG_CACHE_HOME"] = CACHE.name
jax.config.update("jax_compilation_cache_dir", f"{os.environ['XDG_CACHE_HOME']}/amplify/compiled")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

# Every signature of ours is checked while tests run, and only then: users do not pay for it.
install_import_hook("amplify", "beartype.beartype")

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Compiling takes longer than hypothesis allows a test by default; the same examples every time keep
# CI reproducible.
settings.register_profile("amplify", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("amplify")
