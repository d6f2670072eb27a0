"""An MCP server that requires an access token for its URL."""

import os
from urllib.parse import urlsplit

import jwt
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer

issuer, resource = os.environ["AIMS_URL"], os.environ["RESOURCE"]
keys = jwt.PyJWKClient(f"{issuer}/.well-known/jwks.json", lifespan=300)


class Verifier:
    async def verify_token(self, token):
        try:
            header = jwt.get_unverified_header(token)
            key = keys.get_signing_key_from_jwt(token)
            # The library rejects tokens issued in the future, and this machine's clock may be behind the clock of AIMS.
            claims = jwt.decode(
                token, key, algorithms=["ES256", "EdDSA", "RS256"], issuer=issuer, audience=resource, leeway=5
            )
        except jwt.PyJWTError:
            return None
        # A DPoP-bound token (RFC 9449) requires a proof, which this server does not support.
        if header.get("typ") != "at+jwt" or "cnf" in claims:
            return None
        scopes = claims.get("scope", "").split()
        return AccessToken(
            token=token,
            client_id=claims["client_id"],
            scopes=scopes,
            expires_at=claims["exp"],
            resource=resource,
            subject=claims["sub"],
        )


server = MCPServer(
    "tickets",
    token_verifier=Verifier(),
    auth=AuthSettings(issuer_url=issuer, resource_server_url=resource, required_scopes=["tickets:read"]),
)


@server.tool()
def open_tickets() -> int:
    """Returns the number of open tickets."""
    return 42


where = urlsplit(resource)
server.run(transport="streamable-http", host=where.hostname, port=where.port)
