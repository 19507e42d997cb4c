"""python -m ci.wheels WHEEL...: fails where a wheel has what it should not; prints each extension's size.

With --same, fails where the wheels do not hold the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from zipfile import ZipFile

import click

MOST = 1 << 20  # bytes of one extension module


def contents(wheel: Path) -> dict[str, bytes]:
    """Every file's bytes, without the times of the archive."""
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def faults(files: dict[str, bytes]) -> list[str]:
    """What is wrong with a wheel of these files, in words."""
    own = [name for name in files if not name.startswith("sentinel_wasm/templates/")]
    found = [f"{name}: a source" for name in own if name.endswith((".c", ".pyx"))]
    found += [
        f"{name}: {len(data):,} bytes, more than {MOST:,}"
        for name, data in files.items()
        if name.endswith(".so") and len(data) > MOST
    ]
    return found


def differing(first: dict[str, bytes], second: dict[str, bytes]) -> list[str]:
    """Names of the files that only one has, or that are not the same."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


@click.command()
@click.option("--same", is_flag=True, help="Compare the wheels: they must hold the same bytes.")
@click.argument("wheels", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(same: bool, wheels: tuple[Path, ...]) -> None:
    """Look at built wheels: no sources of the compiled part, no extension over 1 MiB."""
    failed = False
    files = {wheel: contents(wheel) for wheel in wheels}
    for wheel, held in files.items():
        extensions = {Path(name).name: len(data) for name, data in held.items() if name.endswith(".so")}
        click.echo(f"{wheel.name}: {wheel.stat().st_size:,} bytes, {len(extensions)} extensions")
        for name, size in sorted(extensions.items()):
            click.echo(f"  {size:>9,}  {name}")
        for fault in faults(held):
            failed = True
            click.echo(f"{wheel.name}: {fault}", err=True)
    if same:
        for wheel in wheels[1:]:
            for name in differing(files[wheels[0]], files[wheel]):
                failed = True
                click.echo(f"{name} differs between {wheels[0]} and {wheel}", err=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
