// Signs somebody in by the device flow (RFC 8628), as a person with a browser would: node sign-in.mjs <issuer> <login>.
// Prints the token's answer. With a third argument, the address that another device shows, it does the person's part alone.
const [issuer, login, shown] = process.argv.slice(2);
const form = (fields) => new URLSearchParams(fields).toString();
const jar = new Map();

async function browse(url, fields) {
  const response = await fetch(url, {
    method: fields ? 'POST' : 'GET',
    body: fields && form(fields),
    redirect: 'manual',
    headers: {
      cookie: [...jar].map(([name, value]) => `${name}=${value}`).join('; '),
      ...(fields && { 'content-type': 'application/x-www-form-urlencoded' }),
    },
  });
  for (const cookie of response.headers.getSetCookie()) {
    const [, name, value] = cookie.match(/^([^=]+)=([^;]*)/);
    if (value) jar.set(name, value); else jar.delete(name);
  }
  const next = response.headers.get('location');
  return next ? browse(new URL(next, url).href) : { url, text: await response.text() };
}

/** Sends the form of a page back, with what a person would fill in. */
function filled(page, more) {
  const action = page.text.match(/<form[^>]*action="([^"]+)"/)?.[1];
  const fields = {};
  for (const [input] of page.text.matchAll(/<input[^>]*>/g)) {
    const name = input.match(/name="([^"]+)"/)?.[1];
    if (name) fields[name] = input.match(/value="([^"]*)"/)?.[1] ?? '';
  }
  return browse(new URL(action ?? page.url, page.url).href, { ...fields, ...more });
}

const token = (fields) => fetch(`${issuer}/token`, {
  method: 'POST', body: form(fields), headers: { 'content-type': 'application/x-www-form-urlencoded' },
}).then((response) => response.json());

const device = shown ? { verification_uri_complete: shown } : await fetch(`${issuer}/device/auth`, {
  method: 'POST',
  body: form({ client_id: 'cli', scope: 'openid chat', resource: 'urn:tollgate' }),
  headers: { 'content-type': 'application/x-www-form-urlencoded' },
}).then((response) => response.json());
let page = await browse(device.verification_uri_complete);
for (let step = 0; step < 8 && !/sign-in success/i.test(page.text); step += 1) {
  page = await filled(page, /name="login"/.test(page.text) ? { login, password: 'any' } : {});
}
if (shown) {
  const done = /sign-in success/i.test(page.text);
  console.log(done ? 'signed in' : page.text.slice(0, 2000));
  process.exit(done ? 0 : 1);
}
const answer = await token({
  client_id: 'cli', grant_type: 'urn:ietf:params:oauth:grant-type:device_code', device_code: device.device_code,
});
if (!answer.access_token) console.error(page.url, page.text.slice(0, 2000));
console.log(JSON.stringify(answer));
