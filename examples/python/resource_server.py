"""An API that only agents with a token for it may call.

A token is verified by its signature, which costs no request; and, because that alone does not show that a token was revoked
a moment ago, AIMS is asked whether it still counts.
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
    """The claims of a good token; raises for any other."""
    if jwt.get_unverified_header(token).get("typ") != "at+jwt":
        raise jwt.InvalidTokenError("not an access token (RFC 9068)")
    key = keys.get_signing_key_from_jwt(token)
    # The library refuses a token of the future, and this machine's clock may be behind that of AIMS.
    claims = jwt.decode(
        token, key, algorithms=["ES256", "EdDSA", "RS256"], issuer=issuer, audience=resource, leeway=5
    )
    # This API asks for no proof of a key (RFC 9449), and without one a bound token would be as good as any to a thief.
    if "cnf" in claims:
        raise jwt.InvalidTokenError("a token that is bound to a key")
    return claims


def is_active(token):
    """Whether the token counts at this moment (RFC 7662)."""
    answer = requests.post(f"{issuer}/oauth/introspect", data={"token": token}, auth=credentials, timeout=10)
    answer.raise_for_status()
    return answer.json()["active"]


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        try:
            claims = verify(token) if scheme.lower() == "bearer" else None
        except jwt.PyJWTError:
            claims = None
        if claims is None or not is_active(token):
            return self.answer(401, "a good token is needed", {"WWW-Authenticate": "Bearer"})
        if "tickets:read" not in claims.get("scope", "").split():
            return self.answer(403, "tickets:read is needed", {"WWW-Authenticate": 'Bearer error="insufficient_scope"'})
        return self.answer(200, f"tickets for {claims['sub']}")

    def answer(self, status, text, headers={}):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode() + b"\n")


where = urlsplit(resource)
ThreadingHTTPServer((where.hostname, where.port), Api).serve_forever()
