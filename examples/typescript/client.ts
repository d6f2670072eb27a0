// An agent gets a token for an API and calls it.

import { readFileSync } from 'node:fs';
import { importPKCS8 } from 'jose';
import * as client from 'openid-client';

const { AIMS_URL, AIMS_CLIENT_ID, AIMS_CLIENT_SECRET, AIMS_PRIVATE_KEY, RESOURCE } = process.env as Record<string, string>;

const authentication = AIMS_PRIVATE_KEY
  ? client.PrivateKeyJwt(await importPKCS8(readFileSync(AIMS_PRIVATE_KEY, 'ascii'), 'ES256'))
  : client.ClientSecretBasic(AIMS_CLIENT_SECRET);
const server = await client.discovery(new URL(AIMS_URL), AIMS_CLIENT_ID, undefined, authentication, {
  algorithm: 'oauth2',
  // Only for local use; in production, AIMS is behind https.
  execute: AIMS_URL.startsWith('http:') ? [client.allowInsecureRequests] : [],
});
const token = await client.clientCredentialsGrant(server, { resource: RESOURCE });
console.log('scope:', token.scope);
const response = await fetch(RESOURCE, { headers: { Authorization: `Bearer ${token.access_token}` } });
console.log('response:', response.status, (await response.text()).trim());
if (!response.ok) process.exit(1);
