"""The manifests in deploy/kubernetes: valid, and true to what the code says of the parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from chassis import settings as chassis_settings
from chassis.settings import Settings
from suite import callers
from suite.composition import GATEWAY, SERVICES
from tests.deploy.kustomizing import Manifest, built, containers, settings_in

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
BASE = built(KUBERNETES / "base")
EXAMPLE = built(KUBERNETES / "example")
_OLDEST = "1.30"
_METRICS_PORT = 9090
_NAME = "app.kubernetes.io/name"
_EVERYBODY = "everybody"
_SUITE = {"app.kubernetes.io/part-of": "insta"}


@pytest.mark.parametrize("version", [_OLDEST, kubernetes_validate.latest_version()])
def test_what_the_overlay_makes_is_valid(version: str) -> None:
    assert len(EXAMPLE) > len(SERVICES)
    for manifest in EXAMPLE:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_connections_are_allowed_as_calls_are() -> None:
    allowed = callers.allowed(Settings())
    calls = {
        (caller, service.name)
        for service in SERVICES.values()
        for contract in service.contracts
        for caller in (allowed[contract] if service is not GATEWAY else {_EVERYBODY})
    }

    assert _connections_in() == calls
    # And they are let out of where they begin.
    assert _connections_out() == {call for call in calls if call[0] != _EVERYBODY}


def test_behind_an_ingress_its_controller_alone_connects_to_the_gateway() -> None:
    overlaid = {each["metadata"]["name"]: each["spec"] for each in EXAMPLE if each["kind"] == "NetworkPolicy"}
    base = {each["metadata"]["name"]: each["spec"] for each in BASE if each["kind"] == "NetworkPolicy"}

    assert _one("Ingress", "gateway")
    # Else every pod of the cluster would be believed to be the controller.
    controller = {"from": [_namespace("nginx-ingress")], "ports": [{"port": GATEWAY.port}]}
    assert overlaid == base | {"gateway": base["gateway"] | {"ingress": [controller]}}


def test_nobody_may_connect_but_for_what_is_allowed() -> None:
    nobody = _one("NetworkPolicy", "nobody")["spec"]

    assert nobody == {"podSelector": {"matchLabels": _SUITE}, "policyTypes": ["Ingress", "Egress"]}
    for pod in _pods():
        assert _SUITE.items() <= pod["metadata"]["labels"].items()


def test_what_is_outside_is_reached_by_its_port_alone() -> None:
    outside = [(policy["metadata"]["name"], rule) for policy, rule in _rules("Egress") if not rule.get("to")]

    assert sorted(outside, key=str) == [
        ("databases", {"ports": [{"port": 5432}]}),
        ("posts", {"ports": [{"port": 443}]}),
    ]
    parts = [service.name for service in SERVICES.values() if service.migrations]
    assert _one("NetworkPolicy", "databases")["spec"]["podSelector"] == {
        "matchExpressions": [{"key": _NAME, "operator": "In", "values": [*parts, "migrate"]}]
    }


def test_all_are_measured_and_resolve_names_and_no_more() -> None:
    assert _one("NetworkPolicy", "all")["spec"] == {
        "podSelector": {"matchLabels": _SUITE},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [_namespace("monitoring")], "ports": [{"port": _METRICS_PORT}]}],
        "egress": [
            {
                "to": [_namespace("kube-system")],
                "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
            }
        ],
    }


def test_traces_are_let_out_to_a_collector_alone() -> None:
    policy = yaml.safe_load((KUBERNETES / "example" / "traces.yaml").read_text())

    assert policy["spec"] == {
        "podSelector": {"matchLabels": _SUITE},
        "policyTypes": ["Egress"],
        "egress": [{"to": [_namespace("observability")], "ports": [{"port": 4318}]}],
    }


@pytest.mark.parametrize("name", SERVICES)
def test_each_part_proves_itself_with_what_is_mounted(name: str) -> None:
    settings = _settings_of(name)
    volumes = {
        volume["name"]: volume["secret"]["secretName"]
        for volume in _one("Deployment", name)["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
    }
    mounted = {mount["mountPath"]: volumes.get(mount["name"]) for mount in _container(name)["volumeMounts"]}

    assert mounted[settings["INSTA_PEER_TLS"]] == f"{name}-tls"
    if SERVICES[name] is GATEWAY:
        certificate, key = Path(settings["INSTA_TLS_CERTIFICATE"]), Path(settings["INSTA_TLS_KEY"])
        assert (certificate.name, key.name) == ("tls.crt", "tls.key")
        assert mounted[str(certificate.parent)] == mounted[str(key.parent)] == "gateway-public-tls"


@pytest.mark.parametrize("name", SERVICES)
def test_each_part_is_where_the_others_look_for_it(name: str) -> None:
    part = _container(name)
    settings = _settings_of(name)
    port = SERVICES[name].port
    service = _one("Service", name)["spec"]

    assert part["args"] == ["serve", name]
    assert settings["INSTA_LISTEN"] == f"0.0.0.0:{port}"
    assert {each["name"]: each["containerPort"] for each in part["ports"]} == {"grpc": port, "metrics": _METRICS_PORT}
    assert settings["INSTA_METRICS_LISTEN"] == f"0.0.0.0:{_METRICS_PORT}"
    assert service["ports"] == [{"name": "grpc", "port": port, "targetPort": "grpc"}]
    assert service["selector"].items() <= _one("Deployment", name)["spec"]["template"]["metadata"]["labels"].items()
    # A name of one address would keep all calls of a process on one replica.
    assert service["clusterIP"] == "None"
    if SERVICES[name] is not GATEWAY:
        assert settings[f"INSTA_{name.upper()}_ADDRESS"] == f"dns:///{name}:{port}"
        assert service["publishNotReadyAddresses"] is True


@pytest.mark.parametrize("name", SERVICES)
def test_each_part_is_replicated_and_probed(name: str) -> None:
    part = _container(name)
    selector = _one("Deployment", name)["spec"]["selector"]
    scaler = _one("HorizontalPodAutoscaler", name)["spec"]
    budget = _one("PodDisruptionBudget", name)["spec"]

    # Else each application would undo what the autoscaler did.
    assert "replicas" not in _one("Deployment", name)["spec"]
    assert scaler["minReplicas"] >= 2
    assert scaler["scaleTargetRef"]["name"] == name
    assert budget["selector"] == selector
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert part[probe]["exec"]["command"] == ["python", "-m", "suite.probe", name]


@pytest.mark.parametrize("name", SERVICES)
def test_each_part_has_the_time_that_it_takes_to_stop(name: str) -> None:
    pod = _one("Deployment", name)["spec"]["template"]["spec"]
    pause = _container(name)["lifecycle"]["preStop"]["sleep"]["seconds"] if SERVICES[name] is GATEWAY else 0
    drain = int(_settings_of(name)["INSTA_DRAIN_SECONDS"])

    assert pause + drain + 5 <= pod["terminationGracePeriodSeconds"]


def test_every_pod_is_confined() -> None:
    pods = _pods()
    assert len(pods) == len(SERVICES) + 1
    for pod in pods:
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            volumes = {volume["name"]: volume for volume in spec["volumes"]}
            assert mounts.keys() >= {"/tmp", "/var/lib/insta"}
            assert "emptyDir" in volumes[mounts["/tmp"]]
            assert "emptyDir" in volumes[mounts["/var/lib/insta"]]


def test_the_user_of_the_image_is_the_user_of_the_pods() -> None:
    dockerfile = (KUBERNETES.parents[1] / "Dockerfile").read_text()
    (user, group) = re.findall(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)[0]
    for pod in _pods():
        context = pod["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (int(user), int(group), int(group))


def test_secrets_are_named_and_never_here() -> None:
    everything = [document for file in KUBERNETES.rglob("*.yaml") for document in yaml.safe_load_all(file.read_text())]
    assert everything
    assert "Secret" not in {document["kind"] for document in everything}
    for container in containers(EXAMPLE):
        for variable in container["env"]:
            if re.search("DATABASE_URL|SECRET|ACCESS_KEY|PASSWORD|TOKEN", variable["name"]):
                assert variable.keys() == {"name", "valueFrom"}
                assert variable["valueFrom"].keys() == {"secretKeyRef"}
    for file in KUBERNETES.rglob("*.env"):
        assert not [name for name in settings_in(file) if re.search("DATABASE_URL|SECRET|ACCESS_KEY|PASSWORD", name)]


def test_each_part_has_its_own_certificate_and_database_only() -> None:
    secrets: dict[str, set[str]] = {}
    for name in SERVICES:
        volumes = _one("Deployment", name)["spec"]["template"]["spec"]["volumes"]
        variables = _container(name)["env"]
        mounted = {volume["secret"]["secretName"] for volume in volumes if "secret" in volume}
        secrets[name] = mounted | {
            variable["valueFrom"]["secretKeyRef"]["name"] for variable in variables if "valueFrom" in variable
        }

    assert secrets == {
        "users": {"users-tls", "users-database"},
        "posts": {"posts-tls", "posts-database", "posts-s3"},
        "social": {"social-tls", "social-database"},
        "gateway": {"gateway-tls", "gateway-public-tls"},
    }


def test_the_job_migrates_every_database() -> None:
    (container,) = _one("Job", "migrate")["spec"]["template"]["spec"]["containers"]

    assert container["args"] == ["migrate"]
    assert {variable["name"] for variable in container["env"]} == {
        f"INSTA_{service.name.upper()}_DATABASE_URL" for service in SERVICES.values() if service.migrations
    }


def test_all_settings_exist_and_have_values_that_they_can_have() -> None:
    known = {variable for variable, _, _ in chassis_settings.described()}
    for name in SERVICES:
        given = {variable: value for variable, value in _settings_of(name).items() if variable.startswith("INSTA_")}
        assert given.keys() <= known
        chassis_settings.from_environment(given)


def _one(kind: str, name: str) -> Manifest:
    (found,) = [each for each in EXAMPLE if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def _pods() -> list[dict[str, Any]]:
    return [each["spec"]["template"] for each in EXAMPLE if "template" in each.get("spec", {})]


def _container(name: str) -> dict[str, Any]:
    (container,) = _one("Deployment", name)["spec"]["template"]["spec"]["containers"]
    return container


def _settings_of(name: str) -> dict[str, str]:
    """What a part is told in the open: what is in secrets is not here."""
    container = _container(name)
    assert container["envFrom"] == [{"configMapRef": {"name": "settings"}}]
    own = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
    return _one("ConfigMap", "settings")["data"] | own


def _connections_in() -> set[tuple[str, str]]:
    """Who may connect to which part, and to nothing but its port for calls."""
    found = set()
    for policy, rule in _rules("Ingress"):
        name = _pod(policy["spec"])
        assert rule["ports"] == [{"port": SERVICES[name].port}]
        sources = rule.get("from", [])
        found |= {(_pod(source), name) for source in sources} if sources else {(_EVERYBODY, name)}
    return found


def _connections_out() -> set[tuple[str, str]]:
    """Which part may connect to which."""
    found = set()
    for policy, rule in _rules("Egress"):
        for target in rule.get("to", ()):
            assert rule["ports"] == [{"port": SERVICES[_pod(target)].port}]
            found.add((_pod(policy["spec"]), _pod(target)))
    return found


def _rules(direction: str) -> Iterator[tuple[Manifest, dict[str, Any]]]:
    """The rules of all policies of the base but `all`."""
    for policy in BASE:
        if policy["kind"] == "NetworkPolicy" and policy["metadata"]["name"] != "all":
            rules = policy["spec"].get(direction.lower(), [])
            assert not rules or direction in policy["spec"]["policyTypes"]
            yield from ((policy, rule) for rule in rules)


def _pod(peer: dict[str, Any]) -> str:
    """The pods of which part are meant by a peer, or by a policy: those of the namespace, and all of them."""
    assert peer.keys() & {"podSelector", "namespaceSelector", "ipBlock"} == {"podSelector"}
    assert peer["podSelector"].keys() == {"matchLabels"}
    ((label, name),) = peer["podSelector"]["matchLabels"].items()
    assert label == _NAME
    return str(name)


def _namespace(name: str) -> dict[str, Any]:
    """All pods of a namespace, as a peer."""
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
