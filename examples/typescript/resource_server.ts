// An API that requires an access token for its URL.
//
// The API verifies the signature of a token locally. A signature does not show that a token has been revoked, so the
// API also introspects the token.

import { createServer } from 'node:http';
import { createRemoteJWKSet, errors, jwtVerify } from 'jose';

const { AIMS_URL, AIMS_CLIENT_ID, AIMS_CLIENT_SECRET, RESOURCE } = process.env as Record<string, string>;
const credentials = Buffer.from(`${AIMS_CLIENT_ID}:${AIMS_CLIENT_SECRET}`).toString('base64');
const keys = createRemoteJWKSet(new URL(`${AIMS_URL}/.well-known/jwks.json`));

/** Returns the claims of a valid token, or undefined. */
async function verify(token: string) {
  try {
    const { payload } = await jwtVerify(token, keys, { issuer: AIMS_URL, audience: RESOURCE, typ: 'at+jwt' });
    // A DPoP-bound token (RFC 9449) requires a proof, which this API does not support.
    return payload.cnf ? undefined : payload;
  } catch (error) {
    if (error instanceof errors.JOSEError) return undefined;
    throw error;
  }
}

/** Returns true if the token is currently active (RFC 7662). */
async function isActive(token: string): Promise<boolean> {
  const response = await fetch(`${AIMS_URL}/oauth/introspect`, {
    method: 'POST',
    headers: { Authorization: `Basic ${credentials}` },
    body: new URLSearchParams({ token }),
    signal: AbortSignal.timeout(10_000),
  });
  if (!response.ok) throw new Error(`introspection: ${response.status}`);
  return (await response.json()).active;
}

async function respond(authorization = ''): Promise<[number, string, Record<string, string>?]> {
  const [scheme, token = ''] = authorization.split(' ');
  const claims = scheme.toLowerCase() === 'bearer' ? await verify(token) : undefined;
  if (!claims || !(await isActive(token))) return [401, 'a valid token is required', { 'WWW-Authenticate': 'Bearer' }];
  if (!String(claims.scope ?? '').split(' ').includes('tickets:read'))
    return [403, 'tickets:read is required', { 'WWW-Authenticate': 'Bearer error="insufficient_scope"' }];
  return [200, `tickets for ${claims.sub}`];
}

const where = new URL(RESOURCE);
createServer(async (request, response) => {
  // Reject requests while AIMS is unreachable. An uncaught error would end the program.
  const [status, text, headers] = await respond(request.headers.authorization).catch((error): [number, string] => {
    console.error(error);
    return [503, 'tokens cannot be verified now'];
  });
  response.writeHead(status, headers).end(`${text}\n`);
}).listen(Number(where.port), where.hostname);
