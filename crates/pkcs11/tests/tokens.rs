//! Keys in SoftHSM's tokens, as `--key` names them.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, too, fail by panicking"
)]

mod softhsm;

use std::path::Path;
use std::process::Command;
use std::thread;

use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::UserType;
use preverify_bundle::{Algorithm, Builder, Bundle, Certificate, Signer, SignerError};
use preverify_pkcs11::{PIN_VARIABLE, TokenError, open};
use rsa::pkcs8::DecodePrivateKey;
use rsa::traits::{PrivateKeyParts, PublicKeyParts};

use softhsm::{MODULE, PIN, TOKEN, Tokens, signer, with_tokens};

#[test]
fn both_algorithms_sign() {
    with_tokens("both_algorithms_sign", |tokens| {
        for (algorithm, id) in [(Algorithm::Rsa2048, "01"), (Algorithm::EcdsaP256, "a2")] {
            let made = signer(algorithm);
            let label = algorithm.name();
            tokens.import(label, id, &made);
            tokens.add_certificate(label, id, made.certificate());

            let by_label = format!("token={TOKEN};object={label}");
            let by_id = format!("manufacturer=SoftHSM%20project;id=%{id};type=private");
            for name in [by_label, by_id] {
                let signer = open(&tokens.uri(&name), None).unwrap();
                assert_eq!(signer.certificate(), made.certificate());
                let bundle = signed_by(&signer);
                let trusted = [made.certificate().clone()];
                assert_eq!(bundle.verify(&trusted).unwrap().by, [made.certificate()]);
                if algorithm == Algorithm::Rsa2048 {
                    assert_eq!(bundle, signed_by(&made), "there is one signature only");
                }
                assert!(matches!(signer.to_pem(), Err(SignerError::Stays)));
                assert!(!format!("{signer:?}").contains(PIN));
            }
        }
    });
}

#[test]
fn certificates_are_in_the_token_or_in_a_file() {
    with_tokens("certificates_are_in_the_token_or_in_a_file", |tokens| {
        let (made, other) = (signer(Algorithm::EcdsaP256), signer(Algorithm::EcdsaP256));
        tokens.import("key", "01", &made);
        let uri = tokens.uri("object=key");
        let refusal = |file: Option<&Path>| open(&uri, file).unwrap_err().to_string();

        // One with another CKA_ID does not count, whatever it is about.
        tokens.add_certificate("key", "02", made.certificate());
        let error = refusal(None);
        assert!(
            error.contains("no certificate of the key object=key;id=%01"),
            "{error}"
        );
        assert!(error.contains("--certificate"), "{error}");

        let file = tokens.write("signer.x509", made.certificate().to_der());
        let signer = open(&uri, Some(&file)).unwrap();
        signed_by(&signer)
            .verify(&[made.certificate().clone()])
            .unwrap();

        let file = tokens.write("other.x509", other.certificate().to_der());
        let error = refusal(Some(&file));
        assert!(
            error.contains("other.x509 belongs to pkcs11:object=key:"),
            "{error}"
        );
        tokens.add_certificate("key", "01", other.certificate());
        let error = refusal(None);
        assert!(
            error.contains("no certificate in the token belongs"),
            "{error}"
        );

        // The right one is found among several.
        tokens.add_certificate("key", "01", made.certificate());
        assert_eq!(open(&uri, None).unwrap().certificate(), made.certificate());

        let error = refusal(Some(&tokens.write("empty", b"")));
        assert!(
            error.contains("empty holds no certificate to trust"),
            "{error}"
        );
    });
}

#[test]
fn pins_come_from_the_uri_a_file_or_the_environment() {
    with_tokens(
        "pins_come_from_the_uri_a_file_or_the_environment",
        |tokens| {
            let certificate = tokens.key("key", "01");
            let open = |access: &str| {
                let uri = format!("pkcs11:object=key?module-path={MODULE}{access}");
                open(&uri, Some(&certificate))
            };
            let refusal = |access: &str| open(access).unwrap_err().to_string();

            let error = refusal("");
            assert!(error.contains(&format!("token={TOKEN};serial=")), "{error}");
            assert!(
                error.contains("wants a PIN") && error.contains(PIN_VARIABLE),
                "{error}"
            );

            open(&format!("&pin-value={PIN}")).unwrap();
            let file = tokens.write("pin", format!("{PIN}\n").as_bytes());
            open(&format!("&pin-source=file:{}", file.display())).unwrap();
            let error = refusal("&pin-source=file:/nowhere/pin");
            assert!(
                error.contains("cannot read the PIN in /nowhere/pin"),
                "{error}"
            );
            let empty = tokens.write("empty", b"\n");
            let error = refusal(&format!("&pin-source={}", empty.display()));
            assert!(error.contains("found an empty file"), "{error}");

            let error = refusal("&pin-value=4711");
            assert!(
                error.contains("refuses the PIN") && !error.contains("4711"),
                "{error}"
            );
            assert!(error.contains("counts the tries"), "{error}");
            // And the right one is still good.
            open(&format!("&pin-value={PIN}")).unwrap();
        },
    );
}

#[test]
fn what_does_not_fit_is_named() {
    with_tokens("what_does_not_fit_is_named", |tokens| {
        let certificate = tokens.key("one", "01");
        tokens.key("two", "02");
        let refusal = |name: &str| {
            let error = open(&tokens.uri(name), Some(&certificate)).unwrap_err();
            error.to_string()
        };
        let both = "object=one;id=%01, object=two;id=%02";
        let none = refusal("object=three");
        assert!(
            none.contains("private key pkcs11:object=three, found none"),
            "{none}"
        );
        assert!(names(&none, both), "{none}");
        let none = refusal("object=one;id=%02");
        assert!(none.contains("found none"), "{none}");
        let several = refusal("");
        assert!(
            several.contains("found several") && names(&several, both),
            "{several}"
        );

        let none = refusal("token=elsewhere;object=one");
        assert!(
            none.contains(&format!("found none; the module has: token={TOKEN};")),
            "{none}"
        );
        for name in ["serial=0", "model=x", "manufacturer=x", "slot-id=1"] {
            assert!(refusal(name).contains("expected a token for"), "{name}");
        }
        tokens.init("another");
        // SoftHSM looks for tokens once.
        tokens.lose_sessions();
        let several = refusal("object=one");
        assert!(several.contains("expected one token"), "{several}");
        assert!(
            several.contains("token=another;") && several.contains(TOKEN),
            "{several}"
        );
        open(
            &tokens.uri(&format!("token={TOKEN};object=one")),
            Some(&certificate),
        )
        .unwrap();

        let path = tokens.write("p384.pem", &p384());
        tokens.import_file("p384", "03", &path);
        let kind = refusal(&format!("token={TOKEN};object=p384"));
        assert!(
            kind.ends_with("found an ECDSA key on another curve"),
            "{kind}"
        );
    });
}

#[test]
fn modules_must_be_modules() {
    with_tokens("modules_must_be_modules", |tokens| {
        let refusal = |query: &str| open(&format!("pkcs11:object=key{query}"), None).unwrap_err();
        let error = refusal("");
        assert!(matches!(error, TokenError::NoModule(_)), "{error}");
        assert!(error.to_string().contains("?module-path=FILE"), "{error}");
        let error = refusal("?module-path=/nowhere/module.so").to_string();
        assert!(
            error.contains("cannot use /nowhere/module.so as PKCS #11 module"),
            "{error}"
        );
        assert!(error.contains("No such file"), "{error}");
        let text = tokens.write("text.so", b"text");
        let error = refusal(&format!("?module-path={}", text.display())).to_string();
        assert!(error.contains("text.so"), "{error}");
        // A library that is none.
        let error = refusal("?module-path=libm.so.6").to_string();
        assert!(error.contains("C_GetFunctionList"), "{error}");
    });
}

#[test]
fn threads_sign_at_the_same_time() {
    with_tokens("threads_sign_at_the_same_time", |tokens| {
        let certificate = tokens.key("key", "01");
        let uri = tokens.uri("object=key");
        let signer = open(&uri, Some(&certificate)).unwrap();
        // Somebody else in this process, with a session of their own.
        let other = open(&uri, Some(&certificate)).unwrap();
        let trusted = Certificate::open(&certificate).unwrap();
        thread::scope(|scope| {
            for signer in [&signer, &signer, &signer, &signer, &other] {
                scope.spawn(|| {
                    for _ in 0..50 {
                        signed_by(signer).verify(&trusted).unwrap();
                    }
                });
            }
        });
        // Whoever leaves takes nothing with them.
        drop(other);
        signed_by(&signer).verify(&trusted).unwrap();
    });
}

#[test]
fn a_lost_session_is_opened_again() {
    with_tokens("a_lost_session_is_opened_again", |tokens| {
        let certificate = tokens.key("key", "01");
        let signer = open(&tokens.uri("object=key"), Some(&certificate)).unwrap();
        let trusted = Certificate::open(&certificate).unwrap();
        signed_by(&signer);
        tokens.lose_sessions();
        signed_by(&signer).verify(&trusted).unwrap();

        // A key that is another one now does not sign in the old one's name.
        remove(tokens, "key");
        let gone = signer.sign(b"message").unwrap_err().to_string();
        assert!(gone.contains("found none; the token has: none"), "{gone}");
        tokens.key("key", "01");
        let wrong = signer.sign(b"message").unwrap_err();
        assert!(matches!(wrong, SignerError::Wrong(_)), "{wrong}");
    });
}

#[test]
fn a_pin_that_was_refused_is_not_tried_again() {
    with_tokens("a_pin_that_was_refused_is_not_tried_again", |tokens| {
        let certificate = tokens.key("key", "01");
        let signer = open(&tokens.uri("object=key"), Some(&certificate)).unwrap();
        tokens
            .session()
            .set_pin(&PIN.into(), &"87654321".into())
            .unwrap();
        signer.sign(b"the session is there").unwrap();
        tokens.lose_sessions();
        let error = signer.sign(b"message").unwrap_err().to_string();
        assert!(error.contains("refuses the PIN"), "{error}");
        // Even if it would be good again.
        let session = tokens.open_session();
        session
            .login(UserType::User, Some(&"87654321".into()))
            .unwrap();
        session.set_pin(&"87654321".into(), &PIN.into()).unwrap();
        drop(session);
        let error = signer.sign(b"message").unwrap_err().to_string();
        assert!(error.contains("is not tried again"), "{error}");
    });
}

/// As keys in the slot of YubiKeys that is for signatures.
#[test]
fn keys_that_want_the_pin_each_time_get_it() {
    with_tokens("keys_that_want_the_pin_each_time_get_it", |tokens| {
        let made = signer(Algorithm::Rsa2048);
        import_always_authenticating(tokens, "key", &made);
        let file = tokens.write("signer.x509", made.certificate().to_der());
        let signer = open(&tokens.uri("object=key"), Some(&file)).unwrap();
        for _ in 0..2 {
            assert_eq!(signed_by(&signer), signed_by(&made));
        }
    });
}

fn signed_by(signer: &Signer) -> Bundle {
    let mut bundle = Builder::new().finish().unwrap();
    bundle.sign(signer).unwrap();
    bundle
}

/// Whether a message has these names, in any order.
fn names(message: &str, expected: &str) -> bool {
    expected.split(", ").all(|name| message.contains(name))
}

/// A key that openssl makes, and that kernels do not check with.
fn p384() -> Vec<u8> {
    let mut openssl = Command::new("openssl");
    openssl.args(["genpkey", "-algorithm", "EC"]);
    openssl.args(["-pkeyopt", "ec_paramgen_curve:P-384"]);
    openssl.output().unwrap().stdout
}

/// softhsm2-util makes no such keys.
fn import_always_authenticating(tokens: &Tokens, label: &str, signer: &Signer) {
    let pem = signer.to_pem().unwrap();
    let (key, _) = pem.split_once("-----BEGIN CERTIFICATE").unwrap();
    let key = rsa::PrivateKey::from_pkcs8_pem(key).unwrap();
    let bytes = |number: &rsa::BoxedUint| number.to_be_bytes_trimmed_vartime().into_vec();
    let template = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::RSA),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sign(true),
        Attribute::AlwaysAuthenticate(true),
        Attribute::Label(label.into()),
        Attribute::Modulus(bytes(key.n())),
        Attribute::PublicExponent(bytes(key.e())),
        Attribute::PrivateExponent(bytes(key.d())),
        Attribute::Prime1(bytes(&key.primes()[0])),
        Attribute::Prime2(bytes(&key.primes()[1])),
        Attribute::Exponent1(bytes(key.dp().unwrap())),
        Attribute::Exponent2(bytes(key.dq().unwrap())),
        Attribute::Coefficient(bytes(&key.qinv().unwrap().retrieve())),
    ];
    tokens.session().create_object(&template).unwrap();
}

fn remove(tokens: &Tokens, label: &str) {
    let session = tokens.session();
    let template = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Label(label.into()),
    ];
    for key in session.find_objects(&template).unwrap() {
        session.destroy_object(key).unwrap();
    }
}
