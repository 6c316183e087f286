//! A headless Chromium, driven over WebDriver by plain HTTP: one driver for all tests, a browser of its own for each. A
//! guardian process ends the driver, and the browsers with it, and removes their folder when the tests end, however they
//! end.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value as Json, json};

use super::{WAIT, http, wait_until};

/// Ends the driver when its own standard input ends. A browser ends with the pipe to its driver, a moment later, and may
/// write into the folder until then.
const GUARDIAN: &str = "chromedriver --port=0 2>/dev/null & driver=$!; cat >/dev/null; kill $driver; wait $driver; \
                        tries=0; until rm -rf \"$0\" 2>/dev/null || [ $tries -ge 50 ]; do tries=$((tries + 1)); sleep 0.1; done";

/// The driver.
struct Driver {
    port: u16,
    // Its end is what the guardian waits for.
    _life: ChildStdin,
    _guardian: Child,
}

impl Driver {
    fn shared() -> &'static Self {
        static SHARED: OnceLock<Driver> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("forebay-browser-").tempdir().expect("a folder").keep();
        let mut guardian = Command::new("sh");
        guardian.args(["-c", GUARDIAN]).arg(&folder).process_group(0).current_dir("/tmp");
        // Whatever they write goes there.
        guardian.env("HOME", &folder).env("TMPDIR", &folder).env_remove("XDG_CONFIG_HOME").env_remove("XDG_CACHE_HOME");
        let guardian = guardian.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut guardian = guardian.expect("sh");
        let life = guardian.stdin.take().expect("stdin");
        let mut said = String::new();
        let mut lines = BufReader::new(guardian.stdout.take().expect("stdout"));
        let port = loop {
            said.clear();
            let read = lines.read_line(&mut said).expect("what chromedriver says");
            assert!(
                read > 0,
                "chromedriver does not start; `make test` installs Debian's chromium and chromium-driver"
            );
            if let Some((_, port)) = said.trim_end().trim_end_matches('.').split_once("successfully on port ") {
                break port.parse().expect("a port");
            }
        };
        // It may say more than a pipe holds.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { port, _life: life, _guardian: guardian }
    }

    fn ask(&self, method: &str, path: &str, body: &Json) -> Json {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let mut stream = http::connect(([127, 0, 0, 1], self.port).into());
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: {}", self.port, body.len());
        write!(stream, "{head}\r\n\r\n{body}").expect("a request");
        // It keeps the connection: the answer ends where it says.
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(answer.read_line(&mut line).expect("a head") > 0, "chromedriver has ended");
            if let Some(("content-length", value)) = line.to_ascii_lowercase().trim_end().split_once(':') {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body).expect("a body");
        let mut answer: Json = serde_json::from_slice(&body).expect("JSON");
        assert!(answer["value"]["error"].is_null(), "{method} {path}: {}", answer["value"]);
        answer["value"].take()
    }
}

/// A browser that shows one page. It ends when this is dropped.
pub struct Browser {
    session: String,
}

impl Browser {
    pub fn start() -> Self {
        let args =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"];
        let wanted = json!({ "goog:chromeOptions": { "args": args }, "goog:loggingPrefs": { "browser": "ALL" } });
        let made = Driver::shared().ask("POST", "/session", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        let browser = Self { session: format!("/session/{}", made["sessionId"].as_str().expect("a session")) };
        browser.size(1280, 900);
        browser
    }

    fn post(&self, path: &str, body: &Json) -> Json {
        Driver::shared().ask("POST", &format!("{}{path}", self.session), body)
    }

    /// Goes to a page and waits until it is loaded.
    pub fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// What the body of a function returns on the page.
    pub fn run(&self, script: &str) -> Json {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The text of the element with that id, as it is shown; empty if it is hidden.
    pub fn text(&self, id: &str) -> String {
        let found = self.run(&format!("return document.getElementById({})?.innerText", json!(id)));
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true on the page.
    #[track_caller]
    pub fn waits_for(&self, expression: &str) {
        let begun = std::time::Instant::now();
        wait_until(|| {
            let is_so = self.run(&format!("return Boolean({expression})")) == true;
            assert!(
                is_so || begun.elapsed() < WAIT / 2,
                "{expression} does not come; the page shows:\n{}",
                self.shown()
            );
            is_so
        });
    }

    /// Waits until an element shows a text.
    #[track_caller]
    pub fn shows(&self, id: &str, text: &str) {
        self.waits_for(&format!("document.getElementById({})?.innerText.includes({})", json!(id), json!(text)));
    }

    /// All that the page shows, as text.
    pub fn shown(&self) -> String {
        self.run("return document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Presses keys, one after the other: characters, or WebDriver's numbers of others.
    pub fn press(&self, keys: &str) {
        let actions: Vec<Json> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() })))
            .collect();
        self.post("/actions", &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] }));
    }

    /// The size of what is seen of the page.
    pub fn size(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.command("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// What the system asks of pages, such as `prefers-color-scheme` with `dark`.
    pub fn prefers(&self, feature: &str, value: &str) {
        self.command("Emulation.setEmulatedMedia", &json!({ "features": [{ "name": feature, "value": value }] }));
    }

    fn command(&self, command: &str, params: &Json) -> Json {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": params }))
    }

    /// What the console was told since it was asked last.
    pub fn console(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            Driver::shared().ask("DELETE", &self.session, &Json::Null);
        }
    }
}
