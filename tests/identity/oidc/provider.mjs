// A real OpenID provider: node provider.mjs <port> <file of keys>. Lines on its input: `rotate` makes a new key sign, the
// old ones stay published; `retire` publishes the newest alone. Each is answered by a line.
import { createServer } from 'node:http';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { Provider } from 'oidc-provider';

const [port, file] = [Number(process.argv[2]), process.argv[3]];
const fresh = () => ({
  ...generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' }),
  kid: randomUUID(), alg: 'ES256', use: 'sig',
});
let keys = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : [fresh()];
const server = createServer((request, response) => handle(request, response));
await new Promise((done) => server.listen(port, '127.0.0.1', done));
const issuer = `http://127.0.0.1:${server.address().port}`;
let handle;

function publish() {
  writeFileSync(file, JSON.stringify(keys), { mode: 0o600 });
  const provider = new Provider(issuer, {
    jwks: { keys },
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    cookies: { keys: ['for-tests-alone'] },
    clients: [
      { client_id: 'ci', client_secret: 'ci-secret-for-tests-alone', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] },
      { client_id: 'cli', token_endpoint_auth_method: 'none', application_type: 'native', redirect_uris: [], response_types: [],
        grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'] },
      { client_id: 'tollgate', client_secret: 'tollgate-secret-for-tests', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] },
    ],
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      introspection: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:tollgate',
        useGrantedResource: () => true,
        getResourceServerInfo: (_context, resource) => ({
          scope: 'chat', audience: 'tollgate', accessTokenTTL: 600,
          ...(resource === 'urn:opaque' ? { accessTokenFormat: 'opaque' } : { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } }),
        }),
      },
    },
    async extraTokenClaims(_context, token) {
      return token.kind === 'ClientCredentials' ? { gty: 'client-credentials' } : { groups: ['research'] };
    },
    findAccount: (_context, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  });
  handle = provider.callback();
}

publish();
console.log(`ready ${issuer}`);
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'rotate') keys = [fresh(), ...keys];
  if (line === 'retire') keys = keys.slice(0, 1);
  publish();
  console.log(`done ${line}`);
}
process.exit(0);
