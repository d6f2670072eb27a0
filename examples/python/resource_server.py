"""An API that requires an access token for its URL.

The API verifies the signature of a token locally. A signature does not show that a token has been revoked, so the API
also introspects the token.
"""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import jwt
import requests

issuer, resource = os.environ["AIMS_URL"], os.environ["RESOURCE"]
credentials = (os.environ["AIMS_CLIENT_ID"], os.environ["AIMS_CLIENT_SECRET"])
keys = jwt.PyJWKClient(f"{issuer}/.well-known/jwks.json", lifespan=300)


def verify(token):
    """Returns the claims of a valid token; raises for any other."""
    if jwt.get_unverified_header(token).get("typ") != "at+jwt":
        raise jwt.InvalidTokenError("not an access token (RFC 9068)")
    key = keys.get_signing_key_from_jwt(token)
    # The library rejects tokens issued in the future, and this machine's clock may be behind the clock of AIMS.
    claims = jwt.decode(
        token, key, algorithms=["ES256", "EdDSA", "RS256"], issuer=issuer, audience=resource, leeway=5
    )
    # A DPoP-bound token (RFC 9449) requires a proof, which this API does not support.
    if "cnf" in claims:
        raise jwt.InvalidTokenError("DPoP-bound tokens are not supported")
    return claims


def is_active(token):
    """Returns true if the token is currently active (RFC 7662)."""
    response = requests.post(f"{issuer}/oauth/introspect", data={"token": token}, auth=credentials, timeout=10)
    response.raise_for_status()
    return response.json()["active"]


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        try:
            claims = verify(token) if scheme.lower() == "bearer" else None
        except jwt.PyJWTError:
            claims = None
        if claims is None or not is_active(token):
            return self.respond(401, "a valid token is required", {"WWW-Authenticate": "Bearer"})
        if "tickets:read" not in claims.get("scope", "").split():
            return self.respond(403, "tickets:read is required", {"WWW-Authenticate": 'Bearer error="insufficient_scope"'})
        return self.respond(200, f"tickets for {claims['sub']}")

    def respond(self, status, text, headers={}):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode() + b"\n")


where = urlsplit(resource)
ThreadingHTTPServer((where.hostname, where.port), Api).serve_forever()
