"""Container engines that build and run the images: Docker, or a stand-in without it."""

import json
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.images.s3_server import BUCKET, S3Server
from scripts.local.stack import ROOT, listenable_port

SERVE = ("piqueue", "serve", "--host", "0.0.0.0", "--port")  # noqa: S104
_API = ("python", "-m", "api", "--port")
_WORKER = ("python", "-m", "worker")
_IN_NAMESPACES = ("unshare", "--mount", "--uts", "--pid", "--fork")
_ENTER_CHROOT = Path(__file__).with_name("enter_chroot.sh")
_COMPOSE = ROOT / "docker-compose.yml"
# The folder of our layers; everything else in an image is its base.
APPLICATION = "/opt/piqueue"


class EngineFailed(Exception):
    """A command of the engine failed; the text is the end of its output."""


class Docker:
    """A Docker engine with Compose: builds the images and runs the services.

    `url` is that of the API.
    """

    def __init__(self) -> None:
        port = listenable_port("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{port}"
        self._env = {"COMPOSE_FILE": str(_COMPOSE), "API_PORT": str(port), "WORKERS": "1"}

    def build(self) -> None:
        """Build piqueue-api and piqueue-worker."""
        self._compose("build")

    def inside(self, image: str, *command: str) -> str:
        """Run a command as root in a new container of an image and give its output."""
        return _output_of(
            "docker", "run", "--rm", "--user", "0", "--entrypoint", command[0], image, *command[1:]
        )

    def up(self) -> None:
        """Start redis, api and one worker, and wait until they are healthy."""
        self._compose("up", "--detach", "--wait")

    def second_worker(self) -> "DockerContainer":
        """Scale the workers to two; gives the new one."""
        before = set(self._compose("ps", "--quiet", "worker").split())
        self._compose("up", "--detach", "--wait", "--no-recreate", "--scale", "worker=2")
        (added,) = set(self._compose("ps", "--quiet", "worker").split()) - before
        return DockerContainer(added, "")

    def start_s3(self) -> dict[str, str]:
        """Start the service `s3`; gives the settings of a registry there."""
        secret = secrets.token_hex()
        self._env |= {"S3_SECRET_KEY": secret, "S3_PORT": str(listenable_port("127.0.0.1", 0))}
        self._env["COMPOSE_PROFILES"] = "s3"
        self._compose("up", "--detach", "--wait", "s3")
        return {
            "AWS_ACCESS_KEY_ID": "piqueue",
            "AWS_SECRET_ACCESS_KEY": secret,
            "PIQUEUE_S3_ENDPOINT_URL": "http://s3:7070",
            "PIQUEUE_S3_REGION": "us-east-1",
            "PIQUEUE_S3_PATH_STYLE": "true",
            "PIQUEUE_REGISTRY_URL": "s3://piqueue/models",
        }

    def restart(self, settings: Mapping[str, str]) -> None:
        """Restart the API and the worker with settings as in `piqueue.env`."""
        environment = {name: value.replace("$", "$$") for name, value in settings.items()}
        services = {name: {"environment": environment} for name in ("api", "worker")}
        with tempfile.NamedTemporaryFile("w", prefix="piqueue-", suffix=".yml") as file:
            json.dump({"services": services}, file)
            file.flush()
            self._compose("--file", str(_COMPOSE), "--file", file.name, "up", "--detach", "--wait")

    def in_stack(self, *command: str, settings: Mapping[str, str] | None = None) -> str:
        """Run a command in a new container of the service `worker` and give its output."""
        pairs = [f"{name}={value}" for name, value in (settings or {}).items()]
        flags = [flag for pair in pairs for flag in ("--env", pair)]
        return self._compose("run", "--rm", "--no-deps", *flags, "worker", *command)

    def serve(self, env: Mapping[str, str]) -> "DockerContainer":
        """Start a complete Piqueue in one container, with `env` as its environment."""
        port = listenable_port("127.0.0.1", 0)
        flags = [flag for name, value in env.items() for flag in ("--env", f"{name}={value}")]
        writable = ("--read-only", "--tmpfs", "/tmp", "--tmpfs", "/data:mode=1777")  # noqa: S108
        restricted = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
        publish = ("--publish", f"127.0.0.1:{port}:8080")
        name = _output_of(
            *("docker", "run", "--detach", *writable, *restricted, *publish, *flags),
            *("piqueue-worker", *SERVE, "8080"),
        )
        return DockerContainer(name.strip(), f"http://127.0.0.1:{port}")

    def down(self) -> None:
        """Stop what `up` started and delete its data."""
        self._compose("down", "--volumes")

    def _compose(self, *arguments: str) -> str:
        return _output_of(
            "docker", "compose", "--project-name", "piqueue-smoke", *arguments, env=self._env
        )


@dataclass
class DockerContainer:
    """A container of the worker image, outside the stack, with a read-only root file system."""

    _name: str
    url: str

    def terminate(self) -> None:
        """Send SIGTERM."""
        _output_of("docker", "kill", "--signal", "TERM", self._name)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its exit code; None if it still runs after `timeout_s`."""
        try:
            return int(_output_of("docker", "wait", self._name, timeout_s=timeout_s))
        except subprocess.TimeoutExpired:
            return None

    def log(self) -> str:
        """Its standard output and error so far."""
        return _output_of("sh", "-c", 'docker logs "$1" 2>&1', "logs", self._name)

    def kill(self) -> None:
        """Kill and remove it."""
        _output_of("docker", "rm", "--force", self._name)


class StandIn:
    """Like `Docker`, with a program that does `build`, `up` and `down` on the host network.

    Containers of that program can write everywhere, and share no volume. The API at `url` and the
    second worker are further containers, restricted like the services of the Compose file, which
    share their volume.
    """

    def __init__(self, program: Path) -> None:
        self.url = ""
        self._program = program.resolve()
        self._containers: list[ChrootContainer] = []
        self._s3: S3Server | None = None
        self._s3_folder = tempfile.TemporaryDirectory(prefix="piqueue-s3-")
        self._volume = tempfile.TemporaryDirectory(prefix="piqueue-volume-")
        Path(self._volume.name).chmod(0o1777)

    def build(self) -> None:
        self._run("build")

    def inside(self, image: str, *command: str) -> str:
        container = _buildah("from", "--pull-never", f"localhost/{image}")
        try:
            return _buildah("run", "--user", "0", container, "--", *command)
        finally:
            _buildah("rm", container)

    def up(self) -> None:
        self._run("up")
        port = listenable_port("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{port}"
        self._containers.append(self._container("api-2", "api", *_API, str(port)))

    def second_worker(self) -> "ChrootContainer":
        """Start a worker like the first one, with a host name of its own."""
        return self._container("worker-2", "worker", *_WORKER)

    def start_s3(self) -> dict[str, str]:
        """As `Docker.start_s3`, with a server of this machine."""
        self._s3 = S3Server(Path(self._s3_folder.name))
        return {**self._s3.env, "PIQUEUE_REGISTRY_URL": f"s3://{BUCKET}/models"}

    def restart(self, settings: Mapping[str, str]) -> None:
        """As `Docker.restart`; the worker that `up` started keeps its settings."""
        self._kill_containers()
        command = (*_API, self.url.rpartition(":")[2])
        self._containers = [
            self._container("api-2", "api", *command, settings=settings),
            self._container("worker-2", "worker", *_WORKER, settings=settings),
        ]

    def in_stack(self, *command: str, settings: Mapping[str, str] | None = None) -> str:
        """As `Docker.in_stack`, in a container that shares the volume."""
        container = self._container("command", "worker", *command, settings=settings)
        try:
            if container.wait(600):
                raise EngineFailed(f"{' '.join(command)}: {container.log()}")
            return container.log()
        finally:
            container.kill()

    def serve(self, env: Mapping[str, str]) -> "ChrootContainer":
        port = str(listenable_port("127.0.0.1", 0))
        service = {
            "image": "piqueue-worker",
            "environment": env,
            "tmpfs": ["/tmp"],  # noqa: S108
            "volumes": ["data:/data"],
        }
        url = f"http://127.0.0.1:{port}"
        return ChrootContainer("piqueue", service, [*SERVE, port], url)

    def down(self) -> None:
        self._kill_containers()
        if self._s3 is not None:
            self._s3.stop()
        self._run("down")

    def _container(
        self, name: str, service: str, *command: str, settings: Mapping[str, str] | None = None
    ) -> "ChrootContainer":
        """Start a command in a container of a service, with settings as in `piqueue.env`."""
        given = _service(service)
        given["environment"] = {**(settings or {}), **given["environment"]}
        return ChrootContainer(name, given, command, volume=self._volume.name)

    def _kill_containers(self) -> None:
        while self._containers:
            self._containers.pop().kill()

    def _run(self, verb: str) -> None:
        print(_output_of(str(self._program), verb), end="", flush=True)


class ChrootContainer:
    """Like `DockerContainer`, in Linux namespaces of its own that are entered with chroot.

    It can write only where a service of the Compose file has a tmpfs or a volume. A volume is a
    tmpfs too, or the folder `volume` of this machine.
    """

    def __init__(
        self,
        name: str,
        service: Mapping[str, Any],
        command: Sequence[str],
        url: str = "",
        volume: str = "",
    ) -> None:
        self.url = url
        image = f"localhost/{service['image']}"
        self._container = _buildah("from", "--pull-never", image)
        root = _buildah("mount", self._container)
        inspected = json.loads(_buildah("inspect", "--type", "image", image))
        config: dict[str, Any] = inspected["Docker"]["config"]
        env = {key: os.path.expandvars(value) for key, value in service["environment"].items()}
        volumes = [volume.split(":")[1] for volume in service["volumes"]]
        writable = [one.partition(":")[0] for one in service["tmpfs"]]
        if volume:
            volumes = [f"{volume}:{one}" for one in volumes]
        writable += volumes
        self._folder = tempfile.TemporaryDirectory(prefix="piqueue-")
        hosts, self._log_path = (Path(self._folder.name, name) for name in ("hosts", "log"))
        hosts.write_text("127.0.0.1 localhost redis\n")
        user = config["User"].split(":")
        with self._log_path.open("w") as log:
            self._process = subprocess.Popen(
                [
                    *(*_IN_NAMESPACES, "sh", str(_ENTER_CHROOT), root, name, str(hosts), *user),
                    *(" ".join(writable), *command),
                ],
                env={**dict(pair.split("=", 1) for pair in config["Env"]), **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int | None:
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def log(self) -> str:
        return self._log_path.read_text()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        _buildah("umount", self._container)
        _buildah("rm", self._container)
        self._folder.cleanup()

    def _signal(self, signum: signal.Signals) -> None:
        """Signal process 1 of the container; all others end with it."""
        pid = self._process.pid
        if self._process.poll() is None:
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                os.kill(int(child), signum)


Engine = Docker | StandIn
Container = DockerContainer | ChrootContainer


def find_engine(stand_in: Path | None) -> Engine | None:
    """Use the stand-in at a path, else Docker, else a stand-in beside this project."""
    if stand_in is None:
        with suppress(EngineFailed, OSError, subprocess.TimeoutExpired):
            _output_of("docker", "compose", "version", timeout_s=30)
            _output_of("docker", "info", timeout_s=30)
            return Docker()
    beside = ROOT.parent / "shared" / "tools" / "images"
    stand_in = stand_in or (beside if beside.exists() else None)
    return StandIn(stand_in) if stand_in else None


def _service(name: str) -> dict[str, Any]:
    services: dict[str, dict[str, Any]] = yaml.safe_load(_COMPOSE.read_text())["services"]
    return services[name]


def _buildah(*arguments: str) -> str:
    env = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    return _output_of("buildah", *arguments, env=env).strip()


def _output_of(*command: str, env: Mapping[str, str] | None = None, timeout_s: float = 1800) -> str:
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
