"""The Dockerfiles, Compose files, dashboards and workflow of this project."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import botocore.session
import promql_parser
import pytest
import yaml
from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader

from scripts import audit
from scripts.images import engines, smoke
from scripts.images.engines import SERVE
from scripts.local.stack import ROOT
from tests.documents import block_of
from worker.jobs.settings import PREFIX, Settings

COMPOSE = ROOT / "docker-compose.yml"
OVERRIDES = sorted(ROOT.glob("docker-compose.*.yml"))
DOCKERFILES = sorted(ROOT.glob("Dockerfile.*"))
DASHBOARD = ROOT / "deploy" / "monitoring" / "grafana" / "dashboards" / "piqueue.json"
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
DOCUMENT = ROOT / "OPERATIONS.md"
DEPLOYED = [
    DOCUMENT,
    COMPOSE,
    *OVERRIDES,
    *DOCKERFILES,
    ROOT / ".env.example",
    ROOT / "piqueue.env.example",
    ROOT / "app.yaml",
    WORKFLOW,
]
KNOWN = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


class ComposeLoader(yaml.SafeLoader):
    """Reads the tags of Compose as plain values."""


def overriding(loader: ComposeLoader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node)


ComposeLoader.add_constructor("!override", overriding)


def read(path: Path) -> Any:
    return yaml.load(path.read_text(), ComposeLoader)


def merged(under: Any, over: Any) -> Any:
    """Lay a Compose file over another one."""
    if isinstance(under, dict) and isinstance(over, dict):
        return {**under, **{key: merged(under.get(key), value) for key, value in over.items()}}
    return over


def services() -> dict[str, Any]:
    return dict(read(COMPOSE)["services"])


def instructions(dockerfile: Path) -> list[str]:
    text = re.sub(r"\\\n\s*", "", dockerfile.read_text())
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("path", DEPLOYED, ids=lambda path: path.name)
def test_every_setting_in_a_deployment_file_exists(path: Path) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z0-9_]+", path.read_text()))
    assert named <= KNOWN


def variables(example: str) -> set[str]:
    """Give the names that an example of a file of variables sets or shows."""
    return {
        name
        for line in (ROOT / example).read_text().splitlines()
        if (name := line.removeprefix("#").partition("=")[0]).isidentifier()
    }


def used_in(text: str) -> set[str]:
    return set(re.findall(r"\$\{([A-Z0-9_]+)", text))


def test_the_example_has_the_variables_of_the_compose_files_and_no_others() -> None:
    used = set.union(*(used_in(path.read_text()) for path in (COMPOSE, *OVERRIDES)))
    assert variables(".env.example") == used | {"COMPOSE_FILE"}


def test_a_service_gets_no_password_or_key_of_another() -> None:
    assert all(name.startswith(("PIQUEUE_", "AWS_")) for name in variables("piqueue.env.example"))
    files = {name: one["env_file"] for name, one in services().items() if "env_file" in one}
    [settings] = files["api"]
    assert settings["path"] == "piqueue.env"
    assert files == {"api": [settings], "worker": [settings]}
    secrets = {
        name: {
            variable
            for variable in used_in(json.dumps(service.get("environment", {})))
            if variable.endswith(("_PASSWORD", "_KEY"))
        }
        for name, service in services().items()
    }
    assert secrets == {
        "redis": {"REDIS_PASSWORD"},
        "api": {"REDIS_PASSWORD"},
        "worker": {"REDIS_PASSWORD"},
        "s3": {"S3_ACCESS_KEY", "S3_SECRET_KEY"},
        "flower": {"REDIS_PASSWORD", "FLOWER_PASSWORD"},
        "prometheus": {"METRICS_API_KEY"},
        "grafana": {"GRAFANA_PASSWORD"},
    }
    # Passwords and keys come as variables of one service only, never in a command.
    for name, service in services().items():
        rest = json.dumps({key: part for key, part in service.items() if key != "environment"})
        assert not [one for one in used_in(rest) if one.endswith(("_PASSWORD", "_KEY"))], name


@pytest.mark.parametrize("name", services())
def test_a_service_is_pinned_health_checked_and_local(name: str) -> None:
    service = services()[name]
    image = service["image"]
    if "build" in service:
        (check,) = [
            line
            for line in instructions(ROOT / service["build"]["dockerfile"])[-3:]
            if line.startswith("HEALTHCHECK ")
        ]
        assert "CMD [" in check
    else:
        assert re.search(r":v?\d+\.\d+\.\d+(-\w+)?$", image), f"{image} is not pinned"
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["healthcheck"]["interval"]
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:")
    for needed, how in service.get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in services()[needed]


def test_without_a_profile_redis_api_and_worker_start() -> None:
    assert [name for name, one in services().items() if not one.get("profiles")] == [
        "redis",
        "api",
        "worker",
    ]


def test_workers_can_be_scaled_and_have_time_to_finish() -> None:
    worker = services()["worker"]
    assert "container_name" not in worker
    assert "ports" not in worker
    most_s = Settings.model_fields["fetch_timeout_s"].default * 2
    assert int(worker["stop_grace_period"].removesuffix("s")) > most_s


def test_redis_persists_its_data_and_requires_a_password() -> None:
    redis = services()["redis"]
    command = " ".join(redis["command"])
    for option in ("--requirepass", "--appendonly yes", "--maxmemory-policy noeviction"):
        assert option in command
    assert "ports" not in redis
    assert redis["volumes"] == ["redis:/data"]


def test_the_api_is_opened_to_the_network_only_together_with_keys() -> None:
    assert services()["api"]["environment"]["PIQUEUE_ALLOW_NO_KEYS"] == "true"
    public = read(ROOT / "docker-compose.public.yml")["services"]["api"]
    assert public["environment"]["PIQUEUE_ALLOW_NO_KEYS"] == "false"
    assert not public["ports"][0].startswith("127.0.0.1")


@pytest.mark.parametrize("path", OVERRIDES, ids=lambda path: path.name)
def test_an_override_changes_services_that_exist(path: Path) -> None:
    assert set(read(path)["services"]) <= set(services())


def test_the_gpu_override_builds_a_worker_for_gpus() -> None:
    gpu = read(ROOT / "docker-compose.gpu.yml")["services"]["worker"]
    (argument,) = gpu["build"]["args"]
    assert f'ARG {argument}=""' in instructions(ROOT / "Dockerfile.worker")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert extras["gpu"][0].startswith("tensorflow[and-cuda]")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_is_built_in_stages_pinned_and_not_run_as_root(path: Path) -> None:
    lines = instructions(path)
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert bases[:2] == ["${PYTHON_IMAGE}"] * 2
    assert lines[0] == "ARG PYTHON_IMAGE=python:3.11-slim-bookworm"
    installs = [line for line in lines if "pip" in line and " install " in line]
    assert installs
    assert all("-c constraints.txt" in line or "--no-deps" in line for line in installs)
    result = lines[[i for i, line in enumerate(lines) if line.startswith("FROM ")][1] :]
    assert "USER 10001:10001" in result
    assert any("-perm /6000 -exec chmod a-s" in line for line in result)
    assert "STOPSIGNAL SIGTERM" in result
    assert not [line for line in result if "pip" in line.split()]
    assert "org.opencontainers.image.licenses" in " ".join(result)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'image.version="{version}"' in " ".join(result)


def test_the_arguments_of_a_build_add_extras() -> None:
    lines = instructions(ROOT / "Dockerfile.worker")
    assert "ARG HEIC=1" in lines

    def installed(name: str = "Dockerfile.worker", **arguments: str) -> list[str]:
        """Let the shell expand the extras, as the build does."""
        texts = instructions(ROOT / name)
        [extras] = [extras for line in texts for extras in re.findall(r'"\.\[(\S+)\]"', line)]
        command = ["sh", "-c", f'echo "{extras}"']
        done = subprocess.run(command, env=arguments, capture_output=True, text=True, check=True)
        return done.stdout.strip().split(",")

    assert installed(HEIC="1", GPU="") == ["local", "s3", "traces", "heic"]
    assert installed(HEIC="", GPU="1") == ["local", "s3", "traces", "gpu"]
    assert 'ARG ONNX=""' in lines
    assert installed(HEIC="", ONNX="1") == ["local", "s3", "traces", "onnx"]
    for name, others in (("Dockerfile.api", ["api"]), ("Dockerfile.worker", ["local"])):
        assert 'ARG PARQUET=""' in instructions(ROOT / name)
        assert installed(name) == [*others, "s3", "traces"]
        assert installed(name, PARQUET="1") == [*others, "s3", "traces", "parquet"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(installed(HEIC="1", GPU="1", ONNX="1", PARQUET="1")) <= set(
        project["optional-dependencies"]
    )


def test_a_build_by_compose_keeps_the_extras_that_the_settings_name() -> None:
    for name, extra in (("api", "PARQUET"), ("worker", "ONNX")):
        build = services()[name]["build"]
        assert build["args"] == {extra: f"${{{extra}:-}}"}
        assert f'ARG {extra}=""' in instructions(ROOT / build["dockerfile"])


def test_the_image_of_the_worker_keeps_what_s3_needs(tmp_path: Path) -> None:
    """Run the command that leaves out the other services of AWS on a copy of botocore."""
    [command] = [
        line.removeprefix("RUN ")
        for line in instructions(ROOT / "Dockerfile.worker")
        if "/botocore/data" in line
    ]
    installed = f"{engines.APPLICATION}/lib/python3.11/site-packages/botocore/data"
    kept = tmp_path / "data"
    shutil.copytree(Path(botocore.__file__).with_name("data"), kept)
    assert installed in command
    subprocess.run(["sh", "-c", command.replace(installed, str(kept))], check=True)

    assert sum(file.stat().st_size for file in kept.rglob("*")) < 4_000_000
    session = botocore.session.Session()
    loader = Loader([str(kept)], include_default_search_paths=False)
    session.register_component("data_loader", loader)
    session.set_credentials("name", "secret")
    for service in ("s3", "sts", "sso", "sso-oidc", "signin"):
        session.create_client(service, "eu-central-1")
    with pytest.raises(UnknownServiceError):
        session.create_client("ec2", "eu-central-1")


def test_the_sbom_of_an_image_lists_what_is_installed(tmp_path: Path) -> None:
    """Run the command of the Dockerfiles on the environment of this test."""
    [command] = {
        line[line.index("cyclonedx-py ") :]
        for path in DOCKERFILES
        for line in instructions(path)
        if "cyclonedx-py" in line
    }
    assert smoke.SBOM in command
    assert command.endswith(f" {engines.APPLICATION}/bin/python")
    words = command.replace(smoke.SBOM, str(tmp_path / "sbom")).split()
    program = Path(sys.executable).with_name(words[0])
    subprocess.run([program, *words[1:-1], sys.executable], cwd=ROOT, check=True)

    sbom = json.loads((tmp_path / "sbom").read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    installed = {smoke.canonical(one.name, one.version) for one in metadata.distributions()}
    smoke.check_sbom("image", sbom, installed)
    missing = sbom["components"].pop()
    with pytest.raises(smoke.SmokeFailed, match=smoke.canonical(missing["name"], "")):
        smoke.check_sbom("image", sbom, installed)


def test_a_version_in_an_image_that_is_not_audited_is_reported() -> None:
    pinned = {smoke.canonical(*pin.split("==")) for pin in audit.read_pins()}
    smoke.check_pins("image", {*pinned, "piqueue-server==0.1.0"})
    with pytest.raises(smoke.SmokeFailed, match=re.escape("['aiohttp==0.0.1']")):
        smoke.check_pins("image", {*pinned, "aiohttp==0.0.1"})


def test_the_single_container_starts_as_app_engine_requires() -> None:
    assert f"CMD {json.dumps([*SERVE, '8080'])}" in instructions(ROOT / "Dockerfile.worker")
    app = read(ROOT / "app.yaml")
    assert (app["runtime"], app["env"]) == ("custom", "flex")
    assert app["manual_scaling"] == {"instances": 1}
    assert app["env_variables"]["PIQUEUE_ALLOW_NO_KEYS"] == "false"


def test_the_workflow_runs_what_a_person_runs() -> None:
    steps = [
        step.get("run", "") for job in read(WORKFLOW)["jobs"].values() for step in job["steps"]
    ]
    for script in ("scripts/check", "scripts/test", "scripts/smoke_images"):
        assert any(script in step for step in steps)


def check_queries(queries: Iterable[str]) -> None:
    """Check that Prometheus can parse each query, and that docs/metrics.md has its metrics."""
    # tests/api/middleware/test_metrics.py checks that each of these is exported.
    documented = set(re.findall(r"`(piqueue_\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
    for query in queries:
        promql_parser.parse(query.replace("$__rate_interval", "5m"))
        asked = re.findall(r"\bpiqueue_\w+", query)
        assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} <= documented


def test_the_dashboard_queries_metrics_that_exist() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    check_queries(target["expr"] for panel in panels for target in panel["targets"])
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_documented_alerts_query_metrics_that_exist() -> None:
    [group] = yaml.safe_load(block_of("docs/metrics.md", "groups:").text)["groups"]
    rules = group["rules"]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    check_queries(rule["expr"] for rule in rules)


def test_prometheus_scrapes_every_api_and_worker() -> None:
    jobs = read(ROOT / "deploy" / "monitoring" / "prometheus.yml")["scrape_configs"]
    example = (ROOT / "piqueue.env.example").read_text()
    ports = {job["job_name"]: job["dns_sd_configs"][0]["port"] for job in jobs}
    assert ports["api"] == 8000
    assert f"\nPIQUEUE_METRICS_PORT={ports['worker']}\n" in example


def test_without_an_engine_the_smoke_test_reports_that_it_did_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(engines, "ROOT", tmp_path / "project")
    monkeypatch.setattr("sys.argv", ["smoke_images"])
    monkeypatch.setattr(smoke, "stop_on_signals", lambda: None)
    monkeypatch.delenv("IMAGES", raising=False)
    assert smoke.main() == smoke.UNAVAILABLE
    assert "DID NOT RUN" in capsys.readouterr().err
