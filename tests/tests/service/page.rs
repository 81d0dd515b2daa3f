//! What people see: the page, in a browser.

use std::fs;
use std::path::{Path, PathBuf};

use preverify_lab::{Lab, object};

use crate::browser::Browser;
use crate::running::Running;

#[test]
fn people_submit_and_see_what_comes_of_it() {
    let lab = Lab::new().unwrap();
    let running = Running::start(&lab, &tempfile::tempdir().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut browser = Browser::new();
    browser.open(&running.url("/"));
    browser.wait_for_text("Enter a token first");

    // By keyboard alone.
    browser.tab_to("#token");
    browser.enter(&running.token);
    browser.press("Enter");
    browser.wait_for_text(lab.target.name());
    browser.choose_file("#object", &written(folder.path(), "refusals"));
    browser.wait_for_text("refusals.bpf.o, ");
    browser.tab_to("#targets input");
    if browser.value("document.activeElement.checked") != true {
        browser.press(" ");
    }
    browser.screenshot(&picture("submit"));
    browser.tab_to("button.main");
    browser.press("Enter");
    browser.wait_for_text("on_packet");
    browser.wait_for("document.querySelector('#summary .state').textContent === 'accepted'");
    let shown = browser.text();
    for words in [
        "insns processed",
        "states at the peak",
        "bytes of machine code",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    browser.screenshot(&picture("accepted"));

    // What is in the bundle, and the code of a program.
    browser.tab_to("#cells button.plain");
    browser.press("Enter");
    browser.wait_for("document.querySelector('#code-text .address') !== null");
    let code = browser.value("document.querySelector('#code').innerText");
    assert!(code.as_str().unwrap().contains("machine code"), "{code}");
    browser.screenshot(&picture("code"));
    browser.value("document.querySelector('#show-contents').click()");
    browser.wait_for("document.querySelectorAll('#contents table').length >= 2");
    browser.screenshot(&picture("contents"));

    // By dropping a file.
    browser.value("location.hash = '#/'");
    browser.wait_for("document.querySelector('#targets input') !== null");
    browser.drop_file("#drop", &written(folder.path(), "rejected"));
    browser.wait_for_text("rejected.bpf.o, ");
    browser.value("document.querySelector('button.main').click()");
    browser.wait_for_text("invalid access to packet");
    browser.value("document.querySelector('#refusals button').click()");
    browser.wait_for("document.querySelector('#log .here') !== null");
    let line = browser.value("document.querySelector('#log .here').textContent");
    assert!(
        line.as_str().unwrap().contains("r1 = *(u8 *)(r1 +14)"),
        "{line}"
    );
    browser.prefer("dark");
    browser.screenshot(&picture("rejected-dark"));

    browser.value("location.hash = '#/jobs'");
    browser.wait_for("document.querySelectorAll('#rows tr').length === 2");
    browser.screenshot(&picture("jobs-dark"));
    browser.prefer("light");
    browser.value("location.hash = '#/targets'");
    browser.wait_for("document.querySelectorAll('#rows td').length >= 4");
    browser.screenshot(&picture("targets"));

    // It needs nothing from elsewhere, and nothing in it fails but the question without a token.
    let (complaints, requests) = browser.complaints_and_requests();
    let here = running.url("/");
    let elsewhere = |url: &&String| {
        !url.starts_with(&here) && !url.starts_with("data:") && !url.starts_with("blob:")
    };
    assert_eq!(requests.iter().find(elsewhere), None);
    let of_token = |complaint: &&serde_json::Value| {
        complaint["entry"]["text"]
            .as_str()
            .is_some_and(|text| text.contains("401"))
    };
    let others: Vec<_> = complaints
        .iter()
        .filter(|complaint| !of_token(complaint))
        .collect();
    assert!(others.is_empty(), "{others:#?}");
}

/// An object as a file.
fn written(folder: &Path, name: &str) -> PathBuf {
    let file = folder.join(format!("{name}.bpf.o"));
    fs::write(&file, object(name).unwrap().elf).unwrap();
    file
}

/// Where people find what it looked like.
fn picture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}.png"))
}
