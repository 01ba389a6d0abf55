"""Strictness for every test: shapes and types checked at run time, no silent promotion, two
devices.
"""

import gc
import os
import shutil
import sys
from pathlib import Path

# Before jax is imported anywhere: as many devices as it takes to notice code that assumes one.
# And fast code matters less here than code that is there fast, but for benchmarks: compiling a
# training step takes a third of the time without MLIR's fusions and with one LLVM module.
if not any("benchmarks" in argument for argument in sys.argv):
    os.environ["XLA_FLAGS"] = " ".join(
        [
            os.environ.get("XLA_FLAGS", ""),
            "--xla_force_host_platform_device_count=2",
            "--xla_backend_optimization_level=0",
            "--xla_llvm_disable_expensive_passes=true",
            "--xla_cpu_use_fusion_emitters=false",
            "--xla_cpu_parallel_codegen_split_count=1",
        ]
    )
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Compiled code is shared by all tests, the processes that they start, and the next run of them.
CACHE = Path(__file__).parent.parent / ".cache" / "tests"
CACHE_LIMIT = 2**31
"""Bytes; a larger cache is mostly of code that is no more, and is begun again."""
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit the variable
    if sum(file.stat().st_size for file in CACHE.rglob("*") if file.is_file()) > CACHE_LIMIT:
        shutil.rmtree(CACHE)
    os.environ["XDG_CACHE_HOME"] = str(CACHE)
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

MAPS_LIMIT = 16_000
"""Memory maps of a process. Each compiled program takes several, Linux allows 65,530 in all, and
XLA aborts the process where it gets no more.
"""


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs():
    """Lets go of compiled programs before they are too many; needed again, they are on disk."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > MAPS_LIMIT:
        jax.clear_caches()
        gc.collect()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups tests that share a fixture of their module, such as a round that takes a minute: with
    `--dist loadgroup` one worker makes it for all of them. All other tests are dealt out singly.
    """
    for item in items:
        fixtures = item._fixtureinfo.name2fixturedefs
        indices = item.callspec.indices if hasattr(item, "callspec") else {}
        shared = [
            f"{name}{indices.get(name, '')}"
            for name, found in fixtures.items()
            if found[-1].scope == "module" and not name.startswith("_")
        ]
        if shared:
            item.add_marker(pytest.mark.xdist_group("-".join([item.path.stem, *shared])))
