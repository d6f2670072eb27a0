// An MCP client that discovers the authorization server through the MCP server and gets a token from it.

import { readFileSync } from 'node:fs';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { ClientCredentialsProvider, PrivateKeyJwtProvider } from '@modelcontextprotocol/sdk/client/auth-extensions.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const { AIMS_URL, AIMS_CLIENT_ID, AIMS_CLIENT_SECRET, AIMS_PRIVATE_KEY, RESOURCE } = process.env as Record<string, string>;

const common = { clientId: AIMS_CLIENT_ID, expectedIssuer: AIMS_URL };
const authProvider = AIMS_PRIVATE_KEY
  ? new PrivateKeyJwtProvider({ ...common, privateKey: readFileSync(AIMS_PRIVATE_KEY, 'ascii'), algorithm: 'ES256' })
  : new ClientCredentialsProvider({ ...common, clientSecret: AIMS_CLIENT_SECRET });
const agent = new Client({ name: 'example', version: '1.0.0' });
await agent.connect(new StreamableHTTPClientTransport(new URL(RESOURCE), { authProvider }));
const result = await agent.callTool({ name: 'open_tickets', arguments: {} });
console.log('open tickets:', (result.content as { text: string }[])[0].text);
await agent.close();
