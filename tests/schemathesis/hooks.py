"""Adjusts generated requests to rules that the OpenAPI document cannot express."""

import os
import uuid

import schemathesis

ADMIN = os.environ["ADMIN_ID"]
UNKNOWN = "00000000-0000-7000-8000-000000000000"
# Valid values for fields with rules beyond their schema. They replace generated values that are not null.
MEANINGFUL = {
    "expires_at": "2999-01-01T00:00:00Z",
    "metadata_json": '{"team": "mail"}',
    "identifier": "https://resource.example/tools",
    "issuer": "https://issuer.example",
    "jwks_uri": "https://issuer.example/keys",
    "scope": "agents:read",
    "selector": "env=prod,!old",
    "allowed_networks": "192.0.2.0/24 2001:db8::/32",
}
PUBLIC_KEY = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


@schemathesis.hook
def before_call(context, case, kwargs):
    parameters = case.path_parameters or {}
    if parameters.get("id") == ADMIN and case.method != "GET":
        # The token belongs to this agent; revoking its credentials or tokens would turn all later responses into 401.
        parameters["id"] = UNKNOWN
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    headers = case.headers or {}
    if is_valid and "Idempotency-Key" in headers:
        # Generated keys repeat themselves, and a key is for one request only.
        headers["Idempotency-Key"] = str(uuid.uuid4())
    for name in ("If-Match", "If-None-Match"):
        # The coverage phase generates texts that do not match the pattern.
        if is_valid and name in headers:
            headers[name] = "*"
    if is_valid and (case.query or {}).get("selector"):
        case.query["selector"] = MEANINGFUL["selector"]
    if is_valid and isinstance(case.body, dict) and case.media_type == "application/json":
        if case.path.endswith("/public-keys"):
            case.body = {"keys": [PUBLIC_KEY]} if "keys" in case.body else PUBLIC_KEY
        else:
            meaningful = {name: MEANINGFUL[name] for name in MEANINGFUL if case.body.get(name) is not None}
            case.body = case.body | meaningful


@schemathesis.hook
def filter_failure(context, failure, case, response):
    # Requests that were redirected to an unknown agent prove nothing.
    return (case.path_parameters or {}).get("id") != UNKNOWN
