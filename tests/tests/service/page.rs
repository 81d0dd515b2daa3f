//! What people see: the page, in a browser.

use std::fs;
use std::path::{Path, PathBuf};

use preverify_lab::{Lab, object};
use serde_json::{Value, json};
use ureq::unversioned::multipart::{Form, Part};

use crate::browser::Browser;
use crate::running::Running;
use crate::targets::Scratch;

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
    looks(&mut browser, "submit");
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
    looks(&mut browser, "accepted");

    // What is in the bundle, and the code of a program.
    browser.tab_to("#cells button.plain");
    browser.press("Enter");
    browser.wait_for("document.querySelector('#code-text .address') !== null");
    let code = browser.value("document.querySelector('#code').innerText");
    assert!(code.as_str().unwrap().contains("machine code"), "{code}");
    looks(&mut browser, "code");
    browser.value("document.querySelector('#show-contents').click()");
    browser.wait_for("document.querySelectorAll('#contents table').length >= 2");
    looks(&mut browser, "contents");

    // By dropping a file.
    browser.value("location.hash = '#/'");
    browser.wait_for("document.querySelector('#targets input') !== null");
    browser.drop_file("#drop", &written(folder.path(), "rejected"));
    browser.wait_for_text("rejected.bpf.o, ");
    browser.value("document.querySelector('button.main').click()");
    browser.wait_for_text("invalid access to packet");
    browser.value("document.querySelector('#refusals button').click()");
    browser.wait_for("document.querySelector('#log .here') !== null");
    for (place, words) in [
        ("#log-text .here", "r1 = *(u8 *)(r1 +14)"),
        ("#log-text .words", "invalid access to packet"),
        ("#log-source .here .place", "13"),
        (
            "#log-source .here code",
            "return data[14] == 0x45 ? XDP_PASS : XDP_DROP;",
        ),
        ("#log-source figcaption", "rejected.bpf.c"),
    ] {
        let text = browser.value(&format!("document.querySelector('{place}').textContent"));
        assert!(text.as_str().unwrap().contains(words), "{place}: {text}");
    }
    // What the log says of a source line is shown by keyboard.
    browser.tab_to("#log-source button:not(.here)");
    browser.press("Enter");
    let chosen = browser.value("document.querySelector('#log-text .chosen').textContent");
    assert!(chosen.as_str().unwrap().contains("ctx->data"), "{chosen}");
    looks(&mut browser, "rejected");

    browser.value("location.hash = '#/jobs'");
    browser.wait_for("document.querySelectorAll('#rows tr').length === 2");
    looks(&mut browser, "jobs");

    only_asks_here(&mut browser, &running);
}

#[test]
fn people_see_how_the_service_does_and_manage_its_targets() {
    let lab = Lab::new().unwrap();
    let scratch = Scratch::new();
    let running = Running::of_store(&scratch.store, 0, &tempfile::tempdir().unwrap());
    let mut browser = Browser::new();
    browser.open(&running.url("/#/targets"));
    browser.wait_for_text("Enter a token first");
    browser.tab_to("#token");
    browser.enter(&running.token);
    browser.press("Enter");
    browser.wait_for_text("0 of 1 slots are busy; 0 tasks");
    browser.wait_for_text("There is none yet");

    // What somebody else does shows without a question.
    scratch.put(&lab, "kept");
    browser.wait_for("document.querySelector('#rows .ready') !== null");
    browser.wait_for("document.querySelector('#workers').innerText.includes('kept')");

    // By keyboard alone: a kernel that there is, and one that there is not.
    let release = &lab.target.facts().release;
    for (source, name, state) in [
        (format!("debian:{release}"), "board", "ready"),
        (
            "debian:6.12.0+nowhere-cloud-amd64".into(),
            "nowhere",
            "failed",
        ),
    ] {
        browser.tab_to("#source");
        browser.enter(&source);
        browser.press("Tab");
        browser.enter(name);
        browser.press("Enter");
        let row = format!(
            "[...document.querySelectorAll('#rows tr')].find((row) => row.innerText.startsWith('{name}'))"
        );
        browser.wait_for(&format!("{row}?.querySelector('.{state}') != null"));
    }
    browser.wait_for_text("have no kernel 6.12.0+nowhere-cloud-amd64");
    // It has the one slot for longer than the page takes to look again.
    let endless = object("endless").unwrap().elf;
    let form = Form::new().part("object", Part::bytes(&endless).file_name("endless.bpf.o"));
    let form = form.text("target", "board").text("limits", "time=15s");
    let (status, answer) = running.post("/v1/jobs", form, Some(&running.token));
    assert_eq!(status, 201, "{answer}");
    running.submit(&object("inputs").unwrap(), &["board"]);
    browser.wait_for_text("1 of 1 slots are busy; 2 tasks");
    looks(&mut browser, "targets");
    for _ in 0..2 {
        browser.tab_to("#rows [data-remove=nowhere]");
        browser.press("Enter");
    }
    browser.wait_for("document.querySelector('#rows .failed') === null");
    assert_eq!(running.get("/v1/targets/nowhere").0, 404);
    browser.wait_for_text("0 of 1 slots are busy; 0 tasks");

    // Who may only read sees the same, and nothing to change it with.
    let reader = json!({ "name": "reader", "tenant": "acme", "scopes": ["read"] });
    let (status, issued) = running.post_json("/v1/tokens", &reader, &running.token);
    assert_eq!(status, 201, "{issued}");
    let issued: Value = serde_json::from_str(&issued).unwrap();
    browser.tab_to("#token");
    browser.enter(issued["token"].as_str().unwrap());
    browser.press("Enter");
    browser.wait_for(
        "document.querySelector('#add').hidden && document.querySelector('#rows .ready') !== null",
    );
    assert_eq!(
        browser.value("document.querySelector('#rows button')"),
        Value::Null
    );
    only_asks_here(&mut browser, &running);
}

/// It needs nothing from elsewhere, and nothing in it fails but the question without a token.
fn only_asks_here(browser: &mut Browser, running: &Running) {
    let (complaints, requests) = browser.complaints_and_requests();
    let here = running.url("/");
    let elsewhere = |url: &&String| {
        !url.starts_with(&here) && !url.starts_with("data:") && !url.starts_with("blob:")
    };
    assert_eq!(requests.iter().find(elsewhere), None);
    let of_token = |complaint: &&Value| {
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

/// Writes what a page looks like: light and dark, in a wide window and on a telephone. Nothing is cut off there.
fn looks(browser: &mut Browser, name: &str) {
    for (place, width, height) in [("", 1280, 900), ("-narrow", 390, 844)] {
        browser.resize(width, height);
        for scheme in ["light", "dark"] {
            browser.prefer(scheme);
            browser.screenshot(&picture(&format!("{name}{place}-{scheme}")));
        }
        let wider = browser
            .value("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(wider, 0, "{name} is wider than {width}");
    }
    browser.prefer("light");
    browser.resize(1280, 900);
}

/// Where people find what it looked like.
fn picture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}.png"))
}
