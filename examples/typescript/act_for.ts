// An agent exchanges the token of another agent (RFC 8693) and calls an API on its behalf. The new token has only the
// scope that both agents hold.

import { decodeJwt } from 'jose';
import * as client from 'openid-client';

const { AIMS_URL, AIMS_CLIENT_ID, AIMS_CLIENT_SECRET, RESOURCE, SUBJECT_TOKEN } = process.env as Record<string, string>;

const server = await client.discovery(new URL(AIMS_URL), AIMS_CLIENT_ID, undefined, client.ClientSecretBasic(AIMS_CLIENT_SECRET), {
  algorithm: 'oauth2',
  // Only for local use; in production, AIMS is behind https.
  execute: AIMS_URL.startsWith('http:') ? [client.allowInsecureRequests] : [],
});
const token = await client.genericGrantRequest(server, 'urn:ietf:params:oauth:grant-type:token-exchange', {
  subject_token: SUBJECT_TOKEN,
  subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
  resource: RESOURCE,
});
const claims = decodeJwt(token.access_token) as { sub: string; act: { sub: string } };
const response = await fetch(RESOURCE, { headers: { Authorization: `Bearer ${token.access_token}` } });
console.log('response:', response.status, (await response.text()).trim());
console.log(`${claims.act.sub} acts for ${claims.sub}`);
