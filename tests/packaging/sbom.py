"""Checks the SBOM: its form against the schema of CycloneDX, and its content against Cargo.lock."""

import json
import subprocess
import tomllib
from pathlib import Path

import cyclonedx.schema
import jsonschema_rs

ROOT = Path(__file__).parents[2]
# The package ships the official schemas. Its own validator takes a hundred times as long.
SCHEMAS = Path(cyclonedx.schema.__file__).parent / "_res"


def schema(name):
    return json.loads((SCHEMAS / f"{name}.SNAPSHOT.schema.json").read_text())


def validator():
    base = "http://cyclonedx.org/schema/"
    others = [(f"{base}{name}.SNAPSHOT.schema.json", schema(name)) for name in ("spdx", "jsf-0.82")]
    registry = jsonschema_rs.Registry(others)
    return jsonschema_rs.validator_for(schema("bom-1.6"), registry=registry, validate_formats=True)


def generate():
    return subprocess.run(ROOT / "deploy/sbom/generate", check=True, stdout=subprocess.PIPE, text=True).stdout


text = generate()
assert text == generate(), "two runs differ"
document = json.loads(text)
validator().validate(document)
broken = json.loads(text)
broken["components"][0]["hashes"][0]["content"] = "no hash"
assert not validator().is_valid(broken), "the validator finds nothing"

main = document["metadata"]["component"]["bom-ref"]
components = {item["bom-ref"]: item for item in document["components"]}
assert len(components) == len(document["components"])
edges = {edge["ref"]: edge["dependsOn"] for edge in document["dependencies"]}
crates = {ref for ref in components if ref.startswith("pkg:cargo/")}
assert edges.keys() == crates | {main}
assert {target for targets in edges.values() for target in targets} == components.keys(), "something depends on each"

with open(ROOT / "Cargo.lock", "rb") as file:
    locked = {(p["name"], p["version"]): p.get("checksum") for p in tomllib.load(file)["package"]}
for ref in crates:
    item = components[ref]
    assert item["hashes"] == [{"alg": "SHA-256", "content": locked[item["name"], item["version"]]}], ref

scopes = {item["name"]: item["scope"] for item in components.values()}
for name in ("aws-lc-sys", "axum", "libsqlite3-sys", "mimalloc", "sqlx-postgres", "htmx.org", "lucide-static"):
    assert scopes.get(name) == "required", name
for name in ("cc", "serde_derive", "syn"):
    assert scopes.get(name) == "excluded", name
for name in ("insta", "proptest", "ring", "openssl-sys", "sqlx-mysql"):
    assert name not in scopes, f"{name} is not compiled into the binary"
print(f"sbom: {len(components)} components, valid CycloneDX 1.6")
