//! A browser without a window, driven by the Chrome DevTools Protocol.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Debian's headless Chromium.
const PROGRAM: &str = "chromium-headless-shell";
/// How long a page may take for what it shows; machines may be emulated meanwhile.
const LIMIT: Duration = Duration::from_secs(120);
/// How often a page is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// A browser with one page.
pub struct Browser {
    process: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    events: VecDeque<Value>,
    session: Option<String>,
    last: u64,
    _profile: TempDir,
}

impl Browser {
    /// A new browser with an empty page, which sees the host as it is.
    pub fn new() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The protocol is spoken on the descriptors 3 and 4, each message with a zero byte behind it.
        let script = format!(
            "exec {PROGRAM} --remote-debugging-pipe --no-sandbox --disable-dev-shm-usage --window-size=1280,900 --user-data-dir={} about:blank \
             3<&0 4>&1 </dev/null >/dev/null 2>&1",
            profile.path().display()
        );
        let mut process = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = process.stdin.take().unwrap();
        let mut answers = BufReader::new(process.stdout.take().unwrap());
        let (sender, messages) = channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while answers
                .read_until(0, &mut message)
                .is_ok_and(|read| read > 0)
            {
                message.pop();
                let parsed = serde_json::from_slice(&message).unwrap();
                if sender.send(parsed).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            process,
            commands,
            messages,
            events: VecDeque::new(),
            session: None,
            last: 0,
            _profile: profile,
        };
        let targets = browser.command("Target.getTargets", json!({}));
        let pages = targets["targetInfos"].as_array().unwrap();
        let page = pages
            .iter()
            .find(|target| target["type"] == "page")
            .unwrap();
        let attached = browser.command(
            "Target.attachToTarget",
            json!({ "targetId": page["targetId"], "flatten": true }),
        );
        browser.session = Some(attached["sessionId"].as_str().unwrap().into());
        for domain in ["Page", "Runtime", "Log", "Network", "DOM"] {
            browser.command(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Goes to an address.
    pub fn open(&mut self, url: &str) {
        let answer = self.command("Page.navigate", json!({ "url": url }));
        assert_eq!(answer["errorText"], Value::Null, "{url}");
        self.wait_for("document.readyState === 'complete'");
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let answer = self.command(
            "Runtime.evaluate",
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }),
        );
        assert_eq!(answer["exceptionDetails"], Value::Null, "{expression}");
        answer["result"]["value"].clone()
    }

    /// The page's text as people see it.
    pub fn text(&mut self) -> String {
        self.value("document.body.innerText")
            .as_str()
            .unwrap()
            .into()
    }

    /// Waits until an expression is true.
    pub fn wait_for(&mut self, expression: &str) {
        let start = Instant::now();
        while self.value(expression) != true {
            assert!(start.elapsed() < LIMIT, "{expression}: {}", self.text());
            thread::sleep(PAUSE);
        }
    }

    /// Waits until the page shows some words.
    pub fn wait_for_text(&mut self, words: &str) {
        self.wait_for(&format!(
            "document.body.innerText.includes({})",
            json!(words)
        ));
    }

    /// Presses a key: `Tab`, `Enter`, ` `.
    pub fn press(&mut self, key: &str) {
        let text = match key {
            "Enter" => "\r",
            " " => " ",
            _ => "",
        };
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            " " => 32,
            other => panic!("no code for {other}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            self.command(
                "Input.dispatchKeyEvent",
                json!({ "type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code }),
            );
        }
    }

    /// Types into what has the focus.
    pub fn enter(&mut self, text: &str) {
        self.command("Input.insertText", json!({ "text": text }));
    }

    /// Presses Tab until an element has the focus.
    pub fn tab_to(&mut self, selector: &str) {
        for _ in 0..60 {
            if self.value(&format!(
                "document.activeElement?.matches({}) ?? false",
                json!(selector)
            )) == true
            {
                return;
            }
            self.press("Tab");
        }
        panic!("{selector} is not to be had by keyboard");
    }

    /// Drops a file on an element, as from a file manager.
    pub fn drop_file(&mut self, selector: &str, file: &Path) {
        let place = self.value(&format!(
            "(() => {{ const box = document.querySelector({}).getBoundingClientRect(); \
               return [box.x + box.width / 2, box.y + box.height / 2]; }})()",
            json!(selector)
        ));
        let data = json!({ "items": [], "files": [file], "dragOperationsMask": 1 });
        for kind in ["dragEnter", "dragOver", "drop"] {
            self.command(
                "Input.dispatchDragEvent",
                json!({ "type": kind, "x": place[0], "y": place[1], "data": data }),
            );
        }
    }

    /// Chooses a file, as in a dialogue.
    pub fn choose_file(&mut self, selector: &str, file: &Path) {
        let document = self.command("DOM.getDocument", json!({}));
        let found = self.command(
            "DOM.querySelector",
            json!({ "nodeId": document["root"]["nodeId"], "selector": selector }),
        );
        self.command(
            "DOM.setFileInputFiles",
            json!({ "nodeId": found["nodeId"], "files": [file] }),
        );
    }

    /// The page is shown to somebody who prefers it `light` or `dark`.
    pub fn prefer(&mut self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.command(
            "Emulation.setEmulatedMedia",
            json!({ "features": [feature] }),
        );
    }

    /// The page is shown in a window of this size.
    pub fn resize(&mut self, width: u32, height: u32) {
        self.command(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false }),
        );
    }

    /// Writes what the page looks like.
    pub fn screenshot(&mut self, file: &Path) {
        let image = self.command("Page.captureScreenshot", json!({ "format": "png" }));
        let encoded = image["data"].as_str().unwrap();
        std::fs::write(file, Base64::decode_vec(encoded).unwrap()).unwrap();
    }

    /// What the page complained of so far, and the addresses that it asked for.
    pub fn complaints_and_requests(&mut self) -> (Vec<Value>, Vec<String>) {
        // What was said before the answer to this is there afterwards.
        self.value("0");
        let of = |event: &&Value, methods: &[&str]| {
            methods.iter().any(|method| event["method"] == *method)
        };
        let complaints = ["Runtime.exceptionThrown", "Log.entryAdded"];
        let complaints = self.events.iter().filter(|event| of(event, &complaints));
        let complaints = complaints.map(|event| event["params"].clone()).collect();
        let requests = self
            .events
            .iter()
            .filter(|event| of(event, &["Network.requestWillBeSent"]));
        let url = |event: &Value| {
            event["params"]["request"]["url"]
                .as_str()
                .map(str::to_owned)
        };
        (complaints, requests.filter_map(url).collect())
    }

    fn command(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let id = self.last;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.commands.write_all(&bytes).unwrap();
        loop {
            let answer = self.messages.recv_timeout(LIMIT);
            let mut answer = answer.unwrap_or_else(|error| panic!("{method}: {error}"));
            if answer["id"] != id {
                self.events.push_back(answer);
                continue;
            }
            assert_eq!(answer["error"], Value::Null, "{method}");
            return answer["result"].take();
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
