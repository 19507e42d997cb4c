STDOUT: int
STDERR: int
TRACE: int
LOG: int
CALLBACKS: dict[tuple[str, str], int]
