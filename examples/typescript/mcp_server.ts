// An MCP server that requires an access token for its URL.

import { InvalidTokenError } from '@modelcontextprotocol/sdk/server/auth/errors.js';
import { requireBearerAuth } from '@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js';
import { getOAuthProtectedResourceMetadataUrl, mcpAuthMetadataRouter } from '@modelcontextprotocol/sdk/server/auth/router.js';
import { createMcpExpressApp } from '@modelcontextprotocol/sdk/server/express.js';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { createRemoteJWKSet, errors, jwtVerify } from 'jose';

const { AIMS_URL, RESOURCE } = process.env as Record<string, string>;
const where = new URL(RESOURCE);
const oauthMetadata = await (await fetch(`${AIMS_URL}/.well-known/oauth-authorization-server`)).json();
const keys = createRemoteJWKSet(new URL(oauthMetadata.jwks_uri));

async function verifyAccessToken(token: string) {
  const { payload } = await jwtVerify(token, keys, { issuer: AIMS_URL, audience: RESOURCE, typ: 'at+jwt' }).catch((error) => {
    // The SDK responds with 401 only to its own error, and with 500 to any other.
    throw error instanceof errors.JOSEError ? new InvalidTokenError('a valid token is required') : error;
  });
  // A DPoP-bound token (RFC 9449) requires a proof, which this server does not support.
  if (payload.cnf) throw new InvalidTokenError('DPoP-bound tokens are not supported');
  const scopes = String(payload.scope ?? '').split(' ').filter(Boolean);
  return { token, clientId: String(payload.client_id), scopes, expiresAt: payload.exp, resource: where };
}

function tickets() {
  const server = new McpServer({ name: 'tickets', version: '1.0.0' });
  server.registerTool('open_tickets', { description: 'Returns the number of open tickets.' }, () => ({
    content: [{ type: 'text', text: '42' }],
  }));
  return server;
}

const app = createMcpExpressApp({ host: where.hostname });
app.use(mcpAuthMetadataRouter({ oauthMetadata, resourceServerUrl: where, scopesSupported: ['tickets:read'] }));
app.use(
  where.pathname,
  requireBearerAuth({
    verifier: { verifyAccessToken },
    requiredScopes: ['tickets:read'],
    resourceMetadataUrl: getOAuthProtectedResourceMetadataUrl(where),
  }),
);
// The server is stateless and creates an instance for each request, so no agent can use the session of another.
app.post(where.pathname, async (request, response) => {
  const server = tickets();
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
  response.on('close', () => server.close());
  await server.connect(transport);
  await transport.handleRequest(request, response, request.body);
});
app.all(where.pathname, (_request, response) => {
  response.status(405).set('Allow', 'POST').end();
});
app.listen(Number(where.port), where.hostname);
