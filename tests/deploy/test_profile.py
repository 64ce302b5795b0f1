"""Every container of the manifests and Compose files is restricted, whatever its name."""

import copy
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml

from scripts.local.stack import ROOT
from tests.scripts.images.test_images import COMPOSE, OVERRIDES, merged, read
from tests.scripts.test_kubernetes import BASE, GPU, VARIANTS, Manifest, base, one_of, variant_of
from worker.jobs.settings import Settings

# The kinds that the restricted profile of Kubernetes allows, without the ones that nothing uses.
VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
HOST = ("hostNetwork", "hostPID", "hostIPC", "hostUsers", "serviceAccountName", "nodeName")
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
UNCONFINED = ("privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "userns_mode")
MODELS_CACHE = "PIQUEUE_MODELS_CACHE_PATH"
REGISTRY = "PIQUEUE_REGISTRY_URL"
OUTSIDE = "203.0.113.9"


def pods(node: Any) -> Iterator[Manifest]:
    """Give the specification of each pod in a document, wherever it is."""
    if isinstance(node, dict):
        if "containers" in node:
            yield node
        for value in node.values():
            yield from pods(value)
    elif isinstance(node, list):
        for value in node:
            yield from pods(value)


def containers(pod: Manifest) -> list[Manifest]:
    kinds = ("containers", "initContainers", "ephemeralContainers")
    return [container for kind in kinds for container in pod.get(kind, [])]


def pod_breaches(pod: Manifest) -> list[str]:
    """Name each rule that a pod or one of its containers breaks."""
    context = pod.get("securityContext", {})
    rules = {
        "runs as root": context.get("runAsNonRoot") is True and context.get("runAsUser", 0) > 0,
        "no seccomp": context.get("seccompProfile") == {"type": "RuntimeDefault"},
        "sysctls": not context.get("sysctls"),
        "service account token": pod.get("automountServiceAccountToken") is False,
        "part of the host": not [key for key in HOST if key in pod],
        "kind of a volume": all(set(one) - {"name"} <= VOLUMES for one in pod.get("volumes", [])),
        "size of a volume": all(
            "sizeLimit" in one["emptyDir"] for one in pod.get("volumes", []) if "emptyDir" in one
        ),
    }
    for container in containers(pod):
        resources = container.get("resources", {})
        rules |= {
            f"{container['name']} unrestricted": container.get("securityContext") == RESTRICTED,
            f"{container['name']} hostPort": not any(
                "hostPort" in port for port in container.get("ports", [])
            ),
            f"{container['name']} unlimited": all(
                {"cpu", "memory"} <= set(resources.get(kind, {})) for kind in ("requests", "limits")
            ),
        }
    return [rule for rule, kept in rules.items() if not kept]


def service_breaches(service: Manifest) -> list[str]:
    """Name each rule that a service of Compose breaks."""
    mounts = [str(volume) for volume in service.get("volumes", [])]
    rules = {
        "writable root": service.get("read_only") is True,
        "capabilities": service.get("cap_drop") == ["ALL"],
        "new privileges": service.get("security_opt") == ["no-new-privileges:true"],
        "runs as root": str(service.get("user", "0")).split(":")[0] not in ("0", "root"),
        "memory": "mem_limit" in service,
        "processes": "pids_limit" in service,
        "size of a tmpfs": all("size=" in str(one) for one in service.get("tmpfs", [])),
        "unconfined": not [key for key in UNCONFINED if key in service],
        "writable folder of the host": all(
            mount.endswith(":ro") for mount in mounts if mount.startswith((".", "/", "~", "$"))
        ),
        "control of the engine": not [mount for mount in mounts if ".sock" in mount],
    }
    return [rule for rule, kept in rules.items() if not kept]


COMPOSED = {"": read(COMPOSE)} | {
    path.stem: merged(read(COMPOSE), read(path)) for path in OVERRIDES
}
SERVICES = [
    pytest.param(service, id=f"{variant}-{name}")
    for variant, composed in COMPOSED.items()
    for name, service in composed["services"].items()
]


def test_no_file_with_containers_is_left_out() -> None:
    files = [path for path in (ROOT / "deploy").rglob("*") if path.suffix in (".yaml", ".yml")]
    found = {path.parent for path in files if [*pods(list(yaml.safe_load_all(path.read_text())))]}
    assert found == {BASE, GPU}
    assert {COMPOSE, *OVERRIDES} == {
        *ROOT.glob("*compose*.y*ml"),
        *(path for path in files if "compose" in path.name),
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pod_follows_the_restricted_profile(variant: str) -> None:
    found = {
        one["metadata"]["name"]: pod_breaches(pod)
        for one in variant_of(variant)
        for pod in pods(one)
    }
    assert found == {"api": [], "redis": [], "worker": []}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_of_compose_follows_the_same_profile(service: Manifest) -> None:
    assert service_breaches(service) == []


@pytest.mark.parametrize(
    ("loosen", "found"),
    [
        (lambda pod: pod["securityContext"].pop("runAsNonRoot"), "runs as root"),
        (lambda pod: pod["securityContext"].update(runAsUser=0), "runs as root"),
        (lambda pod: pod["securityContext"].pop("seccompProfile"), "no seccomp"),
        (lambda pod: pod.pop("automountServiceAccountToken"), "service account token"),
        (lambda pod: pod.update(hostNetwork=True), "part of the host"),
        (
            lambda pod: pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
            "kind of a volume",
        ),
        (
            lambda pod: pod["volumes"].append({"name": "large", "emptyDir": {}}),
            "size of a volume",
        ),
        (
            lambda pod: pod["containers"][0]["securityContext"].update(privileged=True),
            "worker unrestricted",
        ),
        (lambda pod: pod["containers"][0]["resources"].pop("limits"), "worker unlimited"),
        (
            lambda pod: pod.update(initContainers=[{"name": "first", "image": "first:1.0"}]),
            "first unrestricted",
        ),
    ],
)
def test_a_pod_that_forgets_a_restriction_is_found(
    loosen: Callable[[Manifest], object], found: str
) -> None:
    [pod] = pods(one_of("Deployment", "worker"))
    loosen(pod)
    assert found in pod_breaches(pod)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"read_only": False}, "writable root"),
        ({"cap_add": ["NET_ADMIN"]}, "unconfined"),
        ({"security_opt": ["no-new-privileges:true", "seccomp:unconfined"]}, "new privileges"),
        ({"user": "0:0"}, "runs as root"),
        ({"tmpfs": ["/tmp"]}, "size of a tmpfs"),
        ({"volumes": ["./deploy:/deploy"]}, "writable folder of the host"),
        ({"volumes": ["/var/run/docker.sock:/run/engine.sock:ro"]}, "control of the engine"),
    ],
)
def test_a_service_that_forgets_a_restriction_is_found(change: Manifest, found: str) -> None:
    service = copy.deepcopy(COMPOSED[""]["services"]["worker"])
    assert found in service_breaches({**service, **change})
    assert len(service_breaches({"image": "new:1.0"})) >= 6


@pytest.mark.parametrize("name", ["api", "worker"])
def test_what_a_process_writes_has_a_place_with_a_limit(name: str) -> None:
    dockerfile = (ROOT / f"Dockerfile.{name}").read_text()
    [home] = re.findall(r"\bHOME=(\S+)", dockerfile)
    default = Settings.model_fields["models_cache_path"].default

    service = COMPOSED[""]["services"][name]
    env = service["environment"]
    volumes = [volume.split(":")[1] for volume in service["volumes"]]
    # Not in a tmpfs, which would count as memory of the container.
    assert below(env["TMPDIR"], volumes)
    assert below(env.get(MODELS_CACHE, str(default)).replace("~", home), volumes)
    # The image names the registry, so that piqueue.env can name another one.
    assert REGISTRY not in env
    assert below(re.findall(rf"\b{REGISTRY}=(\S+)", dockerfile)[0], volumes)
    assert set(volumes) <= {home}, "a volume has the owner of the folder of the image"

    manifests = base()
    [settings] = [one["data"] for one in manifests if one["kind"] == "ConfigMap"]
    [pod] = [
        pod
        for one in manifests
        for pod in pods(one)
        if pod["containers"][0]["image"] == f"piqueue-{name}"
    ]
    [container] = containers(pod)
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert below("/tmp", mounts)
    assert below(settings[MODELS_CACHE], mounts)


def below(path: str, folders: list[str]) -> bool:
    return any(PurePosixPath(path).is_relative_to(folder) for folder in folders)


def test_the_memory_of_a_container_is_enough_for_its_settings() -> None:
    services = COMPOSED[""]["services"]
    [maxmemory] = re.findall(r"--maxmemory (\S+)", " ".join(services["redis"]["command"]))
    # The fork that rewrites the append-only file may need the same memory again.
    assert in_bytes(services["redis"]["mem_limit"]) >= 2 * in_bytes(maxmemory)
    settings = Settings(threads=2)
    most = 250_000_000 + settings.decode_memory_bytes + settings.fetch_budget_bytes
    most += 40_000_000 * settings.threads + settings.models_bytes
    [pod] = pods(one_of("Deployment", "worker"))
    [worker] = containers(pod)
    assert in_bytes(worker["resources"]["limits"]["memory"]) >= most
    assert in_bytes(services["worker"]["mem_limit"]) >= most


def in_bytes(text: str) -> int:
    """Read 2Gi, 2g, or the default of a variable."""
    [(number, unit)] = re.findall(r"(?:^|:-)(\d+)([kmg])i?b?\}?$", text.lower())
    return int(number) << 10 * ("kmg".index(unit) + 1)


def test_redis_of_compose_has_no_way_to_the_outside() -> None:
    composed = COMPOSED[""]
    redis = composed["services"]["redis"]
    assert [composed["networks"][name] for name in redis["networks"]] == [{"internal": True}]
    assert "ports" not in redis


def selects(selector: Manifest, labels: Manifest) -> bool:
    wanted: Manifest = selector.get("matchLabels", {})
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    for one in selector.get("matchExpressions", []):
        assert one["operator"] == "In"
        if labels.get(one["key"]) not in one["values"]:
            return False
    return wanted.items() <= labels.items()


class Cluster:
    """Decides as the NetworkPolicies of the manifests say which connections are possible.

    A place is a pod of ours (api, worker, redis), `added` (another pod of the namespace), the name
    of another namespace, or an address.
    """

    def __init__(self, manifests: Iterable[Manifest]) -> None:
        self._policies = [one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"]
        self._labels: dict[str, Manifest] = {"added": {}}
        self._ports: dict[str, dict[str, int]] = {"added": {}}
        for one in manifests:
            for pod in pods(one):
                name = one["metadata"]["name"]
                self._labels[name] = one["spec"]["template"]["metadata"]["labels"]
                named = [port for each in containers(pod) for port in each["ports"]]
                self._ports[name] = {port["name"]: port["containerPort"] for port in named}

    def connects(self, source: str, target: str, port: int) -> bool:
        return self._may("Egress", source, target, target, port) and self._may(
            "Ingress", target, source, target, port
        )

    def _may(self, direction: str, pod: str, peer: str, target: str, port: int) -> bool:
        """Decide for one end, `pod`, whether the other end may be `peer`."""
        if pod not in self._labels:
            return True
        rules = [
            policy.get(direction.lower(), [])
            for policy in self._policies
            if direction in policy["policyTypes"]
            and selects(policy["podSelector"], self._labels[pod])
        ]
        named = self._ports.get(target, {})
        peers = {"Egress": "to", "Ingress": "from"}[direction]
        return not rules or any(
            (peers not in rule or any(self._is(one, peer) for one in rule[peers]))
            and (
                "ports" not in rule
                or port in [named.get(one["port"], one["port"]) for one in rule["ports"]]
            )
            for rule in itertools.chain(*rules)
        )

    def _is(self, wanted: Manifest, peer: str) -> bool:
        if "podSelector" in wanted:
            return peer in self._labels and selects(wanted["podSelector"], self._labels[peer])
        if "namespaceSelector" in wanted:
            namespace = "piqueue" if peer in self._labels else peer
            labels = {"kubernetes.io/metadata.name": namespace}
            return not is_address(peer) and selects(wanted["namespaceSelector"], labels)
        block = wanted["ipBlock"]
        return is_address(peer) and (
            ip_address(peer) in ip_network(block["cidr"])
            and not any(ip_address(peer) in ip_network(one) for one in block.get("except", []))
        )


def is_address(place: str) -> bool:
    return "." in place or ":" in place


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("source", "target", "port", "possible"),
    [
        (OUTSIDE, "api", 8000, True),
        ("keda", "api", 8000, True),
        (OUTSIDE, "api", 22, False),
        ("monitoring", "worker", 9100, True),
        (OUTSIDE, "worker", 9100, False),
        ("api", "redis", 6379, True),
        ("worker", "redis", 6379, True),
        (OUTSIDE, "redis", 6379, False),
        ("monitoring", "redis", 6379, False),
        ("added", "redis", 6379, False),
        ("worker", "redis", 22, False),
        ("worker", "kube-system", 53, True),
        ("api", "kube-system", 53, True),
        ("worker", "169.254.20.10", 53, True),
        ("worker", OUTSIDE, 443, True),
        ("worker", OUTSIDE, 8080, True),
        ("worker", "2a00:1450::1", 443, True),
        ("worker", "10.96.0.1", 443, False),
        ("worker", "169.254.169.254", 80, False),
        ("worker", "192.168.0.1", 80, False),
        ("worker", "fd00::1", 80, False),
        ("worker", "api", 8000, False),
        ("api", "worker", 9100, False),
        ("api", OUTSIDE, 443, True),
        ("api", OUTSIDE, 25, False),
        ("api", "169.254.169.254", 443, False),
        ("redis", OUTSIDE, 443, False),
        ("redis", "kube-system", 53, False),
        ("added", OUTSIDE, 443, False),
        ("monitoring", "added", 80, False),
    ],
)
def test_only_these_connections_are_possible(
    source: str, target: str, port: int, possible: bool, variant: str
) -> None:
    assert Cluster(variant_of(variant)).connects(source, target, port) is possible
