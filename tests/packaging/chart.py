"""Renders the Helm chart with Helm's own library and checks the result: against the schemas of Kubernetes, and for the
properties that the documentation promises."""

import tomllib
from pathlib import Path

import helm_python as helm
import kubernetes_validate
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/aims"
KUBERNETES = ("1.30", "1.36")

BASE = {
    "image": {"repository": "registry.example/aims"},
    "secretName": "aims",
    "settings": {"PUBLIC_URL": "https://aims.example"},
}
SQLITE = {**BASE, "database": "sqlite", "secretName": ""}
EVERYTHING = {
    **BASE,
    "replicas": 3,
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "host": "aims.example",
        "tlsSecretName": "aims-tls",
        "annotations": {"a": "b"},
    },
    "metrics": {"enabled": True, "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "networkPolicy": {
        "enabled": True,
        "ingressFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
        "metricsFrom": [{"namespaceSelector": {}}],
    },
    "podAnnotations": {"a": "true"},
    "podLabels": {"team": "identity"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "priorityClassName": "system-cluster-critical",
    "backups": {"claimName": "aims-backups"},
    "image": {"repository": "registry.example/aims", "pullSecrets": [{"name": "registry"}]},
}
OPENSHIFT = {**BASE, "podSecurityContext": {"runAsUser": None, "fsGroup": None}}

REFUSED = {
    "no image": {**BASE, "image": {"repository": ""}},
    "no URL": {**BASE, "settings": {"PUBLIC_URL": ""}},
    "a URL with a path": {**BASE, "settings": {"PUBLIC_URL": "https://aims.example/x"}},
    "PostgreSQL without a Secret": {**BASE, "secretName": ""},
    "a secret among the settings": {**BASE, "settings": {**BASE["settings"], "MASTER_KEY": "00"}},
    "a former secret among the settings": {**BASE, "settings": {**BASE["settings"], "MASTER_KEY_PREVIOUS": "00"}},
    "a password among the settings": {**BASE, "settings": {**BASE["settings"], "DATABASE_URL": "postgres://a:b@c/d"}},
    "an ingress without a host": {**BASE, "ingress": {"enabled": True}},
    "a misspelt value": {**BASE, "replicaCount": 3},
    "another database": {**BASE, "database": "mysql"},
}


def render(values):
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(chart.merge_values(values))
        files = chart.render(values, name="aims", namespace="identity")
    objects = {}
    for name, text in files.items():
        if name.endswith("NOTES.txt"):
            assert "aims setup-token" in text and "https://aims.example/console" in text, text
            continue
        for document in filter(None, yaml.safe_load_all(text)):
            objects[document["kind"], document["metadata"]["name"]] = document
    return objects


def check_against_kubernetes(objects):
    for item in objects.values():
        # Kubernetes itself does not define this kind.
        if item["kind"] != "ServiceMonitor":
            for version in KUBERNETES:
                kubernetes_validate.validate(item, version, strict=True)


def pod_of(objects, kind):
    workload = objects[kind, "aims"]["spec"]
    assert workload["selector"]["matchLabels"].items() <= workload["template"]["metadata"]["labels"].items()
    return workload["template"]["spec"]


def check_hardening(pod, volumes=("/data", "/tmp")):
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert writable == set(volumes), writable
    probes = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert probes == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}, probes
    wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > wait + 9, "DRAIN_SECONDS is 9"
    return container


def environment(container):
    return {item["name"]: item["value"] for item in container["env"]}


def kinds(objects):
    return sorted(kind for kind, _ in objects)


def main():
    report = helm.lint(CHART, BASE, strict=True)
    problems = [message for message in report["messages"] if message["severity"] > 1] + report["errors"]
    assert not problems, problems

    # A field that Kubernetes does not know is found.
    broken = render(BASE)
    pod_of(broken, "Deployment")["containers"][0]["readOnly"] = True
    try:
        check_against_kubernetes(broken)
    except kubernetes_validate.ValidationError:
        pass
    else:
        raise AssertionError("the check against Kubernetes finds nothing")

    objects = render(BASE)
    check_against_kubernetes(objects)
    assert kinds(objects) == ["Deployment", "PodDisruptionBudget", "Service", "ServiceAccount"], kinds(objects)
    container = check_hardening(pod_of(objects, "Deployment"))
    assert container["envFrom"] == [{"secretRef": {"name": "aims"}}]
    assert environment(container) == {
        "LISTEN_ADDR": "0.0.0.0:8000",
        "PUBLIC_URL": "https://aims.example",
        "LOG_FORMAT": "json",
    }
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    assert container["image"] == f"registry.example/aims:{version}", "the chart names another version"

    objects = render(SQLITE)
    check_against_kubernetes(objects)
    assert kinds(objects) == ["Service", "ServiceAccount", "StatefulSet"], kinds(objects)
    container = check_hardening(pod_of(objects, "StatefulSet"))
    assert environment(container)["DATABASE_URL"] == "sqlite:////data/aims.db"
    stateful = objects["StatefulSet", "aims"]["spec"]
    assert stateful["replicas"] == 1
    assert [claim["metadata"]["name"] for claim in stateful["volumeClaimTemplates"]] == ["data"]
    assert render({**SQLITE, "replicas": 5})["StatefulSet", "aims"]["spec"]["replicas"] == 1

    objects = render(EVERYTHING)
    check_against_kubernetes(objects)
    assert len(objects) == 8, kinds(objects)
    pod = pod_of(objects, "Deployment")
    container = check_hardening(pod, ["/data", "/tmp", "/backups"])
    assert environment(container)["METRICS_ADDR"] == "0.0.0.0:9464"
    assert environment(container)["BACKUP_DIR"] == "/backups"
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "emptyDir" not in volume]
    assert claims == ["aims-backups"], claims
    assert [port["name"] for port in objects["Service", "aims"]["spec"]["ports"]] == ["http"], "never the metrics"
    monitor = objects["ServiceMonitor", "aims"]["spec"]["selector"]["matchLabels"]
    assert monitor.items() <= objects["Service", "aims-metrics"]["metadata"]["labels"].items()
    assert not monitor.items() <= objects["Service", "aims"]["metadata"]["labels"].items()
    rules = objects["NetworkPolicy", "aims"]["spec"]["ingress"]
    assert [rule["ports"][0]["port"] for rule in rules] == ["http", "metrics"]
    closed = render({**BASE, "networkPolicy": {"enabled": True}})
    assert not closed["NetworkPolicy", "aims"]["spec"]["ingress"], "no peer, no entry"

    context = pod_of(render(OPENSHIFT), "Deployment")["securityContext"]
    assert "runAsUser" not in context and "fsGroup" not in context and context["runAsNonRoot"], context

    for name, values in REFUSED.items():
        try:
            render(values)
        except helm.HelmError:
            continue
        raise AssertionError(f"the chart accepts {name}")
    print(f"chart: 5 releases rendered and {len(REFUSED)} wrong ones refused, Kubernetes {', '.join(KUBERNETES)}")


main()
