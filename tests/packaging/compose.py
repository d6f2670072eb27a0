"""Checks the Compose file as Docker Compose understands it: `docker-compose config --format json` on standard input."""

import ipaddress
import json
import sys

project = json.load(sys.stdin)
services = project["services"]
assert services.keys() == {"aims-1", "aims-2", "caddy", "postgres"}, services.keys()

# Only the proxy is reachable from outside, and the database only from the nodes.
assert [name for name, service in services.items() if service.get("ports")] == ["caddy"]
with_database = {name for name, service in services.items() if "database" in service["networks"]}
assert with_database == {"aims-1", "aims-2", "postgres"}, with_database
assert project["networks"]["database"]["internal"] is True

# The nodes take client addresses from Caddy alone, whose address no other container can get.
(pool,) = project["networks"]["proxy"]["ipam"]["config"]
caddy = ipaddress.ip_address(services["caddy"]["networks"]["proxy"]["ipv4_address"])
assert caddy in ipaddress.ip_network(pool["subnet"]) and caddy not in ipaddress.ip_network(pool["ip_range"])
for name in ("aims-1", "aims-2"):
    node = services[name]
    assert node["environment"]["TRUSTED_PROXIES"] == str(caddy)
    assert node["environment"]["PUBLIC_URL"] == "https://aims.example"
    assert node["read_only"] and node["cap_drop"] == ["ALL"] and node["security_opt"] == ["no-new-privileges:true"]
    assert node["healthcheck"]["test"] == ["CMD", "aims", "healthcheck"]
    assert f"{name}:8000" in services["caddy"]["environment"]["AIMS_NODES"].split()

# Secrets are in files, not in the environment.
assert all("file" in secret for secret in project["secrets"].values())
for name, service in services.items():
    for setting, value in service.get("environment", {}).items():
        secret = any(word in setting for word in ("PASSWORD", "KEY", "SECRET", "DATABASE_URL"))
        assert not secret or value.startswith("/run/secrets/"), f"{name}: {setting}"
    assert service["restart"] == "unless-stopped"
print("compose: the file is what deploy/README.md says")
