"""An agent gets a token for an API and calls it."""

import os

import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc.jwk import ECKey

issuer, resource = os.environ["AIMS_URL"], os.environ["RESOURCE"]
client_id = os.environ["AIMS_CLIENT_ID"]
metadata = requests.get(f"{issuer}/.well-known/oauth-authorization-server", timeout=10).json()
assert metadata["issuer"] == issuer

if key_file := os.environ.get("AIMS_PRIVATE_KEY"):
    with open(key_file, encoding="ascii") as file:
        key = ECKey.import_key(file.read())
    session = OAuth2Session(client_id, key, token_endpoint_auth_method="private_key_jwt")
    session.register_client_auth_method(PrivateKeyJWT(metadata["issuer"], alg="ES256"))
else:
    session = OAuth2Session(client_id, os.environ["AIMS_CLIENT_SECRET"])

token = session.fetch_token(metadata["token_endpoint"], grant_type="client_credentials", resource=resource)
print("scope:", token["scope"])
response = session.get(resource, timeout=10)
print("response:", response.status_code, response.text.strip())
response.raise_for_status()
