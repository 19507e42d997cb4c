"""The compiled part; everything else is said in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = ("_wasmtime", "_ticker", "_hostcalls", "_fastpath")

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"sentinel_wasm.{name}",
                [f"sentinel_wasm/{name}.pyx"],
                extra_compile_args=["-O3", "-Wall", "-Wextra", "-Wno-unused-parameter"],
            )
            for name in MODULES
        ],
        compiler_directives={"language_level": 3},
    ),
)
