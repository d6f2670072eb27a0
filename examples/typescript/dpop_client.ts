// An agent gets a token that is bound to its key pair (DPoP, RFC 9449). A stolen token is useless without the private
// key.

import * as client from 'openid-client';

const { AIMS_URL, AIMS_CLIENT_ID, AIMS_CLIENT_SECRET, RESOURCE } = process.env as Record<string, string>;

const server = await client.discovery(new URL(AIMS_URL), AIMS_CLIENT_ID, undefined, client.ClientSecretBasic(AIMS_CLIENT_SECRET), {
  algorithm: 'oauth2',
  // Only for local use; in production, AIMS is behind https.
  execute: AIMS_URL.startsWith('http:') ? [client.allowInsecureRequests] : [],
});
const DPoP = client.getDPoPHandle(server, await client.randomDPoPKeyPair('ES256'));
const token = await client.clientCredentialsGrant(server, {}, { DPoP });
console.log('type:', token.token_type);
const url = new URL(`${AIMS_URL}/agents?limit=1`);
for (const call of [1, 2]) {
  const response = await client.fetchProtectedResource(server, token.access_token, url, 'GET', undefined, undefined, { DPoP });
  console.log(`call ${call}:`, response.status);
}
const stolen = await fetch(url, { headers: { Authorization: `Bearer ${token.access_token}` } });
console.log('without the key:', stolen.status);

// An API without DPoP support must reject a bound token.
const bound = await client.clientCredentialsGrant(server, { resource: RESOURCE }, { DPoP });
const unsupported = await fetch(RESOURCE, { headers: { Authorization: `Bearer ${bound.access_token}` } });
console.log('API without DPoP:', unsupported.status);
