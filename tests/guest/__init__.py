"""The guest ABI (docs: guest-abi), line by line: data, modules, calls, host imports, the pool."""
