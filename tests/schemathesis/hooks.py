"""Adjusts generated requests to rules that the schema cannot express."""

import os

import schemathesis

ADMIN = os.environ["ADMIN_ID"]
UNKNOWN_ID = "00000000-0000-7000-8000-000000000000"
# Valid values for members with rules beyond the schema.
VALID_VALUES = {
    "expires_at": "2999-01-01T00:00:00Z",
    "metadata_json": '{"team": "mail"}',
    "identifier": "https://resource.example/tools",
    "issuer": "https://issuer.example",
    "jwks_uri": "https://issuer.example/keys",
    "scope": "agents:read",
    "allowed_networks": "192.0.2.0/24 2001:db8::/32",
}
PUBLIC_KEY = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


@schemathesis.hook
def before_call(context, case, kwargs):
    parameters = case.path_parameters or {}
    if parameters.get("id") == ADMIN and case.method != "GET":
        # Revoking the keys or tokens of the administrator would make every later request fail with 401.
        parameters["id"] = UNKNOWN_ID
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    if is_valid and isinstance(case.body, dict) and case.media_type == "application/json":
        if case.path.endswith("/public-keys"):
            case.body = {"keys": [PUBLIC_KEY]} if "keys" in case.body else PUBLIC_KEY
        else:
            valid = {name: VALID_VALUES[name] for name in VALID_VALUES if case.body.get(name) is not None}
            case.body = case.body | valid


@schemathesis.hook
def filter_failure(context, failure, case, response):
    # Ignore failures of requests whose target was replaced above.
    return (case.path_parameters or {}).get("id") != UNKNOWN_ID
