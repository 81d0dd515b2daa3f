#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]
//! What comes of objects off the device: bundles, or reasons.

use std::time::Duration;

use preverify_lab::{LOADER, Lab, object, on_packet};
use preverify_pipeline::{Limits, Verifier};
use preverify_protocol::GlobalValue;
use preverify_target::DeviceOptions;

const XDP_PASS: u32 = 2;

#[test]
fn a_rejection_says_where_and_why() {
    let lab = Lab::new().unwrap();
    let error = lab.verify(&object("rejected").unwrap()).unwrap_err();
    let text = error.to_string();
    for words in [
        "reads_too_far",            // which program
        "invalid access to packet", // why
        "at instruction",           // where
        "= *(u8 *)(r1 +14)",        // the instruction
        "return data[14] == 0x45",  // its source line
        "R1_w=pkt(",                // the registers
    ] {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
}

/// Whoever verifies, whenever: the same bytes up to the signature.
#[test]
fn building_twice_gives_the_same_bundle() {
    let lab = Lab::new().unwrap();
    let object = object("refusals").unwrap();
    let first = lab.bundle(&lab.verify(&object).unwrap()).unwrap();
    let second = lab.bundle(&lab.verify(&object).unwrap()).unwrap();
    assert_eq!(first.manifest_bytes(), second.manifest_bytes());
    assert_eq!(first.to_bytes(), second.to_bytes());
}

#[test]
fn inputs_decide_what_is_built() {
    let lab = Lab::new().unwrap();
    let mut object = object("inputs").unwrap();
    let inputs = &mut object.inputs;
    inputs
        .globals
        .insert("wanted".into(), GlobalValue::Integer(7));
    inputs
        .globals
        .insert("started".into(), GlobalValue::Bytes(vec![5]));
    inputs
        .programs
        .entry("left_out".into())
        .or_default()
        .autoload = Some(false);
    inputs.maps.entry("sized".into()).or_default().max_entries = Some(64);
    let verified = lab.verify(&object).unwrap();
    let bundle = lab.bundle(&verified).unwrap();
    let target = &bundle.manifest().targets[0];
    assert_eq!(target.programs.len(), 1);
    let sized = target.maps.iter().find(|map| map.full_name == "sized");
    assert_eq!(sized.unwrap().max_entries, 64);

    let mut device = lab.boot(DeviceOptions::default()).unwrap();
    device.put("/tmp/b.pvb", 0o644, bundle.to_bytes()).unwrap();
    let pins = "/sys/fs/bpf/b";
    device
        .run(&[LOADER, "load", "/tmp/b.pvb", "--pin", pins])
        .unwrap();
    let run = on_packet(&format!("{pins}/returns_what_is_wanted"), &[0; 64], 1);
    assert_eq!(device.test_run(run).unwrap().return_value, 75);
    device.healthy_log().unwrap();

    object
        .inputs
        .globals
        .insert("unheard_of".into(), GlobalValue::Integer(1));
    let text = lab.verify(&object).unwrap_err().to_string();
    assert!(text.contains("unheard_of"), "{text}");
}

#[test]
fn kernel_modules_come_before_the_object() {
    let lab = Lab::new().unwrap();
    let mut object = object("inputs").unwrap();
    object.inputs.modules = vec!["nf_conntrack".into()];
    lab.verify(&object).unwrap();
    object.inputs.modules = vec!["no_such_module".into()];
    let text = lab.verify(&object).unwrap_err().to_string();
    assert!(text.contains("no_such_module"), "{text}");
}

/// The same on the other supported series.
#[test]
fn linux_6_1_goes_the_whole_way() {
    let lab = Lab::of("debian:6.1-cloud-amd64").unwrap();
    let bundle = lab
        .bundle(&lab.verify(&object("refusals").unwrap()).unwrap())
        .unwrap();
    let mut device = lab.boot(DeviceOptions::default()).unwrap();
    device.put("/tmp/b.pvb", 0o644, bundle.to_bytes()).unwrap();
    let pins = "/sys/fs/bpf/b";
    device
        .run(&[LOADER, "load", "/tmp/b.pvb", "--pin", pins])
        .unwrap();
    let reply = device
        .test_run(on_packet(&format!("{pins}/on_packet"), &[0; 64], 1))
        .unwrap();
    assert_eq!((reply.errno, reply.return_value), (0, XDP_PASS));
    device.run(&[LOADER, "unload", pins]).unwrap();
    device.healthy_log().unwrap();
}

/// An object whose verification does not end in time ends all the same.
#[test]
fn a_time_limit_ends_verification() {
    let lab = Lab::new().unwrap();
    let limits = Limits::of_time(Duration::from_secs(1));
    let mut verifier = Verifier::start(&lab.target, limits).unwrap();
    let outcome = verifier.verify(&object("endless").unwrap(), &mut |_| {});
    let text = outcome.unwrap_err().to_string();
    assert!(text.contains("did not end within 1 s"), "{text}");
    assert!(text.contains("--limits time="), "{text}");
}
