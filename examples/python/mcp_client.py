"""An MCP client that discovers the authorization server through the MCP server and gets a token from it."""

import asyncio
import os

import httpx2
from mcp import ClientSession
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.streamable_http import streamable_http_client

resource, client_id = os.environ["RESOURCE"], os.environ["AIMS_CLIENT_ID"]


class Memory:
    """Stores the token in memory."""

    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


def provider():
    common = {"server_url": resource, "storage": Memory(), "client_id": client_id, "issuer": os.environ["AIMS_URL"]}
    if key_file := os.environ.get("AIMS_PRIVATE_KEY"):
        with open(key_file, encoding="ascii") as file:
            key = SignedJWTParameters(
                issuer=client_id, subject=client_id, signing_key=file.read(), signing_algorithm="ES256"
            )
        return PrivateKeyJWTOAuthProvider(assertion_provider=key.create_assertion_provider(), **common)
    return ClientCredentialsOAuthProvider(client_secret=os.environ["AIMS_CLIENT_SECRET"], **common)


async def main():
    async with httpx2.AsyncClient(auth=provider()) as http:
        async with streamable_http_client(resource, http_client=http) as streams:
            async with ClientSession(streams[0], streams[1]) as session:
                await session.initialize()
                result = await session.call_tool("open_tickets", {})
                print("open tickets:", result.content[0].text)


asyncio.run(main())
