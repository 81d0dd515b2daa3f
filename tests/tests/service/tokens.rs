//! A service whose key is in a token, and a device that loads what it signed.

use preverify_bundle::Algorithm;
use preverify_lab::{LOADER, Lab, object, on_packet};
use preverify_target::DeviceOptions;

use crate::running::Running;
use crate::softhsm::{signer, with_tokens};

const XDP_PASS: u32 = 2;

#[test]
fn devices_load_what_a_key_in_a_token_signed() {
    with_tokens(
        "tokens::devices_load_what_a_key_in_a_token_signed",
        |tokens| {
            let mut lab = Lab::new().unwrap();
            let name = lab.target.name().to_owned();
            for (algorithm, id) in [(Algorithm::Rsa2048, "01"), (Algorithm::EcdsaP256, "02")] {
                let made = signer(algorithm);
                let label = algorithm.name();
                tokens.import(label, id, &made);
                tokens.add_certificate(label, id, made.certificate());
                let uri = tokens.uri(&format!("object={label}"));
                let open = || preverify_pkcs11::open(&uri, None).unwrap();

                let state = tempfile::tempdir().unwrap();
                let running = Running::start_signing(&lab, &state, open);
                let jobs = ["maps", "refusals"]
                    .map(|object| running.submit(&self::object(object).unwrap(), &[&name]));
                let bundles = jobs.map(|job| {
                    let job = running.wait(&job);
                    assert_eq!(job["state"], "accepted", "{job:#}");
                    running.bundle(&job)
                });
                for bundle in &bundles {
                    bundle.verify(&[made.certificate().clone()]).unwrap();
                }

                lab.signer = open();
                let mut device = lab.boot(DeviceOptions::default()).unwrap();
                device
                    .put("/tmp/b.pvb", 0o644, bundles[1].to_bytes())
                    .unwrap();
                let pins = "/sys/fs/bpf/b";
                device
                    .run(&[LOADER, "load", "/tmp/b.pvb", "--pin", pins])
                    .unwrap();
                let packet = on_packet(&format!("{pins}/on_packet"), &[0; 64], 1);
                assert_eq!(device.test_run(packet).unwrap().return_value, XDP_PASS);
                device.healthy_log().unwrap();
            }
        },
    );
}
