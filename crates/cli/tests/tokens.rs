//! The command with a key in a token.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, too, fail by panicking"
)]

#[path = "../../pkcs11/tests/softhsm/mod.rs"]
#[expect(dead_code, reason = "tests of the library need more of it")]
mod softhsm;

use std::process::Command;

use preverify_bundle::Algorithm;
use softhsm::{MODULE, PIN, TOKEN, signer, with_tokens};

#[test]
fn keys_in_tokens_are_shown() {
    with_tokens("keys_in_tokens_are_shown", |tokens| {
        let made = signer(Algorithm::Rsa2048);
        tokens.import("key", "01", &made);
        tokens.add_certificate("key", "01", made.certificate());
        let file = tokens.write("signer.x509", made.certificate().to_der());
        let shown = run(&["key", "show", &tokens.uri("object=key")]).unwrap();
        assert_eq!(
            shown,
            run(&["key", "show", file.to_str().unwrap()]).unwrap()
        );
        assert!(
            shown.contains(&made.certificate().key_id().to_string()),
            "{shown}"
        );

        // The PIN of the environment.
        let uri = format!("pkcs11:token={TOKEN};id=%01?module-path={MODULE}");
        let show = |pin| {
            let mut command = preverify(&["key", "show", &uri]);
            said(command.env(preverify_pkcs11::PIN_VARIABLE, pin))
        };
        assert_eq!(show(PIN).unwrap(), shown);
        let refused = show("4711").unwrap_err();
        assert!(refused.contains("error: the token of pkcs11:"), "{refused}");
        assert!(refused.contains("counts the tries"), "{refused}");
        assert!(!refused.contains("caused by"), "said twice: {refused}");
    });
}

/// The key comes first: what is wrong with it is known before a long verification, or before a service listens.
#[test]
fn whatever_signs_takes_keys_in_tokens() {
    with_tokens("whatever_signs_takes_keys_in_tokens", |tokens| {
        let certificate = tokens.key("key", "01");
        let certificate = certificate.to_str().unwrap();
        let state = tokens.write("state", b"a file");
        let build = [
            "build",
            "nowhere.bpf.o",
            "--target",
            "nothing",
            "-o",
            "x.pvb",
        ];
        let worker = [
            "worker",
            "--nats",
            "nats://127.0.0.1:1",
            "--target",
            "nothing",
        ];
        let serve = [
            "serve",
            "--state",
            state.to_str().unwrap(),
            "--target",
            "nothing",
        ];
        for (command, next) in [
            (&build[..], "cannot read nowhere.bpf.o"),
            (&worker[..], "signing signer=CN=someone"),
            (&serve[..], "signing signer=CN=someone"),
        ] {
            let with = |arguments: &[&str]| run(&[command, arguments].concat()).unwrap_err();
            let uri = tokens.uri("object=key");
            let refused = with(&["--key", &uri]);
            assert!(
                refused.contains("holds no certificate of the key object=key;id=%01"),
                "{refused}"
            );
            assert!(!refused.contains(next), "{refused}");
            let refused = with(&["--key", &uri, "--certificate", certificate]);
            assert!(refused.contains(next), "{refused}");
            let refused = with(&[
                "--key",
                &tokens.uri("object=other"),
                "--certificate",
                certificate,
            ]);
            assert!(
                refused.contains("found none; the token has: object=key;id=%01"),
                "{refused}"
            );
        }
    });
}

/// The same option for keys in files.
#[test]
fn certificates_of_keys_in_files_may_lie_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let made = signer(Algorithm::EcdsaP256);
    let pem = made.to_pem().unwrap();
    let (key, _) = pem.split_once("-----BEGIN CERTIFICATE").unwrap();
    let write = |name: &str, contents: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let key = write("key.pem", key.as_bytes());
    let own = write("own.x509", made.certificate().to_der());
    let other = write(
        "other.x509",
        signer(Algorithm::EcdsaP256).certificate().to_der(),
    );
    let with = |arguments: &[&str]| {
        let build = [
            "build",
            "nowhere.bpf.o",
            "--target",
            "nothing",
            "-o",
            "x.pvb",
            "--key",
            &key,
        ];
        run(&[&build, arguments].concat()).unwrap_err()
    };
    assert!(with(&[]).contains("found none"));
    assert!(with(&["--certificate", &other]).contains("no certificate belongs to the private key"));
    assert!(with(&["--certificate", &own]).contains("cannot read nowhere.bpf.o"));
}

/// What the command prints, or what it complains about.
fn run(arguments: &[&str]) -> Result<String, String> {
    said(&mut preverify(arguments))
}

fn preverify(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_preverify"));
    command.args(arguments);
    command
}

fn said(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }
}
