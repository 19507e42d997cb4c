NAMES: tuple[str, ...]
SIZES: dict[str, int]

def bind(addresses: tuple[int, ...]) -> None: ...
