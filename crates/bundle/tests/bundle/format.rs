//! Whatever is written is read back the same; whatever is damaged is refused.

use std::fs;
use std::io::Cursor;

use crate::common::{arbitrary_bundle, bundle_of, merged, rich_bundle, rich_bundle_of};
use preverify_bundle::{Bundle, FormatError, Manifest, Reader, SectionKind, Target, Value};
use proptest::prelude::*;

proptest! {
    #[test]
    fn what_is_written_is_read(bundle in arbitrary_bundle()) {
        let bytes = bundle.to_bytes();
        let read = Bundle::read(&bytes).unwrap();
        prop_assert_eq!(&read, &bundle);
        prop_assert_eq!(read.to_bytes(), bytes);
        prop_assert_eq!(read.manifest().encode().unwrap(), read.manifest_bytes());
    }

    #[test]
    fn bundles_are_put_together_again(bundle in arbitrary_bundle()) {
        let mut again = merged(&[&bundle]);
        again.set_signature(bundle.signature().map(Vec::from));
        prop_assert_eq!(again.to_bytes(), bundle.to_bytes());
    }

    #[test]
    fn arbitrary_bytes_are_no_manifest(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Manifest::decode(&bytes).is_err());
    }

    /// Several bytes changed at once: whatever is still taken has one encoding.
    #[test]
    fn damaged_manifests_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = rich_bundle().manifest_bytes().to_vec();
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if let Ok(manifest) = Manifest::decode(&bytes) {
            prop_assert_eq!(manifest.encode().unwrap(), bytes);
        }
    }
}

#[test]
fn a_file_is_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.pvb");
    let mut bundle = rich_bundle();
    bundle.write(&path).unwrap();
    assert_eq!(Bundle::open(&path).unwrap(), bundle);

    bundle.set_signature(Some(b"some signature".to_vec()));
    bundle.write(&path).unwrap();
    assert_eq!(Bundle::open(&path).unwrap(), bundle);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_reader_reads_only_what_is_asked_for() {
    let bundle = rich_bundle();
    let mut bytes = bundle.to_bytes();
    let last = bytes.len() - 9;
    bytes[last] ^= 1;
    let mut reader = Reader::new(Cursor::new(bytes), "some.pvb").unwrap();
    let target = &bundle.manifest().targets[0];
    let btf = target.btf.unwrap();
    assert_eq!(reader.section(btf).unwrap(), bundle.section(btf).unwrap());
    let error = reader.read_all().unwrap_err().to_string();
    assert!(error.contains("digest"), "{error}");
}

#[test]
fn the_order_of_adding_does_not_matter() {
    let forwards = bundle_of(&[b"first", b"second", b"third"]);
    let backwards = bundle_of(&[b"third", b"unused", b"second", b"first"]);
    assert_eq!(forwards.to_bytes(), backwards.to_bytes());
}

#[test]
fn equal_sections_are_stored_once() {
    let bundle = rich_bundle();
    let manifest = bundle.manifest();
    let [one, other] = &manifest.targets[..] else {
        panic!("two targets");
    };
    let image = |target: &Target| target.programs[0].native.unwrap().image;
    assert_eq!(image(one), image(other));
    let images = |section: &&preverify_bundle::Section| section.kind == SectionKind::Image;
    assert_eq!(manifest.sections.iter().filter(images).count(), 2);
}

#[test]
fn merged_bundles_are_as_if_built_at_once() {
    let [first, second, third] = [0, 1, 2].map(|number| rich_bundle_of(&[number]));
    let merged_in_order = merged(&[&first, &second, &third]);
    assert_eq!(
        merged_in_order.to_bytes(),
        rich_bundle_of(&[0, 1, 2]).to_bytes()
    );
    let some_already = merged(&[&third, &rich_bundle_of(&[0, 1])]);
    assert_eq!(
        some_already.to_bytes(),
        rich_bundle_of(&[2, 0, 1]).to_bytes()
    );
}

#[test]
fn program_numbers_count_through_all_targets() {
    let bundle = rich_bundle();
    let manifest = bundle.manifest();
    assert_eq!(manifest.program_number(0, 1), Some(1));
    assert_eq!(manifest.program_number(1, 0), Some(2));
    assert_eq!(manifest.program_number(1, 2), None);
    assert_eq!(manifest.program_number(2, 0), None);
}

#[test]
fn every_truncation_is_refused() {
    let bytes = rich_bundle().to_bytes();
    for size in 0..bytes.len() {
        assert!(Bundle::read(&bytes[..size]).is_err(), "{size} bytes");
    }
    let manifest = rich_bundle().manifest_bytes().to_vec();
    for size in 0..manifest.len() {
        assert!(Manifest::decode(&manifest[..size]).is_err(), "{size} bytes");
    }
}

#[test]
fn bytes_behind_the_end_are_refused() {
    let mut bytes = rich_bundle().to_bytes();
    bytes.extend_from_slice(&[0; 8]);
    assert!(Bundle::read(&bytes).is_err());
}

/// A changed bit is refused, unless it is in what a signature protects: the manifest or the
/// signature itself. Then the bundle that is read is another one.
#[test]
fn every_flipped_bit_is_noticed() {
    let mut bundle = rich_bundle();
    bundle.set_signature(Some(b"0123456789".to_vec()));
    let bytes = bundle.to_bytes();
    let manifest_start = 48 + 16 * bundle.manifest().sections.len();
    let signature_start = manifest_start + bundle.manifest_bytes().len();
    let signed = manifest_start..signature_start + 10;
    let signature_size = 40..48;
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        match Bundle::read(&damaged) {
            Err(_) => {}
            Ok(read) => {
                assert!(
                    signed.contains(&(bit / 8)) || signature_size.contains(&(bit / 8)),
                    "bit {bit} is not noticed"
                );
                assert!(
                    read.manifest_bytes() != bundle.manifest_bytes()
                        || read.signature() != bundle.signature(),
                    "bit {bit} is ignored"
                );
            }
        }
    }
}

#[test]
fn messages_name_the_place() {
    let message = |change: fn(&mut Vec<u8>)| {
        let mut bytes = rich_bundle().to_bytes();
        change(&mut bytes);
        Bundle::read(&bytes).unwrap_err().to_string()
    };
    assert_eq!(
        message(|bytes| bytes[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00")),
        "bundle: expected the first bytes PVBUNDLE, found \\x7fELF\\x02\\x01\\x01\\x00: this is something else"
    );
    assert_eq!(
        message(|bytes| bytes[8] = 9),
        "bundle: expected format version 3, found 9: build the bundle again with this version, or use the version that made it"
    );
    let last = message(|bytes| {
        let last = bytes.len() - 9;
        bytes[last] ^= 1;
    });
    assert!(last.starts_with("section 8 (symbols): "), "{last}");
}

#[test]
fn structures_that_contradict_themselves_are_not_written() {
    let change = |change: fn(&mut Manifest)| {
        let mut manifest = rich_bundle().manifest().clone();
        change(&mut manifest);
        manifest.encode().unwrap_err()
    };
    let error = change(|manifest| manifest.targets[0].programs[0].maps.push(9));
    assert_eq!(
        error,
        FormatError::Index {
            place: "target 0, program 0".to_owned(),
            table: "map",
            index: 9,
            count: 3,
        }
    );
    let error = change(|manifest| manifest.targets[1].programs[0].name = "sixteen_letters_".into());
    assert!(matches!(error, FormatError::Value { .. }), "{error}");
    let error = change(|manifest| manifest.targets[0].btf = manifest.targets[0].evidence);
    assert!(error.to_string().contains("btf"), "{error}");
    let error = change(|manifest| {
        manifest.sections.pop();
    });
    assert!(matches!(error, FormatError::Index { .. }), "{error}");
    let error = change(|manifest| {
        let target = manifest.targets[0].programs[1].attach_target.as_mut();
        target.unwrap().arguments = vec![Value::default(); 13];
    });
    let place = "target 0, program 1, attach target, arguments";
    assert!(error.to_string().contains(place), "{error}");
    let error = change(|manifest| manifest.targets[0].maps[0].fields.reverse());
    assert!(error.to_string().contains("field 1"), "{error}");
}
