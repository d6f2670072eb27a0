/*
 *   data-passkey="register|login" data-options="url"  button that fills `credential` and submits its form
 *   data-confirm="url"              page to open if the options require a recent proof of identity
 */
const toBytes = (text) => Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), (char) => char.charCodeAt(0));
const toText = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');

// For browsers without the JSON methods of WebAuthn Level 3.
function readOptions({ challenge, user, ...rest }) {
  const withBytes = (one) => ({ ...one, id: toBytes(one.id) });
  for (const list of ['excludeCredentials', 'allowCredentials']) if (rest[list]) rest[list] = rest[list].map(withBytes);
  return { ...rest, challenge: toBytes(challenge), ...(user && { user: withBytes(user) }) };
}
function writeCredential({ id, rawId, type, response }) {
  const members = ['clientDataJSON', 'attestationObject', 'authenticatorData', 'signature', 'userHandle'];
  const present = members.flatMap((name) => (response[name] ? [[name, toText(response[name])]] : []));
  return { id, rawId: toText(rawId), type, response: Object.fromEntries(present), clientExtensionResults: {} };
}

const PASSKEY_ERRORS = {
  400: 'No passkey is available for this account. Use another method.',
  429: 'Too many attempts. Wait a minute and try again.',
  NotAllowedError: 'The passkey request was cancelled or timed out. Try again, or use another method.',
  InvalidStateError: 'This device already has a passkey for your account.',
};

async function usePasskey(button) {
  const { form, dataset: { passkey, options, confirm } } = button;
  // Validates the form before the device creates a passkey.
  if (!form.reportValidity()) return;
  button.disabled = true;
  try {
    const body = new URLSearchParams(new FormData(form));
    const response = await fetch(options, { method: 'POST', body, headers: { Accept: 'application/json' }, redirect: 'error' });
    if (response.status === 401 && confirm) return location.assign(confirm);
    if (!response.ok) throw { name: response.status };
    const { publicKey: json } = await response.json();
    const [parse, use] = passkey === 'register' ? ['parseCreationOptionsFromJSON', 'create'] : ['parseRequestOptionsFromJSON', 'get'];
    const publicKey = PublicKeyCredential[parse]?.(json) ?? readOptions(json);
    const credential = await navigator.credentials[use]({ publicKey });
    form.elements.credential.value = JSON.stringify(credential.toJSON?.() ?? writeCredential(credential));
    form.requestSubmit();
  } catch (error) {
    const text = PASSKEY_ERRORS[error.name] ?? 'The passkey did not work. Reload the page and try again.';
    setText(form.querySelector('[data-passkey-error]'), text);
  } finally {
    button.disabled = false;
  }
}

clicks.push(['[data-passkey]', usePasskey]);
