// An agent acts for another, whose token it was handed (RFC 8693), and calls an API with no more than both of them may do.

import { decodeJwt } from 'jose';
import * as client from 'openid-client';

const { AIMS_URL, AIMS_CLIENT_ID, AIMS_CLIENT_SECRET, RESOURCE, SUBJECT_TOKEN } = process.env as Record<string, string>;

const server = await client.discovery(new URL(AIMS_URL), AIMS_CLIENT_ID, undefined, client.ClientSecretBasic(AIMS_CLIENT_SECRET), {
  algorithm: 'oauth2',
  // For this machine alone: everywhere else AIMS is behind https.
  execute: AIMS_URL.startsWith('http:') ? [client.allowInsecureRequests] : [],
});
const token = await client.genericGrantRequest(server, 'urn:ietf:params:oauth:grant-type:token-exchange', {
  subject_token: SUBJECT_TOKEN,
  subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
  resource: RESOURCE,
});
const said = decodeJwt(token.access_token) as { sub: string; act: { sub: string } };
const answer = await fetch(RESOURCE, { headers: { Authorization: `Bearer ${token.access_token}` } });
console.log('answer:', answer.status, (await answer.text()).trim());
console.log(`${said.act.sub} acts for ${said.sub}`);
