"""The manifests of deploy/kubernetes match published schemas, the settings and the images."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import kubernetes_validate
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from scripts.local.embedded_redis import find_server
from scripts.local.stack import ROOT
from scripts.local.supervised_process import SupervisedProcess
from tests.browser import unavailable
from tests.documents import Shell, block_of
from tests.scripts.processes import eventually
from worker.jobs.errors import SettingsInvalid
from worker.jobs.ledger.api_keys import KeyStore, Scope
from worker.jobs.settings import PREFIX, Settings, load_settings

FOLDER = ROOT / "deploy" / "kubernetes"
BASE, GPU = FOLDER / "base", FOLDER / "overlays" / "gpu"
# The oldest version that the manifests support, and the newest with a published schema.
OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()
KNOWN = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}

Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    return list(yaml.safe_load_all(path.read_text()))


def kustomization(folder: Path) -> Manifest:
    [found] = documents(folder / "kustomization.yaml")
    return found


def base() -> list[Manifest]:
    return [one for name in kustomization(BASE)["resources"] for one in documents(BASE / name)]


def kubectl(*arguments: str) -> str:
    """Run kubectl, which needs no cluster here."""
    return subprocess.run(
        ["kubectl", *arguments], check=True, capture_output=True, text=True, timeout=60
    ).stdout


@cache
def renders() -> bool:
    """Whether this machine has a kubectl with the kustomize of the oldest version."""
    if shutil.which("kubectl") is None:
        return False
    version = json.loads(kubectl("version", "--client", "--output", "json"))
    found = re.match(r"v(\d+)\.", version.get("kustomizeVersion", ""))
    return found is not None and int(found[1]) >= 5


def rendered(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k` sends."""
    if not renders():
        unavailable(f"the overlays for Kubernetes: install kubectl {OLDEST} or later")
    return list(yaml.safe_load_all(kubectl("kustomize", str(folder))))


@cache
def variant_of(name: str) -> tuple[Manifest, ...]:
    """What `kubectl apply -k` sends for the base or an overlay as they are."""
    return tuple(rendered(FOLDER / VARIANTS[name]))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the manifests that a test may edit, as OPERATIONS.md tells people to."""
    return shutil.copytree(FOLDER, tmp_path / "kubernetes")


def with_models(copy: Path) -> None:
    """Add the component, as OPERATIONS.md tells people to."""
    line = "components: [../components/models]"
    assert line in (ROOT / "OPERATIONS.md").read_text()
    with (copy / "base" / "kustomization.yaml").open("a") as file:
        file.write(f"{line}\n")


VARIANTS = {"base": "base", "gpu": "overlays/gpu"}
FOUND = [(f"{one['kind']}-{one['metadata']['name']}", one) for one in base()]
WORKLOADS = [pytest.param(one, id=name) for name, one in FOUND if "template" in one.get("spec", {})]


def one_of(kind: str, name: str, manifests: Sequence[Manifest] | None = None) -> Manifest:
    [found] = [
        one for one in manifests or base() if (one["kind"], one["metadata"]["name"]) == (kind, name)
    ]
    return found


def containers(workload: Manifest) -> list[Manifest]:
    pod = workload.get("spec", {}).get("template", {}).get("spec", {})
    return list(pod.get("containers", ()))


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("models", ["", "models"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_applied_is_valid_under_the_published_schemas(
    copy: Path, variant: str, models: str, version: str
) -> None:
    if models:
        with_models(copy)
    manifests = rendered(copy / VARIANTS[variant])
    assert [one["kind"] for one in manifests].count("Deployment") == 2
    for one in manifests:
        if "keda" not in one["apiVersion"]:  # no package contains the schemas of KEDA
            kubernetes_validate.validate(one, version, strict=True)


def test_an_unknown_field_is_detected() -> None:
    manifest = one_of("Deployment", "api")
    manifest["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, NEWEST, strict=True)


@pytest.mark.parametrize("folder", [BASE, GPU], ids=lambda folder: folder.name)
def test_every_file_is_listed_in_its_kustomization(folder: Path) -> None:
    listed = kustomization(folder)
    named = [*listed["resources"], *(patch["path"] for patch in listed.get("patches", []))]
    files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == {name for name in named if name.endswith(".yaml")}
    assert all((folder / name).exists() for name in named)


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_setting_in_a_manifest_exists(path: Path) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z0-9_]+", path.read_text()))
    assert named <= KNOWN


def test_every_image_is_pinned() -> None:
    named = {image["name"]: image for image in kustomization(BASE)["images"]}
    assert all(str(image["newTag"]) not in ("", "latest") for image in named.values())
    used = {
        container["image"]
        for one in base()
        if "template" in one.get("spec", {})
        for container in containers(one)
    }
    assert set(named) <= used
    assert all(re.fullmatch(r"[^:]+:[\w.-]*\d[\w.-]*", image) for image in used - set(named))


def images(manifests: list[Manifest]) -> dict[str, str]:
    """The image of each Deployment."""
    return {
        one["metadata"]["name"]: containers(one)[0]["image"]
        for one in manifests
        if one["kind"] == "Deployment"
    }


def test_the_gpu_overlay_keeps_its_image_whatever_registry_the_base_names(copy: Path) -> None:
    """Name the registries as OPERATIONS.md says: in both files, and by digests in the base."""
    example = "registry.example.com"
    assert images(rendered(copy / "overlays/gpu")) == {
        "api": f"{example}/piqueue-api:0.1.0",
        "worker": f"{example}/piqueue-worker-gpu:0.1.0",
    }
    for name in VARIANTS.values():
        file = copy / name / "kustomization.yaml"
        file.write_text(file.read_text().replace(example, "registry.my.example:5000"))
    assert images(rendered(copy / "overlays/gpu")) == {
        "api": "registry.my.example:5000/piqueue-api:0.1.0",
        "worker": "registry.my.example:5000/piqueue-worker-gpu:0.1.0",
    }
    file = copy / "base" / "kustomization.yaml"
    digest = f"sha256:{'0' * 64}"
    file.write_text(file.read_text().replace("newTag: 0.1.0", f"digest: {digest!r}"))
    assert images(rendered(copy / "base")) == {
        "api": f"registry.my.example:5000/piqueue-api@{digest}",
        "worker": f"registry.my.example:5000/piqueue-worker@{digest}",
    }
    assert images(rendered(copy / "overlays/gpu")) == {
        "api": f"registry.my.example:5000/piqueue-api@{digest}",
        "worker": "registry.my.example:5000/piqueue-worker-gpu:0.1.0",
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_component_adds_a_registry_that_the_api_and_the_workers_write(
    copy: Path, variant: str
) -> None:
    with_models(copy)
    manifests = rendered(copy / VARIANTS[variant])
    [volume] = [one for one in manifests if one["kind"] == "PersistentVolumeClaim"]
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]
    for name in ("api", "worker"):
        manifest = one_of("Deployment", name, manifests)
        [container] = containers(manifest)
        mounted = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        dockerfile = (ROOT / f"Dockerfile.{name}").read_text()
        [registry] = re.findall(r"PIQUEUE_REGISTRY_URL=(\S+)", dockerfile)
        [claim] = [
            one["persistentVolumeClaim"]["claimName"]
            for one in manifest["spec"]["template"]["spec"]["volumes"]
            if one["name"] == mounted[registry]
        ]
        assert claim == volume["metadata"]["name"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_downloaded_models_are_kept_where_every_pod_can_write(variant: str) -> None:
    manifests = variant_of(variant)
    cache_path = one_of("ConfigMap", "piqueue-settings", manifests)["data"][
        "PIQUEUE_MODELS_CACHE_PATH"
    ]
    for name in ("api", "worker"):
        manifest = one_of("Deployment", name, manifests)
        [container] = containers(manifest)
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert {"configMapRef": {"name": "piqueue-settings"}} in container["envFrom"]
        [mount] = [
            one for one in container["volumeMounts"] if cache_path.startswith(one["mountPath"])
        ]
        [volume] = [
            one
            for one in manifest["spec"]["template"]["spec"]["volumes"]
            if one["name"] == mount["name"]
        ]
        assert "emptyDir" in volume


def test_redis_is_the_one_of_compose() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["redis"]
    [container] = containers(one_of("StatefulSet", "redis"))
    assert container["image"] == compose["image"]


@pytest.mark.parametrize("manifest", WORKLOADS)
def test_a_container_is_probed(manifest: Manifest) -> None:
    for container in containers(manifest):
        assert {"livenessProbe", "readinessProbe", "startupProbe"} <= set(container)


@pytest.mark.parametrize("manifest", WORKLOADS)
def test_no_service_variable_looks_like_a_misspelt_setting(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert manifest["spec"]["template"]["spec"]["enableServiceLinks"] is False
    # What a service named piqueue-api would leave in every container.
    monkeypatch.setenv("PIQUEUE_API_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(SettingsInvalid, match="PIQUEUE_API_SERVICE_HOST"):
        load_settings()


def test_selectors_match_labels() -> None:
    manifests = base()
    pods = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for one in manifests
        if "template" in one.get("spec", {})
    }
    for one in manifests:
        spec, name = one.get("spec", {}), one["metadata"]["name"]
        selector = spec.get("selector", {})
        if "matchLabels" in selector or one["kind"] == "Service":
            wanted = selector.get("matchLabels", selector)
            found = [pod for pod, labels in pods.items() if wanted.items() <= labels.items()]
            assert found == [name], (one["kind"], name)


@pytest.mark.parametrize("name", ["api", "worker"])
def test_probes_use_the_ports_and_commands_of_the_images(name: str) -> None:
    [container] = containers(one_of("Deployment", name))
    ports = {port["name"] for port in container["ports"]}
    dockerfile = (ROOT / f"Dockerfile.{name}").read_text()
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]
        if "httpGet" in asked:
            assert asked["httpGet"]["port"] in ports
            assert asked["httpGet"]["path"] in dockerfile
        else:
            assert ", ".join(f'"{word}"' for word in asked["exec"]["command"]) in dockerfile


def test_a_silent_worker_is_restarted_when_the_documents_say() -> None:
    [container] = containers(one_of("Deployment", "worker"))
    probe = container["livenessProbe"]
    assert probe["exec"]["command"] == ["python", "-m", "worker.health"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 600
    assert "Kubernetes restarts it after ten minutes" in (ROOT / "docs/promises.md").read_text()


@pytest.mark.parametrize("name", ["api", "worker"])
def test_the_user_is_that_of_the_image(name: str) -> None:
    context = one_of("Deployment", name)["spec"]["template"]["spec"]["securityContext"]
    user = f"USER {context['runAsUser']}:{context['runAsGroup']}"
    assert user in (ROOT / f"Dockerfile.{name}").read_text().splitlines()


# Stands in for kubectl with a cluster: keeps what it would send, and runs commands here.
KUBECTL = f"""#!/usr/bin/env python
import subprocess, sys

words = sys.argv[1:]
if "exec" in words:
    sys.exit(subprocess.run(words[words.index("--") + 1 :]).returncode)
if "rollout" in words:
    sys.exit(0)
if "create" in words:
    command = ["{shutil.which("kubectl")}", *words, "--dry-run=client", "--output=yaml"]
else:
    apply, flag, path = words
    command = ["cat", path] if flag == "-f" else ["{shutil.which("kubectl")}", "kustomize", path]
with open("sent.yaml", "ab") as sent:
    sent.write(b"---\\n" + subprocess.run(command, check=True, capture_output=True).stdout)
"""


def secrets_read_by(node: Any) -> Iterator[tuple[str, str]]:
    """The name and key of each value of a Secret that a manifest refers to."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name in ("secretKeyRef", "secretTargetRef"):
                for one in value if isinstance(value, list) else [value]:
                    yield one["name"], one["key"]
            else:
                yield from secrets_read_by(value)
    elif isinstance(node, list):
        for value in node:
            yield from secrets_read_by(value)


def test_the_documented_commands_create_the_secrets_that_the_manifests_read(
    tmp_path: Path, redis_client: Redis, redis_url: str
) -> None:
    if not renders():
        unavailable(f"the commands for Kubernetes: install kubectl {OLDEST} or later")
    assert not [one for one in base() if one["kind"] == "Secret"]
    shell = Shell(tmp_path, {"PIQUEUE_REDIS_URL": redis_url})
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    (tmp_path / "bin" / "kubectl").write_text(KUBECTL)
    (tmp_path / "bin" / "kubectl").chmod(0o755)
    shell.run(block_of("OPERATIONS.md", "kubectl apply -k deploy/kubernetes/base"))

    namespace, *sent = documents(tmp_path / "sent.yaml")
    assert {one["metadata"]["namespace"] for one in sent if one["kind"] != "Namespace"} == {
        namespace["metadata"]["name"]
    }
    made = {
        (one["metadata"]["name"], key): base64.b64decode(value).decode()
        for one in sent
        if one["kind"] == "Secret"
        for key, value in one["data"].items()
    }
    assert set(secrets_read_by(sent)) == set(made)
    address = urlsplit(made["piqueue-redis", "url"])
    assert address.password == made["piqueue-redis", "password"]
    [port] = one_of("Service", str(address.hostname), sent)["spec"]["ports"]
    assert port["port"] == address.port
    key = KeyStore(redis_client).find(made["piqueue-scaler", "api-key"])
    assert key.scopes == (Scope.METRICS,)


def test_the_documented_policy_is_valid_and_for_our_pods() -> None:
    policy = yaml.safe_load(block_of("OPERATIONS.md", "kind: NetworkPolicy").text)
    kubernetes_validate.validate(policy, OLDEST, strict=True)
    assert policy["metadata"]["namespace"] == kustomization(BASE)["namespace"]
    [expression] = policy["spec"]["podSelector"]["matchExpressions"]
    for name in expression["values"]:
        labels = one_of("Deployment", name)["spec"]["template"]["metadata"]["labels"]
        assert labels[expression["key"]] == name


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_scaler_reads_the_backlog_of_the_api(variant: str, client: httpx2.Client) -> None:
    manifests = variant_of(variant)
    scaler = one_of("ScaledObject", "worker", manifests)["spec"]
    worker = one_of("Deployment", scaler["scaleTargetRef"]["name"], manifests)
    assert "replicas" not in worker["spec"], "each apply would undo what the scaler did"
    assert 1 <= scaler["minReplicaCount"] < scaler["maxReplicaCount"]

    [trigger] = scaler["triggers"]
    asked = trigger["metadata"]
    assert (trigger["type"], asked["format"]) == ("metrics-api", "prometheus")
    url = urlsplit(asked["url"])
    namespace = kustomization(BASE)["namespace"]
    service = one_of("Service", str(url.hostname).partition(".")[0])
    assert url.hostname == f"{service['metadata']['name']}.{namespace}.svc.cluster.local"
    assert [port["port"] for port in service["spec"]["ports"]] == [url.port or 80]

    answer = client.get(url.path)
    assert answer.is_success
    metrics = {one.name: one for one in text_string_to_metric_families(answer.text)}
    assert asked["valueLocation"] == "piqueue_backlog_items"
    [sample] = metrics[asked["valueLocation"]].samples
    assert sample.value >= 0
    assert float(asked["targetValue"]) > 0

    key = one_of("TriggerAuthentication", trigger["authenticationRef"]["name"])
    [reference] = key["spec"]["secretTargetRef"]
    assert (asked["authMode"], reference["parameter"]) == ("bearer", "token")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_autoscaler_of_keda_is_valid_under_the_published_schema(variant: str) -> None:
    manifests = variant_of(variant)
    scaler = one_of("ScaledObject", "worker", manifests)["spec"]
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "worker"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker"},
            "minReplicas": scaler["minReplicaCount"],
            "maxReplicas": scaler["maxReplicaCount"],
            **scaler["advanced"]["horizontalPodAutoscalerConfig"],
        },
    }
    kubernetes_validate.validate(autoscaler, NEWEST, strict=True)


def test_redis_started_with_the_arguments_of_the_manifest_persists_and_never_evicts(
    tmp_path: Path,
) -> None:
    [container] = containers(one_of("StatefulSet", "redis"))
    arguments = [
        argument.replace("$(REDISCLI_AUTH)", "0123abcd").replace("/data", str(tmp_path))
        for argument in container["args"]
    ]
    socket = ["--port", "0", "--unixsocket", str(tmp_path / "s")]
    process = SupervisedProcess([str(find_server()), *arguments, *socket], tmp_path / "redis.log")
    process.start()
    try:
        assert eventually((tmp_path / "s").exists, 60), process.log_tail()
        with Redis(unix_socket_path=str(tmp_path / "s"), password="0123abcd") as redis:
            redis.set("kept", 1)
            found = redis.config_get("append*", "maxmemory*", "save", "dir")
    finally:
        process.stop(grace_s=10)
    assert (found["appendonly"], found["appendfsync"]) == ("yes", "everysec")
    assert (found["maxmemory"], found["maxmemory-policy"]) == (str(2**30), "noeviction")
    assert (found["save"], found["dir"]) == ("", str(tmp_path))


def test_the_grace_periods_are_those_of_compose() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("api", "worker"):
        pod = one_of("Deployment", name)["spec"]["template"]["spec"]
        grace = f"{pod['terminationGracePeriodSeconds']}s"
        assert grace == compose[name]["stop_grace_period"]
