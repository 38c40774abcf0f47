//! Keys are drawn here; the RSA case is the published example of RFC 7515, appendix A.2.

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use super::*;

const ISSUER: &str = "https://issuer.example";

struct Signer {
    encoding: EncodingKey,
    jwk: Value,
}

fn signer(id: &str) -> Signer {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let encoding = EncodingKey::from_ec_der(&pair.serialize_der());
    let mut jwk = Jwk::from_encoding_key(&encoding, Algorithm::ES256).unwrap();
    jwk.common.key_id = Some(id.into());
    Signer { encoding, jwk: serde_json::to_value(jwk).unwrap() }
}

fn issuers(keys: &[&Value]) -> TrustedIssuers {
    let setting = json!([{"issuer": ISSUER, "audience": "kalamdb", "user_claim": "email", "jwks": {"keys": keys}}]);
    TrustedIssuers::read(&setting.to_string()).unwrap()
}

fn token(signer: &Signer, id: &str, claims: &Value) -> String {
    let header = Header { kid: Some(id.into()), ..Header::new(Algorithm::ES256) };
    encode(&header, claims, &signer.encoding).unwrap()
}

#[test]
fn only_what_a_trusted_issuer_signed_for_us_and_has_not_expired_is_good() {
    let (good, other) = (signer("one"), signer("two"));
    let trusted = issuers(&[&good.jwk]);
    let claims = json!({"iss": ISSUER, "aud": "kalamdb", "email": "ann@x", "iat": 5, "exp": 4_000_000_000i64});
    let with = |name: &str, value: Value| {
        let mut changed = claims.clone();
        changed[name] = value;
        token(&good, "one", &changed)
    };
    let vouched = Vouched { user: "ann@x".into() };
    assert!(TrustedIssuers::may_have_signed(&token(&good, "one", &claims)));
    assert_eq!(trusted.check(&token(&good, "one", &claims)), Ok(vouched));
    assert_eq!(trusted.check(&with("exp", json!(1000))), Err(TokenError::Expired));
    for (what, bad) in [
        ("issuer", with("iss", json!("https://elsewhere.example"))),
        ("audience", with("aud", json!("another"))),
        ("no audience", with("aud", Value::Null)),
        ("not yet", with("nbf", json!(3_900_000_000i64))),
        ("no user", with("email", Value::Null)),
        ("no expiry", with("exp", Value::Null)),
        ("another's signature", token(&other, "one", &claims)),
        ("another's key", token(&other, "two", &claims)),
        ("nonsense", "a.b.c".to_owned()),
    ] {
        assert_eq!(trusted.check(&bad), Err(TokenError::Invalid), "{what}");
    }
    assert_eq!(TrustedIssuers::default().check(&token(&good, "one", &claims)), Err(TokenError::Invalid));
}

/// The key and the token of RFC 7515, A.2. Its token expired in 2011, and has no audience: the signature alone is judged.
#[test]
fn rsa_signatures_are_checked() {
    let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let jwk: Jwk = serde_json::from_value(json!({"kty": "RSA", "n": n, "e": "AQAB"})).unwrap();
    let key = Key::read(&jwk).unwrap();
    assert_eq!(key.algorithm, Algorithm::RS256);
    let message = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let mut validation = Validation::new(Algorithm::RS256);
    validation.required_spec_claims = HashSet::from(["exp".to_owned()]);
    validation.validate_aud = false;
    let kind = |text: &str| decode::<Value>(text, &key.key, &validation).map(|_| ()).unwrap_err().into_kind();
    assert_eq!(kind(&format!("{message}.{signature}")), ErrorKind::ExpiredSignature, "the signature is right");
    let forged = signature.replacen("cC4h", "cC4i", 1);
    assert_eq!(kind(&format!("{message}.{forged}")), ErrorKind::InvalidSignature);
}

#[test]
fn issuers_that_can_not_work_are_refused_at_the_start() {
    let key = signer("one").jwk;
    for (setting, part) in [
        (json!([{"issuer": ISSUER, "audience": "a"}]), "needs either jwks or jwks_file"),
        (json!([{"issuer": ISSUER, "audience": "", "jwks": {"keys": [key]}}]), "lacks issuer or audience"),
        (json!([{"issuer": ISSUER, "audience": "a", "jwks": {"keys": []}}]), "has no key"),
        (json!([{"issuer": ISSUER, "audience": "a", "jwks_file": "/does/not/exist"}]), "failed to read the keys"),
        (json!([{"issuer": ISSUER, "audience": "a", "url": "x"}]), "unknown field"),
    ] {
        let error = format!("{:#}", TrustedIssuers::read(&setting.to_string()).err().unwrap());
        assert!(error.contains(part), "{error}");
    }
}
