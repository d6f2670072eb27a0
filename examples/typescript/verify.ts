// An API verifies a token: `verify.ts TOKEN`.

import { createRemoteJWKSet, jwtVerify } from 'jose';

const { AIMS_URL, RESOURCE } = process.env as Record<string, string>;
const keys = createRemoteJWKSet(new URL(`${AIMS_URL}/.well-known/jwks.json`));
const { payload } = await jwtVerify(process.argv[2], keys, { issuer: AIMS_URL, audience: RESOURCE, typ: 'at+jwt' });
console.log('verified:', payload.sub, payload.scope);
