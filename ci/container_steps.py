"""The steps of deploy/container/Dockerfile one by one, where no builder is; then the agent as in its image.

python -m ci.container_steps BASE: as root; BASE is a root file system that stands for the Python images
(ci/container_steps.sh makes one). The agent runs as the image's user, on a read-only root file system, as the
first of its own processes, with a module and a directory for the socket mounted. Its health check must pass,
it must answer, and SIGTERM must end it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from sentinel_wasm.client import ClientV2, request_headers
from sentinel_wasm.protocol.events import EventKind

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "deploy" / "container" / "Dockerfile"
WORK = ROOT / "build" / "container"
SOCKETS = WORK / "sockets"
ADMIN = "127.0.0.1:19100"  # the test shares the machine's network


def instructions(text: str) -> list[tuple[str, str]]:
    """Of a Dockerfile: each instruction and what it is given, without comments, in one line."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    split = (line.strip().partition(" ") for line in lines.replace("\\\n", " ").splitlines() if line.strip())
    return [(name, rest.strip()) for name, _, rest in split]


def parts(variables: str) -> dict[str, str]:
    """What ENV sets."""
    return dict(part.split("=", 1) for part in shlex.split(variables))


class Stage:
    """An image while it is built: a root file system, and what containers of it start with."""

    def __init__(self, base: Path, number: int):
        self.root = WORK / f"stage{number}"
        WORK.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "--archive", base, self.root], check=True)  # devices too
        self.directory = "/"
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.user = "0:0"
        self.entrypoint: list[str] = []
        self.health: list[str] = []

    def copy(self, given: str, stages: dict[str, Stage]) -> None:
        """What is written `--from=STAGE SOURCE TARGET`, or `SOURCE... TARGET` of the checkout."""
        *sources, target = shlex.split(given)
        origin = ROOT
        if sources[0].startswith("--from="):
            origin = stages[sources.pop(0).removeprefix("--from=")].root
        for source in sources:
            path = origin / source.lstrip("/")
            into = self.root / self.directory.lstrip("/") / target.lstrip("/")
            if path.is_dir():
                # As Docker does: a directory's contents; what comes from another stage keeps its owner.
                ignored = shutil.ignore_patterns("*.so", "_*.c", "__pycache__", "target", "node_modules")
                shutil.copytree(
                    path, into, symlinks=True, dirs_exist_ok=True, ignore=ignored if origin == ROOT else None
                )
                owner = path.stat()
                os.chown(into, *((0, 0) if origin == ROOT else (owner.st_uid, owner.st_gid)))
            else:
                into.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, into)

    def run(self, command: str) -> None:
        where: list[str | Path] = ["chroot", self.root, "/bin/sh", "-c", f"cd {self.directory} && {command}"]
        subprocess.run(where, check=True, env={**passed_on(), **self.environment})


def passed_on() -> dict[str, str]:
    """What pip needs to reach its index from here."""
    names = ("PIP_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    return {name: value for name, value in os.environ.items() if name.startswith(names)}


def build(base: Path) -> Stage:
    """The last stage. Raises KeyError for an instruction that the Dockerfile has not had so far."""
    stages: dict[str, Stage] = {}
    stage = None
    for number, (name, given) in enumerate(instructions(DOCKERFILE.read_text())):
        click.echo(f"{name} {' '.join(given.split())}")
        if name == "FROM":
            stage = Stage(base, number)
            stages[given.partition(" AS ")[2]] = stage
            continue
        assert stage is not None
        if name == "WORKDIR":
            stage.directory = given
            (stage.root / given.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            stage.copy(given, stages)
        elif name == "RUN":
            stage.run(given)
        elif name == "ENV":
            stage.environment.update(parts(given))
        elif name == "USER":
            stage.user = given
        elif name == "HEALTHCHECK":
            stage.health = json.loads(given.partition("CMD ")[2])
        elif name == "ENTRYPOINT":
            stage.entrypoint = json.loads(given)
        else:
            raise KeyError(name)
    assert stage is not None
    return stage


def container(stage: Stage, command: list[str]) -> list[str]:
    """The command as a container of the image runs it: its user, no capabilities, a read-only root."""
    user, group = stage.user.split(":")
    mounts = "\n".join(
        [
            f"mount --bind {stage.root} {stage.root}",
            f"mount --bind {SOCKETS} {stage.root}/run/sentinel-wasm",
            f"mount --bind {WORK / 'module'} {stage.root}/module",
            f"mount --bind /dev {stage.root}/dev",
            f"mount -t proc proc {stage.root}/proc",
            f"mount -o remount,ro,bind {stage.root}",
            f"mount -o remount,ro,bind {stage.root}/module",
        ]
    )
    drop = f"setpriv --reuid {user} --regid {group} --clear-groups --no-new-privs --inh-caps=-all"
    inside = f"set -e\n{mounts}\nexec chroot {stage.root} {drop} --bounding-set=-all {shlex.join(command)}"
    return ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "sh", "-c", inside]


def probe(stage: Stage) -> None:
    """Starts the agent, asks its health check, sends it an event, stops it."""
    environment = {**stage.environment, "WASM_ADMIN": ADMIN}
    with subprocess.Popen(container(stage, stage.entrypoint), env=environment) as agent:
        try:
            end = time.monotonic() + 60
            while not (SOCKETS / "agent.sock").exists() and agent.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            subprocess.run(container(stage, stage.health), env=environment, check=True, timeout=30)
            with ClientV2(SOCKETS / "agent.sock") as client:
                answer = client.ask(EventKind.REQUEST_HEADERS, request_headers("a", uri="/../x"))
            assert answer["decision"]["block"]["status"] == 403, answer
            owner = (SOCKETS / "agent.sock").stat()
            assert f"{owner.st_uid}:{owner.st_gid}" == stage.user, owner
        finally:
            if agent.poll() is None:
                children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text()
                os.kill(int(children or agent.pid), signal.SIGTERM)
    assert agent.returncode == 0, agent.returncode
    # Without the agent its check must fail, or it says nothing.
    assert subprocess.run(container(stage, stage.health), env=environment, timeout=30).returncode == 1


@click.command()
@click.argument("base", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(base: Path) -> None:
    """Build from the Dockerfile, run the agent, ask it."""
    if os.geteuid() != 0:
        raise click.UsageError("changing root and mounting takes root")
    shutil.rmtree(WORK, ignore_errors=True)
    stage = build(base)
    SOCKETS.mkdir()
    user, group = map(int, stage.user.split(":"))
    os.chown(SOCKETS, user, group)
    (WORK / "module").mkdir()
    shutil.copy2(ROOT / "examples" / "c" / "security.wasm", WORK / "module" / "filter.wasm")
    (stage.root / "module").mkdir()  # Docker makes what it mounts on
    probe(stage)
    click.echo("the agent of the image answers, on a read-only root file system, as the user " + stage.user)


if __name__ == "__main__":
    sys.exit(main())
