"""Parses metrics with Prometheus's own Python library and compares some of them with the requests of `run`."""

import sys

from prometheus_client.parser import text_string_to_metric_families

with open(sys.argv[1], encoding="utf-8") as file:
    families = {family.name: family for family in text_string_to_metric_families(file.read())}


def value(family, name=None, **labels):
    """Returns the sum of the samples with these labels."""
    name = name or family
    found = [s.value for s in families[family].samples if s.name == name and labels.items() <= s.labels.items()]
    assert found, (name, labels)
    return sum(found)


def requests(**labels):
    return value("aims_http_requests", "aims_http_requests_total", **labels)


undescribed = [family.name for family in families.values() if not family.documentation]
assert not undescribed, undescribed
assert requests(method="POST", route="/api/v1/auth/token", status="2xx") == 3
assert requests(method="GET", route="/api/v1/agents", status="4xx") == 1
assert requests(route="unmatched", status="4xx") == 1
assert requests(route="/console", status="3xx") == 1
assert value("aims_tokens_issued", "aims_tokens_issued_total", grant="api_key") == 3
assert value("aims_refusals", "aims_refusals_total", reason="missing_token") == 1
duration = "aims_http_request_duration_seconds"
assert value(duration, f"{duration}_count", route="/api/v1/auth/token") == 3
assert value(duration, f"{duration}_bucket", route="/api/v1/auth/token", le="+Inf") == 3
assert value("aims_database_up") == 1
assert value("aims_audit_chain_head") >= 3
samples = sum(len(family.samples) for family in families.values())
print(f"metrics: {len(families)} families and {samples} samples are as expected")
