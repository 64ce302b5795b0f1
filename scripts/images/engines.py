"""What builds and runs our images: a Docker engine, or a stand-in where there is none."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

from scripts.local.stack import ROOT, listenable_port

SERVE = ("piqueue", "serve", "--host", "0.0.0.0", "--port")  # noqa: S104
_COMPOSE = ROOT / "docker-compose.yml"
# Where our layers are; all else of an image is its base.
OURS = "/opt/piqueue"


class EngineFailed(Exception):
    """The engine did not do what it was told; the text is the end of what it said."""


class Container(Protocol):
    """A container of the worker image that we started by hand, its root file system read-only."""

    url: str

    def terminate(self) -> None:
        """Ask it to end."""

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code, or None when it still runs after `timeout_s`."""

    def log(self) -> str:
        """What it said so far."""

    def kill(self) -> None:
        """End it without warning and forget it."""


class Engine(Protocol):
    """Builds the images and runs the services of docker-compose.yml; `url` is where the API is."""

    url: str

    def build(self) -> None:
        """Build piqueue-api and piqueue-worker."""

    def inside(self, image: str, *command: str) -> str:
        """Run a command as root in a fresh container of an image and give what it says."""

    def up(self) -> None:
        """Start redis, api and one worker, and wait until they are healthy."""

    def second_worker(self) -> Container:
        """Start another worker beside the first."""

    def serve(self, env: Mapping[str, str]) -> Container:
        """Start all of Piqueue in one container, with `env` as its environment."""

    def down(self) -> None:
        """Stop what `up` started and forget its data."""


def find_engine(stand_in: Path | None) -> Engine | None:
    """Give the stand-in at a path, else Docker, else a stand-in found beside this project."""
    if (
        stand_in is None
        and _succeeds("docker", "compose", "version")
        and _succeeds("docker", "info")
    ):
        return Docker()
    beside = ROOT.parent / "shared" / "tools" / "images"
    stand_in = stand_in or (beside if beside.exists() else None)
    return StandIn(stand_in) if stand_in else None


class Docker:
    """A Docker engine with Compose."""

    def __init__(self) -> None:
        port = listenable_port("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{port}"
        self._env = {"COMPOSE_FILE": str(_COMPOSE), "API_PORT": str(port), "WORKERS": "1"}

    def build(self) -> None:
        """Build both images."""
        self._compose("build")

    def inside(self, image: str, *command: str) -> str:
        """Run a command in an image."""
        return _said(
            "docker", "run", "--rm", "--user", "0", "--entrypoint", command[0], image, *command[1:]
        )

    def up(self) -> None:
        """Start the services."""
        self._compose("up", "--detach", "--wait")

    def second_worker(self) -> "DockerContainer":
        """Scale the workers to two; gives the newer one."""
        before = set(self._compose("ps", "--quiet", "worker").split())
        self._compose("up", "--detach", "--wait", "--no-recreate", "--scale", "worker=2")
        (added,) = set(self._compose("ps", "--quiet", "worker").split()) - before
        return DockerContainer(added, "")

    def serve(self, env: Mapping[str, str]) -> "DockerContainer":
        """Start the worker image with the command that serves."""
        port = listenable_port("127.0.0.1", 0)
        flags = [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
        writable = ("--read-only", "--tmpfs", "/tmp", "--tmpfs", "/data:mode=1777")  # noqa: S108
        publish = ("--publish", f"127.0.0.1:{port}:8080")
        said = _said(
            *("docker", "run", "--detach", *writable, *publish, *flags),
            *("piqueue-worker", *SERVE, "8080"),
        )
        return DockerContainer(said.strip(), f"http://127.0.0.1:{port}")

    def down(self) -> None:
        """Stop the services."""
        self._compose("down", "--volumes")

    def _compose(self, *words: str) -> str:
        return _said("docker", "compose", "--project-name", "piqueue-smoke", *words, env=self._env)


class DockerContainer:
    """A container of a Docker engine."""

    def __init__(self, name: str, url: str) -> None:
        self.url = url
        self._name = name

    def terminate(self) -> None:
        """Send SIGTERM."""
        _said("docker", "kill", "--signal", "TERM", self._name)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end."""
        try:
            return int(_said("docker", "wait", self._name, timeout_s=timeout_s))
        except subprocess.TimeoutExpired:
            return None

    def log(self) -> str:
        """Its standard output and error."""
        return _said("sh", "-c", 'docker logs "$1" 2>&1', "logs", self._name)

    def kill(self) -> None:
        """Kill and remove it."""
        _said("docker", "rm", "--force", self._name)


class StandIn:
    """A program that does `build`, `up` and `down` with buildah, on this host's network."""

    def __init__(self, program: Path) -> None:
        self.url = "http://127.0.0.1:8000"
        self._program = program.resolve()

    def build(self) -> None:
        """Build both images."""
        self._tell("build")

    def inside(self, image: str, *command: str) -> str:
        """Run a command in an image."""
        container = _buildah("from", "--pull-never", f"localhost/{image}")
        try:
            return _buildah("run", "--user", "0", container, "--", *command)
        finally:
            _buildah("rm", container)

    def up(self) -> None:
        """Start the services."""
        self._tell("up")

    def second_worker(self) -> "Rooted":
        """Start a worker as the first one is, under a host name of its own."""
        service = yaml.safe_load(_COMPOSE.read_text())["services"]["worker"]
        env = {name: os.path.expandvars(value) for name, value in service["environment"].items()}
        return Rooted("worker-2", env, [], "")

    def serve(self, env: Mapping[str, str]) -> "Rooted":
        """Start the worker image with the command that serves."""
        port = listenable_port("127.0.0.1", 0)
        return Rooted("piqueue", env, [*SERVE, str(port)], f"http://127.0.0.1:{port}")

    def down(self) -> None:
        """Stop the services."""
        self._tell("down")

    def _tell(self, verb: str) -> None:
        print(_said(str(self._program), verb), end="", flush=True)


_SPACES = ("--mount", "--uts", "--pid", "--fork")
# As an engine does it with `--read-only --tmpfs /tmp`; the command becomes process 1.
_ENTER = """
set -e
root=$1 name=$2 hosts=$3 user=$4 writable=$5; shift 5
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
for folder in $writable; do mount -t tmpfs -o mode=1777 tmpfs "$root$folder"; done
mount --bind "$hosts" "$root/etc/hosts"
mount -o remount,ro,bind "$root"
hostname "$name"
exec chroot --userspec="$user" "$root" "$@"
"""


class Rooted:
    """The worker image in name spaces of its own, entered with chroot.

    No command means the image's own; one of ours may write to /data as well.
    """

    def __init__(self, name: str, env: Mapping[str, str], command: Sequence[str], url: str) -> None:
        self.url = url
        self._container = _buildah("from", "--pull-never", "localhost/piqueue-worker")
        root = _buildah("mount", self._container)
        image = json.loads(_buildah("inspect", "--type", "image", "localhost/piqueue-worker"))
        config: dict[str, Any] = image["Docker"]["config"]
        self._folder = tempfile.TemporaryDirectory(prefix="piqueue-")
        hosts, self._log_path = (Path(self._folder.name, name) for name in ("hosts", "log"))
        hosts.write_text("127.0.0.1 localhost redis\n")
        writable = "/tmp /data" if command else "/tmp"  # noqa: S108
        words = (root, name, str(hosts), config["User"], writable, *(command or config["Cmd"]))
        with self._log_path.open("w") as log:
            self._process = subprocess.Popen(
                ["unshare", *_SPACES, "sh", "-c", _ENTER, "enter", *words],
                env={**dict(pair.split("=", 1) for pair in config["Env"]), **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def log(self) -> str:
        """Its standard output and error."""
        return self._log_path.read_text()

    def kill(self) -> None:
        """Kill all in there and remove the container."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        _buildah("umount", self._container)
        _buildah("rm", self._container)
        self._folder.cleanup()

    def _signal(self, signum: signal.Signals) -> None:
        """Signal process 1 in there, with which all others end."""
        pid = self._process.pid
        if self._process.poll() is None:
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                os.kill(int(child), signum)


def _buildah(*words: str) -> str:
    env = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    return _said("buildah", *words, env=env).strip()


def _said(*command: str, env: Mapping[str, str] | None = None, timeout_s: float = 1800) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    if done.returncode:
        raise EngineFailed(f"{' '.join(command)}: {(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def _succeeds(*command: str) -> bool:
    try:
        _said(*command, timeout_s=30)
    except (EngineFailed, OSError, subprocess.TimeoutExpired):
        return False
    return True
