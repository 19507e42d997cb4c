"""The compiled part; everything else is said in pyproject.toml."""

import os
import shlex

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = (
    "_wasmtime",
    "_ticker",
    "_hostcalls",
    "_recent",
    "_metrics",
    "_instances",
    "_fastpath",
    "_workers",
    "_strings",
    "_chunks",
    "_answers",
    "_quick",
    "_stream",
    "_protobuf",
)

# The caller's own come last, so that they win (ci/sanitized.sh).
CFLAGS = shlex.split(os.environ.get("CFLAGS", ""))

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"sentinel_wasm.{name}",
                [f"sentinel_wasm/{name}.pyx"],
                extra_compile_args=["-O3", "-Wall", "-Wextra", "-Wno-unused-parameter", *CFLAGS],
            )
            for name in MODULES
        ],
        compiler_directives={"language_level": 3},
        nthreads=os.cpu_count() or 1,
    ),
    options={"build_ext": {"parallel": os.cpu_count()}},
)
