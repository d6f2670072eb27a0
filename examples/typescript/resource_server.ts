// An API that only agents with a token for it may call.
//
// A token is verified by its signature, which costs no request; and, because that alone does not show that a token was
// revoked a moment ago, AIMS is asked whether it still counts.

import { createServer } from 'node:http';
import { createRemoteJWKSet, errors, jwtVerify } from 'jose';

const { AIMS_URL, AIMS_CLIENT_ID, AIMS_CLIENT_SECRET, RESOURCE } = process.env as Record<string, string>;
const credentials = Buffer.from(`${AIMS_CLIENT_ID}:${AIMS_CLIENT_SECRET}`).toString('base64');
const keys = createRemoteJWKSet(new URL(`${AIMS_URL}/.well-known/jwks.json`));

/** The claims of a good token; nothing for any other. */
async function verify(token: string) {
  try {
    const { payload } = await jwtVerify(token, keys, { issuer: AIMS_URL, audience: RESOURCE, typ: 'at+jwt' });
    // This API asks for no proof of a key (RFC 9449), and without one a bound token would be as good as any to a thief.
    return payload.cnf ? undefined : payload;
  } catch (error) {
    if (error instanceof errors.JOSEError) return undefined;
    throw error;
  }
}

/** Whether the token counts at this moment (RFC 7662). */
async function isActive(token: string): Promise<boolean> {
  const answer = await fetch(`${AIMS_URL}/oauth/introspect`, {
    method: 'POST',
    headers: { Authorization: `Basic ${credentials}` },
    body: new URLSearchParams({ token }),
    signal: AbortSignal.timeout(10_000),
  });
  if (!answer.ok) throw new Error(`introspection: ${answer.status}`);
  return (await answer.json()).active;
}

async function answer(authorization = ''): Promise<[number, string, Record<string, string>?]> {
  const [scheme, token = ''] = authorization.split(' ');
  const claims = scheme.toLowerCase() === 'bearer' ? await verify(token) : undefined;
  if (!claims || !(await isActive(token))) return [401, 'a good token is needed', { 'WWW-Authenticate': 'Bearer' }];
  if (!String(claims.scope ?? '').split(' ').includes('tickets:read'))
    return [403, 'tickets:read is needed', { 'WWW-Authenticate': 'Bearer error="insufficient_scope"' }];
  return [200, `tickets for ${claims.sub}`];
}

const where = new URL(RESOURCE);
createServer(async (request, response) => {
  // Nobody is let in while AIMS cannot be asked; and an error left uncaught here would end the program.
  const [status, text, headers] = await answer(request.headers.authorization).catch((error): [number, string] => {
    console.error(error);
    return [503, 'tokens cannot be verified now'];
  });
  response.writeHead(status, headers).end(`${text}\n`);
}).listen(Number(where.port), where.hostname);
