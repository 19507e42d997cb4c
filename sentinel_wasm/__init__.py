"""Runs users' WebAssembly modules as an agent of the Sentinel/Zentinel reverse proxy."""

__version__ = "0.1.0"
