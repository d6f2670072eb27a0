// An MCP server that only agents with a token for it may call.

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
    // The SDK answers 401 to its own error alone, and 500 to any other.
    throw error instanceof errors.JOSEError ? new InvalidTokenError('a good token is needed') : error;
  });
  // This server asks for no proof of a key (RFC 9449), and without one a bound token would be as good as any to a thief.
  if (payload.cnf) throw new InvalidTokenError('a token that is bound to a key');
  const scopes = String(payload.scope ?? '').split(' ').filter(Boolean);
  return { token, clientId: String(payload.client_id), scopes, expiresAt: payload.exp, resource: where };
}

function tickets() {
  const server = new McpServer({ name: 'tickets', version: '1.0.0' });
  server.registerTool('open_tickets', { description: 'How many tickets are open.' }, () => ({
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
// No session is kept, so none can be used by an agent other than the one that began it; each request has its own server.
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
