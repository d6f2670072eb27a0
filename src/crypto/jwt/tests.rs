use std::time::Duration;

use super::*;
use crate::domain::CapabilitySet;

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const ISSUER: &str = "https://aims.example";
const SECRET: &str = "correct horse battery staple, twice over";

fn claims() -> Claims {
    let now = NOW.as_secs();
    Claims {
        iss: ISSUER.into(),
        sub: "agent".into(),
        aud: "aims".into(),
        client_id: "agent".into(),
        iat: now,
        nbf: None,
        exp: now + 60,
        jti: "token".into(),
        scope: CapabilitySet::from_scope("agents:read"),
        scopes: CapabilitySet::from_scope("agents:read"),
        key_id: Some("019b796d-d600-7c15-853d-a0a8797bdbbf".into()),
        public_key_id: None,
        federated_identity_id: None,
        act: None,
        may_act: None,
        cnf: None,
        token_epoch: 0,
    }
}

fn key(algorithm: SigningAlgorithm) -> PrivateKey {
    PrivateKey::generate(algorithm).unwrap()
}

fn shared() -> Keyring {
    Keyring::shared_secret(&SECRET.into()).unwrap()
}

/// One keyring of each kind.
fn keyrings() -> Vec<Keyring> {
    let pairs = [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa, SigningAlgorithm::Rs256];
    pairs.into_iter().map(|algorithm| Keyring::asymmetric(key(algorithm), [])).chain([shared()]).collect()
}

fn verify(keyring: &Keyring, token: &str) -> Result<Claims, JwtError> {
    keyring.verify(token, ISSUER, NOW)
}

/// Creates a token with any header, payload and signature.
fn forge(header: &Value, payload: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let [header, payload] = [header, payload].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let signature = URL_SAFE_NO_PAD.encode(sign(format!("{header}.{payload}").as_bytes()));
    format!("{header}.{payload}.{signature}")
}

fn payload() -> Value {
    serde_json::to_value(claims()).unwrap()
}

#[test]
fn every_algorithm_verifies_what_it_signed() {
    for keyring in keyrings() {
        let token = keyring.sign(&claims()).unwrap();
        assert_eq!(verify(&keyring, &token), Ok(claims()), "{keyring:?}");
        let header = jsonwebtoken::decode_header(&token).unwrap();
        assert_eq!(header.typ.as_deref(), Some("at+jwt"));
        assert!(keyring.verifiers.contains_key(&header.kid.unwrap()));
    }
}

#[test]
fn a_client_can_verify_tokens_with_the_published_key() {
    for algorithm in [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa, SigningAlgorithm::Rs256] {
        let keyring = Keyring::asymmetric(key(algorithm), []);
        let jwks: jsonwebtoken::jwk::JwkSet = serde_json::from_value(keyring.jwks().clone()).unwrap();
        let token = keyring.sign(&claims()).unwrap();
        let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
        let verifier = Verifier::new(algorithm, DecodingKey::from_jwk(jwks.find(&kid).unwrap()).unwrap());
        assert!(jsonwebtoken::decode::<Claims>(&token, &verifier.key, &verifier.validation).is_ok());
    }
}

#[test]
fn the_previous_key_still_verifies_after_a_rotation() {
    let former = key(SigningAlgorithm::Rs256);
    let der = former.to_pkcs8().unwrap();
    let before = Keyring::asymmetric(former, []);
    let token = before.sign(&claims()).unwrap();

    let former = PrivateKey::from_pkcs8(SigningAlgorithm::Rs256, &der).unwrap().into_public();
    let current = key(SigningAlgorithm::EdDsa);
    let published = json!({ "keys": [current.public().jwk(), former.jwk()] });
    let after = Keyring::asymmetric(current, [former.clone(), former]);
    assert_eq!(verify(&after, &token), Ok(claims()));
    assert_eq!(*after.jwks(), published);
    let token = after.sign(&claims()).unwrap();
    assert_eq!(verify(&before, &token), Err(JwtError::UnknownKey));
}

#[test]
fn a_short_shared_secret_is_rejected_and_no_secret_is_published() {
    assert_eq!(Keyring::shared_secret(&"a".repeat(31).into()).unwrap_err(), KeyError::ShortSecret);
    let keyring = shared();
    assert_eq!(*keyring.jwks(), json!({ "keys": [] }));
    assert_eq!(format!("{keyring:?}"), r#"Keyring { kids: ["hs256"], .. }"#);
}

#[test]
fn tokens_of_other_types_are_rejected() {
    let signer = key(SigningAlgorithm::EdDsa);
    let kid = signer.public().kid().to_owned();
    let typed = |typ: &Value| {
        let header = json!({ "typ": typ, "alg": "EdDSA", "kid": kid });
        forge(&header, &payload(), |message| signer.sign(message).unwrap())
    };
    let good = ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"].map(|typ| typed(&typ.into()));
    let bad = [json!("JWT"), json!("id+jwt"), json!(""), json!("x/at+jwt"), Value::Null].map(|typ| typed(&typ));
    let keyring = Keyring::asymmetric(signer, []);
    for token in good {
        assert_eq!(verify(&keyring, &token), Ok(claims()));
    }
    for token in bad {
        assert_eq!(verify(&keyring, &token), Err(JwtError::WrongType));
    }
}

#[test]
fn a_token_cannot_choose_its_algorithm_or_key() {
    let signer = key(SigningAlgorithm::Rs256);
    let stranger = key(SigningAlgorithm::Rs256);
    let kid = signer.public().kid().to_owned();
    let by_stranger = |message: &[u8]| stranger.sign(message).unwrap();
    let public = signer.public().decoding().try_get_as_bytes().unwrap().to_vec();
    let by_public_key =
        |message: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), message).as_ref().to_vec();
    let header = |alg: &str, kid: &str| json!({ "typ": "at+jwt", "alg": alg, "kid": kid });
    let with = |member: &str, value: Value| {
        let mut header = header("RS256", &kid);
        header[member] = value;
        header
    };

    let none = forge(&header("none", &kid), &payload(), |_| Vec::new());
    let hmac = forge(&header("HS256", &kid), &payload(), by_public_key);
    let family = forge(&header("RS512", &kid), &payload(), |message| signer.sign(message).unwrap());
    let unknown = forge(&header("RS256", stranger.public().kid()), &payload(), by_stranger);
    let anonymous = forge(&json!({ "typ": "at+jwt", "alg": "RS256" }), &payload(), by_stranger);
    let shared = forge(&header("HS256", SHARED_KID), &payload(), by_public_key);
    let posing = forge(&header("RS256", &kid), &payload(), by_stranger);
    let jku = forge(&with("jku", json!("https://evil.example/jwks")), &payload(), by_stranger);
    let x5u = forge(&with("x5u", json!("https://evil.example/cert")), &payload(), by_stranger);
    let jwk = forge(&with("jwk", stranger.public().jwk().clone()), &payload(), by_stranger);
    let crit = forge(&with("crit", json!(["exp"])), &payload(), |message| signer.sign(message).unwrap());

    let keyring = Keyring::asymmetric(signer, []);
    for (token, error) in [
        (none, JwtError::Malformed),
        (hmac, JwtError::WrongAlgorithm),
        (family, JwtError::WrongAlgorithm),
        (unknown, JwtError::UnknownKey),
        (anonymous, JwtError::UnknownKey),
        (shared, JwtError::UnknownKey),
        (posing, JwtError::BadSignature),
        (jku, JwtError::BadSignature),
        (x5u, JwtError::BadSignature),
        (jwk, JwtError::BadSignature),
        (crit, JwtError::Critical),
    ] {
        assert_eq!(verify(&keyring, &token), Err(error), "{token}");
    }
}

#[test]
fn altered_and_truncated_tokens_are_rejected() {
    for keyring in keyrings() {
        let token = keyring.sign(&claims()).unwrap();
        let [header, _, signature]: [&str; 3] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
        let mut raised = payload();
        raised["scopes"] = json!(["admin:*"]);
        let raised = URL_SAFE_NO_PAD.encode(raised.to_string());
        assert_eq!(verify(&keyring, &format!("{header}.{raised}.{signature}")), Err(JwtError::BadSignature));
        assert_eq!(verify(&keyring, &format!("{header}.{raised}.")), Err(JwtError::BadSignature));
        for length in (0..token.len()).step_by(7) {
            assert!(verify(&keyring, &token[..length]).is_err(), "first {length} bytes");
        }
        for surplus in [format!("{token}."), format!("{token}.{signature}"), format!("{token}="), format!(" {token}")] {
            assert!(verify(&keyring, &surplus).is_err(), "{surplus}");
        }
    }
}

#[test]
fn overlong_tokens_are_rejected() {
    let keyring = shared();
    let mut long = claims();
    long.aud = "a".repeat(TOKEN_MAX);
    let token = keyring.sign(&long).unwrap();
    assert_eq!(verify(&keyring, &token), Err(JwtError::TooLong));
}

#[test]
fn tokens_with_missing_claims_are_rejected() {
    let keyring = shared();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let header = json!({ "typ": "at+jwt", "alg": "HS256", "kid": SHARED_KID });
    for claim in ["iss", "sub", "aud", "client_id", "iat", "exp", "jti", "key_id", "token_epoch"] {
        let mut payload = payload();
        payload.as_object_mut().unwrap().remove(claim);
        let token = forge(&header, &payload, |message| hmac::sign(&key, message).as_ref().to_vec());
        assert_eq!(verify(&keyring, &token), Err(JwtError::Malformed), "{claim}");
    }
}

#[test]
fn issuer_and_times_are_checked() {
    type Change = fn(&mut Claims);
    let keyring = shared();
    let cases: [(Change, Result<(), JwtError>); 10] = [
        (|claims| claims.iss.push('/'), Err(JwtError::WrongIssuer)),
        (|claims| claims.iss.clear(), Err(JwtError::WrongIssuer)),
        (|claims| claims.exp = NOW.as_secs() + 1, Ok(())),
        (|claims| claims.exp = NOW.as_secs(), Err(JwtError::Expired)),
        (|claims| claims.exp = NOW.as_secs() - 1, Err(JwtError::Expired)),
        (|claims| claims.exp = i64::MIN, Err(JwtError::Expired)),
        (|claims| claims.nbf = Some(NOW.as_secs() + 5), Ok(())),
        (|claims| claims.nbf = Some(NOW.as_secs() + 6), Err(JwtError::NotYetValid)),
        (|claims| claims.iat += 5, Ok(())),
        (|claims| claims.iat += 6, Err(JwtError::NotYetValid)),
    ];
    for (index, (change, outcome)) in cases.into_iter().enumerate() {
        let mut changed = claims();
        change(&mut changed);
        let token = keyring.sign(&changed).unwrap();
        assert_eq!(verify(&keyring, &token).map(|_| ()), outcome, "case {index}");
    }
}

#[test]
fn a_token_expires_by_the_given_clock() {
    let keyring = shared();
    let token = keyring.sign(&claims()).unwrap();
    let after = |micros| keyring.verify(&token, ISSUER, NOW.plus(Duration::from_micros(micros)));
    assert_eq!(after(59_999_999), Ok(claims()));
    assert_eq!(after(60_000_000), Err(JwtError::Expired));
}
