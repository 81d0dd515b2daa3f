//! Objects with many programs, which are verified in several shares.

use preverify_lab::{Lab, object};
use serde_json::Value;

use crate::running::Running;

#[test]
fn shares_become_the_bundle_of_a_local_build() {
    let lab = Lab::new().unwrap();
    let running = Running::start(&lab, &tempfile::tempdir().unwrap());
    let object = object("many").unwrap();
    let job = running.wait(&running.submit(&object, &[lab.target.name()]));
    assert_eq!(job["state"], "accepted", "{job:#}");
    let tasks = running.metric("preverify_tasks_total{outcome=\"bundle\"}");
    assert_eq!(tasks, 5, "4 shares, and what joins them");
    let local = lab.bundle(&lab.verify(&object).unwrap()).unwrap();
    let bundle = running.bundle(&job);
    assert_eq!(bundle.manifest(), local.manifest());
    assert_eq!(bundle.manifest_bytes(), local.manifest_bytes());
    bundle.verify(&[running.certificate()]).unwrap();
    let programs = job["targets"][0]["programs"].as_array().unwrap().iter();
    let programs: Vec<_> = programs.map(|program| &program["program"]).collect();
    let carried = &local.manifest().targets[0].programs;
    let carried: Vec<_> = carried
        .iter()
        .map(|program| Value::from(program.function.clone()))
        .collect();
    assert_eq!(programs, carried.iter().collect::<Vec<_>>());
}
